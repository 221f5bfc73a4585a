"""What one trial does: its runs train a part, are scored, and so on; everything that it has done is on the disk."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from crossview.downstream.table import from_arrow
from crossview.platform import checkpoint, runs, train
from crossview.platform.config import Experiment, to_dict
from crossview.platform.evaluate import evaluate
from crossview.platform.loop import plan_for, total_steps
from crossview.platform.metrics import read_metrics
from crossview.platform.plots import NOT_LOSSES
from crossview.platform.rows import TRAINED
from crossview.platform.tune.definition import Search, read
from crossview.platform.tune.journal import Journal, Report, Trial
from crossview.platform.tune.options import with_options

Scores = dict[str, dict[str, float]]
WORST = 1e30
"""Stands for a score that is not a number: the scheduler compares and cannot leave it out."""


class TrialActor(tune.Trainable):
    """Ray Tune's trainable: each step trains a trial's runs up to the next evaluation and scores them.

    `config["trial"]` has the search's "folder", the trial's "number" and its "options". What a step has done is in the
    journal, so that a new process goes on behind it. Nothing runs between two steps: a trial that Ray pauses, copies or
    stops is at rest.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial up where the journal leaves it."""
        given = config["trial"]
        folder, self.number, self.options = Path(given["folder"]), given["number"], given["options"]
        self.search, self.journal = read(folder), Journal(folder)
        reports = self.journal.trial(self.number).reports
        self.last = reports[-1] if reports else None
        self.donor: int | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next evaluation; one that fails for reasons of its own ends the trial, and the others go on."""
        evaluation = self.last.evaluation if self.last else 0
        if self.last is None or evaluation < self.search.evaluations:
            try:
                found = _advance(self.journal, self.search, self.journal.trial(self.number), evaluation + 1)
            except (ValueError, OSError) as error:
                self.journal.end(self.number, "failed", str(error))
                return {"done": True}
            self.last = replace(found, copied_from=self.donor)
            self.journal.report(self.number, self.last)
            self.donor = None
        return {
            "objective": comparable(self.last.objective, self.search.sign),
            "evaluation": self.last.evaluation,
            "done": self.last.evaluation >= self.search.evaluations,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Where the weights lie: population-based training copies them from there."""
        assert self.last is not None
        where = {"number": self.number, "evaluation": self.last.evaluation, "step": self.last.step}
        (Path(checkpoint_dir) / "trial.json").write_text(json.dumps(where))

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Go on from another trial's weights, where the checkpoint is another's; one's own is on the disk anyway."""
        where = json.loads((Path(str(checkpoint)) / "trial.json").read_text())
        if where["number"] == self.number:
            return
        _take_over(self.journal, self.search, self.number, where, self.options)
        self.donor = where["number"]
        reports = self.journal.trial(self.donor).reports
        self.last = next(report for report in reports if report.evaluation == where["evaluation"])


def _advance(journal: Journal, search: Search, trial: Trial, evaluation: int) -> Report:
    """Train every seed up to an evaluation and score it."""
    began, first = time.monotonic(), not trial.reports
    experiment = with_options(search.method, search.experiment, trial.options)
    total = total_steps(experiment.optim, plan_for(experiment).rows_per_epoch)
    until = round(total * evaluation / search.evaluations)
    scores: list[Scores] = []
    losses: list[dict[str, float]] = []
    for seed in range(experiment.seed, experiment.seed + search.seeds):
        run = journal.run(trial.number, seed)
        train_part(run, search, replace(experiment, seed=seed), until if evaluation < search.evaluations else None)
        scores.append(score(run, search, search.split, controls=first))
        losses.append({k: v for k, v in read_metrics(run)[-1].items() if k not in NOT_LOSSES})
    means = mean_scores(scores)
    trained = means.pop(TRAINED)
    if search.metric not in trained:
        raise ValueError(
            f"metric {search.metric!r}: the tasks {', '.join(search.tasks)} have reported {', '.join(trained)}; choose "
            "one of these with --metric"
        )
    return Report(
        evaluation=evaluation,
        step=until,
        objective=trained[search.metric],
        per_seed=[s[TRAINED][search.metric] for s in scores],
        metrics=trained,
        controls=means if first else trial.reports[0].controls,
        losses={name: float(np.mean([of[name] for of in losses])) for name in losses[0]},
        seconds=time.monotonic() - began + (trial.reports[-1].seconds if trial.reports else 0.0),
        at=time.time(),
    )


def train_part(run: Path, search: Search, experiment: Experiment[Any], until: int | None) -> None:
    """Begin a run, or go on with it, until after a step or to its end: in this process, or in a group of workers."""
    in_process = experiment.compute.workers == 1
    if run.is_dir() and not (run / "run.json").exists():
        runs.discard_bare(run)  # begun in the moment of a kill
    if run.is_dir():
        train.resume(run, in_process=in_process, until=until)
    else:
        run.parent.mkdir(parents=True, exist_ok=True)
        compute = replace(experiment.compute, threads=experiment.compute.threads or search.threads)
        experiment = replace(experiment, compute=compute)
        train.start(run, search.method, experiment, in_process=in_process, until=until)


def score(run: Path, search: Search, split: str, *, controls: bool) -> Scores:
    """Downstream metrics by row, from the run's newest checkpoint, computed in this process."""
    table = evaluate(
        run, split=split, fit_split=search.fit_split, tasks=search.tasks, controls=controls, in_process=True
    )
    return {row: {m: values[0] for m, values in metrics.items()} for row, metrics in from_arrow(table).items()}


def mean_scores(scores: list[Scores]) -> Scores:
    """Means over seeds of what all of them have."""
    return {
        row: {m: float(np.mean([s[row][m] for s in scores])) for m in metrics if all(m in s[row] for s in scores)}
        for row, metrics in scores[0].items()
        if all(row in s for s in scores)
    }


def comparable(objective: float, sign: int) -> float:
    """The objective for a scheduler, which cannot take NaN."""
    return objective if np.isfinite(objective) else -sign * WORST


def _take_over(journal: Journal, search: Search, number: int, donor: dict[str, int], options: dict[str, Any]) -> None:
    """Replace this trial's runs by the donor's at its report, under the new options."""
    journal.begin(number, options)
    changed = with_options(search.method, search.experiment, options)
    for seed in range(changed.seed, changed.seed + search.seeds):
        source, run = journal.run(donor["number"], seed), journal.run(number, seed)
        _fork(source, run, donor["step"], search.method, replace(changed, seed=seed))


def _fork(source: Path, run: Path, step: int, method: str, experiment: Experiment[Any]) -> None:
    """Let a run go on from another run's checkpoint of a step (its newest, where that is gone) and history."""
    kept = checkpoint.folder(source, step)
    begin = kept if kept.exists() else checkpoint.resolve(source)
    copy = run / "checkpoints" / f".{begin.name}-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(begin, copy)
    shutil.copy(source / "metrics.parquet", run / "metrics.parquet")
    info = json.loads((run / "run.json").read_text())
    runs.write_json(run / "run.json", {**info, "experiment": to_dict(method, experiment)})
    for old in checkpoint.all_of(run):
        shutil.rmtree(old)
    copy.rename(run / "checkpoints" / begin.name)
