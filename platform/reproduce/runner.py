"""Studies: variants and seeds of a method on the synthetic world beside their baselines, resumable at any point."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.synthetic.ae2_layout import export_ae2, exported_catalog
from crossview.datasets.synthetic.world import write
from crossview.errors import UserError
from crossview.methods.recipe import Recipe
from crossview.methods.study import Study
from crossview.platform import run_folder
from crossview.platform.cluster.run_queue import Job, run_side_by_side
from crossview.platform.config import Cadence, Compute, Data, Experiment, method_names
from crossview.platform.evaluate.opened import TRAINED
from crossview.platform.evaluate.result_store import has_scores, latest_scores
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.progress import Progress, console, ticking
from crossview.platform.reproduce.base import with_base
from crossview.platform.reproduce.synthetic_teachers import teach
from crossview.platform.reproduce.tables import Scores, publish
from crossview.platform.train import launcher


def reproduce(spec: str, out: Path | None, jobs: int | None, *, train_base: bool = False) -> Path:
    """Run the study METHOD:STUDY in folder `out` and print its table; returns the table's file.

    `train_base` trains the base even if the study ships its weights.
    """
    method, name, study = find(spec)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    out = (out or Path("runs") / f"{method}-{name}").resolve()
    _claim_folder(out, study)
    catalog = _data(study, out)
    if study.teachers is not None:
        teach(study.teachers, method, catalog, out)
    recipes = with_base(study, out, train=train_base)
    planned = [
        _planned(study, variant, seed, recipe, catalog, out)
        for seed in range(study.seeds)
        for variant, recipe in recipes.items()
    ]
    _side_by_side(spec, study, planned, jobs or os.cpu_count() or 1, out)
    table = publish(spec, study, _collect(study, planned), out)
    _page(planned[0].run, study.split)
    return table


def find(spec: str) -> tuple[str, str, Study]:
    """The study that METHOD:STUDY names; raises ValueError with the known ones."""
    known = {f"{m}:{name}": study for m in method_names() for name, study in _studies(m).items()}
    if spec not in known:
        raise UserError(f"study {spec!r} is unknown; choose from {', '.join(known)}")
    method, name = spec.split(":")
    return method, name, known[spec]


def _studies(method: str) -> dict[str, Study]:
    if importlib.util.find_spec(f"crossview.methods.{method}.studies") is None:
        return {}
    return importlib.import_module(f"crossview.methods.{method}.studies").studies()


def _claim_folder(out: Path, study: Study) -> None:
    """A folder belongs to one study: resuming another study's runs would mix two results."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.json"
    content = json.loads(json.dumps(dataclasses.asdict(study), default=str))
    if file.exists() and storage.read_json(file, "choose another folder, or delete this one") != content:
        raise UserError(f"--out {out}: it holds another version of this study; choose another folder or delete it")
    run_folder.write_json(file, content)


def _data(study: Study, out: Path) -> Path:
    """Render the study's world and catalog it; an AE2 export is cataloged as a user's copy of AE2 would be."""
    folder = out / "catalog"
    if (folder / "catalog.json").exists():
        return folder
    with ticking("rendering") as tick:
        if study.layout == "synchronized":
            write(study.world, out / "data", tick).save(folder)
            return folder
        export_ae2(study.world, out / "data", layout="csv", progress=tick)
    exported_catalog(out / "data", study.world.actions[0], Prober(folder / INDICES)).save(folder)
    return folder


@dataclass(frozen=True)
class _Planned:
    """One run of a study."""

    variant: str
    run: Path
    experiment: Experiment[Any]


def _planned(study: Study, variant: str, seed: int, recipe: Recipe, catalog: Path, out: Path) -> _Planned:
    start = study.starts.get(variant)
    experiment: Experiment[Any] = Experiment(
        data=Data(
            catalog=catalog,
            views=study.train_views,
            actions=study.train_actions,
            cache_features=study.cache == "features",
            cache_frames=study.cache == "frames",
        ),
        method=recipe.method,
        optim=recipe.optim,
        compute=Compute(device="auto", threads=1),
        every=Cadence(log=20, checkpoint=500, keep=1),
        seed=seed,
        init_from=_folder(out, start, seed) if start else None,
    )
    return _Planned(variant, _folder(out, variant, seed), experiment)


def _folder(out: Path, variant: str, seed: int) -> Path:
    return out / f"{re.sub(r'[^0-9A-Za-z+.]+', '-', variant)}-seed{seed}"


def _one(one: _Planned, method: str, study: Study) -> None:
    """Train one run to its end and score it, resuming where it stopped; the first variant beside its baselines."""
    run = one.run
    if (run / "run.json").exists():
        launcher.resume(run, in_process=True)
    else:
        command = run_folder.training_command(run, method)
        launcher.start(run, method, one.experiment, in_process=True, command=command)
    if not has_scores(run, study.split, study.tasks):
        first = one.variant == next(iter(study.variants))
        evaluate(run, split=study.split, tasks=study.tasks, baselines=first, in_process=True)


def _page(run: Path, split: str) -> None:
    from crossview.platform.report.figures import draw
    from crossview.platform.report.run_report import report

    if not (run / "report.html").exists():
        draw(run, split=split)
        report(run)
    console.print(f"The report with its figures is saved to {run / 'report.html'}", highlight=False)


def _side_by_side(spec: str, study: Study, planned: list[_Planned], at_a_time: int, out: Path) -> None:
    """Train the runs as Ray tasks, each after the one that it starts from."""
    method = spec.partition(":")[0]
    if study.cache == "features":
        _cache_features(method, planned[0].experiment)
    jobs = [
        Job(str(one.run), (one, method, study), str(begin) if (begin := one.experiment.init_from) else None)
        for one in planned
    ]
    steps = sum(one.experiment.optim.steps or 0 for one in planned)
    with Progress(f"{len(planned)} runs", steps, "steps", _steps_done(planned)) as line:

        def tell(ended: int) -> None:
            line.update(_steps_done(planned), f"{ended} of {len(planned)} trained and scored")

        run_side_by_side(_one, jobs, at_a_time, tell=tell, resume=f"crossview reproduce {spec} --out {out}")


def _cache_features(method: str, experiment: Experiment[Any]) -> None:
    """Compute the features once, before parallel runs would each start to."""
    from crossview.platform.data.feature_cache import cache

    data = experiment.data
    cache(method, experiment.method, Catalog.load(data.catalog), data.catalog / "features", data=data)


def _steps_done(planned: list[_Planned]) -> int:
    files = [one.run / "progress.json" for one in planned]
    return sum(json.loads(file.read_text())["step"] for file in files if file.exists())


def _collect(study: Study, planned: list[_Planned]) -> Scores:
    """Scores by row over seeds: the variants' trained rows, then the first variant's baselines."""
    scores: Scores = {variant: {} for variant in study.variants}
    method_variant = next(iter(study.variants))
    baselines: Scores = {}
    for one in planned:
        for row, values in latest_scores(one.run, split=study.split).items():
            if row == TRAINED:
                _append(scores, one.variant, values)
            elif one.variant == method_variant:
                _append(baselines, row, values)
    return scores | baselines


def _append(scores: Scores, row: str, values: dict[str, float]) -> None:
    for metric, value in values.items():
        scores.setdefault(row, {}).setdefault(metric, []).append(value)
