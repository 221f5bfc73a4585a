"""One trial: its runs train a part, are scored, and so on; all of its progress is saved to disk."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from crossview import storage
from crossview.downstream import results
from crossview.errors import UserError
from crossview.platform import run_folder
from crossview.platform.config import Experiment
from crossview.platform.data.plan_builder import plan_for
from crossview.platform.evaluate.opened import TRAINED
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.evaluate.tasks import options_from
from crossview.platform.report.plots import loss_names
from crossview.platform.train import launcher
from crossview.platform.train.lr_schedule import total_steps
from crossview.platform.train.metrics import read_metrics
from crossview.platform.tune.overrides import with_options
from crossview.platform.tune.spec import Search, read
from crossview.platform.tune.trial_store import Journal, Report, Trial

Scores = dict[str, dict[str, float]]
WORST = 1e30
"""Stands for a score that is not a number: the scheduler compares and cannot leave it out."""


class TrialActor(tune.Trainable):
    """Ray Tune's trainable: each step trains a trial's runs up to the next evaluation and scores them.

    `config["trial"]` has the search's "folder", the trial's "number" and the evaluation "until" which it runs. What a
    step has done is in the journal, so that a new process resumes after it; nothing runs between two steps.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Resume a trial from the journal."""
        self.given = config["trial"]
        folder, self.number = storage.as_path(self.given["folder"]), self.given["number"]
        self.search, self.journal = read(folder), Journal(folder)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next evaluation; one that fails for reasons of its own ends the trial, and the others continue."""
        trial = self.journal.trial(self.number)
        report, until = trial.reports[-1] if trial.reports else None, self.given["until"]
        if report is None or report.evaluation < until:
            try:
                report = _advance(self.journal, self.search, trial)
            except UserError as error:  # failing storage is handled by the search: Ray repeats the step
                self.journal.end(self.number, "failed", str(error))
                return {"done": True}
            self.journal.report(self.number, report)
        return {
            "objective": comparable(report.objective, self.search.sign),
            "evaluation": report.evaluation,
            "done": report.evaluation >= until,
        }


def _advance(journal: Journal, search: Search, trial: Trial) -> Report:
    """Train every seed up to the next evaluation and score it."""
    began, first, evaluation = time.monotonic(), not trial.reports, len(trial.reports) + 1
    experiment = with_options(search.method, search.experiment, trial.options)
    total = total_steps(experiment.optim, plan_for(experiment).rows_per_epoch)
    until = round(total * evaluation / search.evaluations)
    scores: list[Scores] = []
    losses: list[dict[str, float]] = []
    for seed in range(experiment.seed, experiment.seed + search.seeds):
        run = journal.run(trial.number, seed)
        train_part(run, search, replace(experiment, seed=seed), until if evaluation < search.evaluations else None)
        scores.append(score(run, search, search.split, baselines=first))
        last = read_metrics(run)[-1]
        losses.append({name: last[name] for name in loss_names(last)})
    means = mean_scores(scores)
    trained = means.pop(TRAINED)
    if search.metric not in trained:
        raise UserError(
            f"metric {search.metric!r}: the tasks {', '.join(search.tasks)} have reported {', '.join(trained)}; choose "
            "one of these with --metric"
        )
    return Report(
        evaluation=evaluation,
        step=until,
        objective=trained[search.metric],
        per_seed=[s[TRAINED][search.metric] for s in scores],
        metrics=trained,
        baselines=means if first else trial.reports[0].baselines,
        losses={name: float(np.mean([of[name] for of in losses])) for name in losses[0]},
        seconds=time.monotonic() - began + (trial.reports[-1].seconds if trial.reports else 0.0),
        at=time.time(),
        copied_from=trial.copied_from if trial.copied_at == evaluation - 1 else None,
    )


def train_part(run: Path, search: Search, experiment: Experiment[Any], until: int | None) -> None:
    """Start or resume a run, until after a step or to its end: in this process, or in a group of workers."""
    in_process = experiment.compute.workers == 1
    if run.is_dir() and not (run / "run.json").exists():
        run_folder.discard_bare(run)  # created just before a kill
    if run.is_dir():
        launcher.resume(run, in_process=in_process, until=until, planned=True)
    else:
        storage.make_folder(run.parent)
        experiment = placed(search, experiment)
        command = run_folder.training_command(run, search.method)
        launcher.start(
            run, search.method, experiment, in_process=in_process, until=until, planned=True, command=command
        )


def placed(search: Search, experiment: Experiment[Any]) -> Experiment[Any]:
    """The experiment of a run on the share of the cluster that its trial claims."""
    compute = replace(experiment.compute, device=search.device, threads=search.threads)
    return replace(experiment, compute=compute)


def score(run: Path, search: Search, split: str, *, baselines: bool) -> Scores:
    """Downstream metrics by row, from the run's latest checkpoint, computed in this process."""
    table = evaluate(
        run,
        split=split,
        fit_split=search.fit_split,
        tasks=search.tasks,
        options={name: options_from(name, values) for name, values in search.options.items()},
        baselines=baselines,
        in_process=True,
        device=search.device if search.experiment.compute.workers == 1 else "cpu",
    )
    return results.scores(table)


def mean_scores(scores: list[Scores]) -> Scores:
    """Means over seeds of what all of them have."""
    return {
        row: {m: float(np.mean([s[row][m] for s in scores])) for m in metrics if all(m in s[row] for s in scores)}
        for row, metrics in scores[0].items()
        if all(row in s for s in scores)
    }


def best_row(rows: Scores, metric: str, sign: int) -> tuple[str, float] | None:
    """The row with the best finite value of a metric; None if no row has one."""
    values = [(row, scores[metric]) for row, scores in rows.items() if np.isfinite(scores.get(metric, np.nan))]
    return max(values, key=lambda pair: sign * pair[1], default=None)


def comparable(objective: float, sign: int) -> float:
    """The objective for a scheduler, which cannot take NaN."""
    return objective if np.isfinite(objective) else -sign * WORST
