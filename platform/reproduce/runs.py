"""Runs of a study or a table: each trained and scored once, side by side, resumable at any point."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.errors import UserError
from crossview.platform import run_folder
from crossview.platform.cluster.connect import connect
from crossview.platform.cluster.resources import capacity
from crossview.platform.cluster.run_queue import Job, run_side_by_side
from crossview.platform.config import Experiment, is_trainer
from crossview.platform.data.feature_files import feature_shape
from crossview.platform.evaluate.embedded_catalog import embedded_catalog
from crossview.platform.evaluate.frame_embeddings import embed
from crossview.platform.evaluate.opened import TRAINED, Baselines, open_run
from crossview.platform.evaluate.result_store import has_scores
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.evaluate.tasks import options_from
from crossview.platform.progress import Progress
from crossview.platform.train import launcher
from crossview.platform.train.status import read_status
from crossview.platform.tune.capacity import SPARE_CPUS


@dataclass(frozen=True)
class Embeddings:
    """What a downstream trainer reads in place of the videos: a run's frame embeddings of two splits."""

    run: Path
    row: str
    """"trained", or one of its baselines."""
    split: str
    """Beside "train"."""


@dataclass(frozen=True)
class Planned:
    """One run, and what scores it."""

    name: str
    """Of the variant or stage that it is a run of."""
    run: Path
    method: str
    experiment: Experiment[Any]
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """With the options of each; none leaves it unscored."""
    split: str = "test"
    baselines: bool = False
    after: Path | None = None
    """The run that must have ended before."""
    reads: Embeddings | None = None
    """What the catalog that the experiment names is made of; it sets the number of classes and the width."""


def folder_of(out: Path, name: str, seed: int) -> Path:
    """The run of a variant or stage with one seed."""
    return out / f"{re.sub(r'[^0-9A-Za-z+.]+', '-', name)}-seed{seed}"


def train_and_score(one: Planned) -> None:
    """Train a run to its end and score it, resuming where it stopped."""
    run, in_process = one.run, one.experiment.compute.workers == 1
    if run.is_dir() and not (run / "run.json").exists():
        run_folder.discard_bare(run)  # created just before a kill
    if (run / "run.json").exists():
        launcher.resume(run, in_process=in_process, planned=not in_process)
    else:
        command = run_folder.training_command(run, one.method)
        launcher.start(
            run,
            one.method,
            one.experiment if one.reads is None else _on_embeddings(one.experiment, one.reads),
            in_process=in_process,
            planned=not in_process,
            command=command,
        )
    if one.tasks and not has_scores(run, one.split, tuple(one.tasks)):
        options = {name: options_from(name, values) for name, values in one.tasks.items()}
        evaluate(
            run, split=one.split, tasks=tuple(one.tasks), options=options, baselines=one.baselines, in_process=True
        )


def _on_embeddings(experiment: Experiment[Any], reads: Embeddings) -> Experiment[Any]:
    run = open_run(reads.run, in_process=True)
    wanted: Baselines = "none" if reads.row == TRAINED else "all"
    tables = [embed(run, split=split, baselines=wanted)[reads.row] for split in ("train", reads.split)]
    folder = experiment.data.catalog
    catalog = embedded_catalog(tables, run.catalog, folder)
    method, first = experiment.method, catalog.recordings[0]
    width = feature_shape(folder / first.path, first)[-1]
    return replace(experiment, method=replace(method, width=width, classes=len(catalog.classes[method.kind])))


def side_by_side(planned: Sequence[Planned], at_a_time: int | None, resume: str) -> None:
    """Train and score the runs as Ray tasks, each after the one that it needs, on a GPU each where there are some.

    `at_a_time` None is one for each GPU, or core without any. `resume` is the command that goes on after a failure.
    """
    if at_a_time is not None and at_a_time < 1:
        raise UserError(f"--jobs is {at_a_time}; it must be at least 1")
    connect()
    gpus = int(capacity().get("GPU", 0))
    groups = any(one.experiment.compute.workers > 1 for one in planned)  # which claim what they need themselves
    room = 1 if groups else gpus or os.cpu_count() or 1
    jobs = [Job(str(one.run), (one,), str(one.after) if one.after else None) for one in planned]
    steps = sum(one.experiment.optim.steps or 0 for one in planned)
    with Progress(f"{len(planned)} runs", steps, "steps", _steps_done(planned)) as line:

        def tell(ended: int) -> None:
            line.update(_steps_done(planned), f"{ended} of {len(planned)} trained and scored")

        run_side_by_side(
            train_and_score,
            jobs,
            at_a_time or room,
            cpus=SPARE_CPUS if groups else 1,
            gpus=1 if gpus and not groups else 0,
            tell=tell,
            resume=resume,
        )


def cache_features(one: Planned) -> None:
    """Compute the features of a run's frozen part once, before parallel runs would each start to.

    Not a trainer's, whose encoder may have to be trained first.
    """
    if is_trainer(one.method):
        return
    from crossview.platform.data.feature_cache import cache

    data = one.experiment.data
    cache(one.method, one.experiment.method, Catalog.load(data.catalog), data.catalog / "features", data=data)


def _steps_done(planned: Sequence[Planned]) -> int:
    found = [read_status(one.run) for one in planned]
    return sum(status.step for status in found if status is not None)
