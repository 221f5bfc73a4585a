"""Scores of a run by downstream tasks while it trains, from the checkpoint just written."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist

from crossview.downstream import results
from crossview.errors import UserError
from crossview.platform import checkpoint, progress
from crossview.platform.evaluate.opened import TRAINED, open_run
from crossview.platform.evaluate.preflight import Tasks, modes, preflight
from crossview.platform.evaluate.runner import record
from crossview.platform.evaluate.tasks import make, options_from
from crossview.platform.train.metrics import Metrics, read_metrics
from crossview.platform.train.resolve import ResolvedRun
from crossview.platform.train.settings import SCORES
from crossview.platform.train.state import Worker

LONGEST = timedelta(days=2)
"""How long the other ranks wait for rank 0 to score a checkpoint."""


def check(run: ResolvedRun, saved: Mapping[str, Any] | None) -> None:
    """Raise ValueError for all that the tasks lack which `saved`, as of `Validation.saved`, names for this run."""
    if saved is not None:
        splits, metric = (saved["split"], saved["fit_split"]), run.experiment.every.best
        preflight(_tasks(saved), run.method, run.experiment, run.catalogs[0], *splits, metric)


def is_due(run: ResolvedRun, step: int) -> bool:
    """Whether the run's tasks score the checkpoint of this step."""
    every = run.experiment.every.evaluate
    regular = bool(every) and step > 0 and step % (every or 1) == 0
    return "validation" in run.info and (regular or step == run.total_steps)


def is_missing(run: ResolvedRun, step: int) -> bool:
    """Whether scores of the checkpoint of this step are due and not there, as the run ended while they were made."""
    return is_due(run, step) and not any(_scored(row, step) for row in read_metrics(run.folder))


class Validator:
    """Scores the checkpoints of a run on rank 0 while the other ranks wait."""

    def __init__(self, run: ResolvedRun, worker: Worker) -> None:
        self.run, self.worker = run, worker
        self.saved: Mapping[str, Any] | None = run.info.get("validation")
        # Not the group that gradients are exchanged in: that gives up after minutes of waiting.
        wait = self.saved is not None and worker.world > 1
        self._waiting: Any = dist.new_group(backend="gloo", timeout=LONGEST) if wait else None

    def __call__(self, step: int, metrics: Metrics | None) -> None:
        """Score the checkpoint of this step if that is due and not done yet; every rank has to call it.

        `metrics` is rank 0's. The generators of random numbers are left as they are.
        """
        if not is_due(self.run, step):
            return
        if metrics is not None and not any(_scored(row, step) for row in metrics.rows):
            began = time.monotonic()
            with _undisturbed(self.worker.device), progress.hidden():
                values = self._scores(step)
            metrics.add(step, {SCORES + metric: value for metric, value in values.items()})
            with checkpoint.needs_space(self.run.folder / "metrics.parquet", self.run.folder):
                metrics.flush()
            metrics.leave_out(time.monotonic() - began)
        if self._waiting is not None:
            dist.barrier(self._waiting)

    def _scores(self, step: int) -> dict[str, float]:
        """The trained row's, by metric; they are added to the run's results and decide which checkpoint is the best."""
        run = self.run
        try:
            return self._recorded(step)
        except UserError as error:
            raise UserError(
                f"{run.folder}: the checkpoint of step {step} is saved, but could not be scored: {error}. Once that is "
                f"put right, resume with `crossview resume {run.folder}`"
            ) from error
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{run.folder}: {str(error).split('. ')[0]} in scoring the checkpoint of step {step} beside training; "
                f"score it after training instead: start anew with `crossview train {run.method} --from {run.folder} "
                f"--init-from {run.folder} --tasks None --every.evaluate 0 --every.best None`"
            ) from error
        finally:
            if self.worker.device.type == "cuda":
                torch.cuda.empty_cache()

    def _recorded(self, step: int) -> dict[str, float]:
        assert self.saved is not None
        tasks, run, best = _tasks(self.saved), self.run, self.run.experiment.every.best
        opened = open_run(run.folder, checkpoint=str(step), in_process=True, device=str(self.worker.device))
        splits = self.saved["split"], self.saved["fit_split"]
        facts = preflight(tasks, opened.method, opened.experiment, opened.catalog, *splits)
        values = self._trained(record(opened, facts, tasks, "fixed"))
        if best is not None:
            if best not in values:
                raise UserError(
                    f"every.best is {best!r}, which split {splits[0]!r} does not define; it defines "
                    f"{', '.join(values)}: choose one of these"
                )
            mode = modes(best, tasks, run.method, run.experiment)[best]
            checkpoint.note_best(run.folder, step, best, mode, values[best])
        return values

    def _trained(self, lines: pa.Table) -> dict[str, float]:
        return results.scores(lines)[TRAINED]


def _tasks(saved: Mapping[str, Any]) -> Tasks:
    return make(saved["tasks"], {name: options_from(name, of) for name, of in saved["options"].items()})


def _scored(row: Mapping[str, float], step: int) -> bool:
    return row["step"] == step and any(name.startswith(SCORES) for name in row)


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Afterwards all generators of random numbers of this process are as they were."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries draw from it
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002
