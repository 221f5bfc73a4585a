"""What one trial does: its runs train a part, are scored, and so on; everything that it has done is on the disk."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune import Checkpoint

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


def run_trial(config: dict[str, Any]) -> None:
    """Ray Tune's trainable: goes on with a trial to its end, from what the journal holds of it.

    `config["trial"]` has the search's "folder", the trial's "number" and its "options".
    """
    given = config["trial"]
    folder, number = Path(given["folder"]), given["number"]
    search, journal = read(folder), Journal(folder)
    evaluation = len(journal.trial(number).reports) + 1
    donor = _donor(number)
    if donor is not None:
        _take_over(journal, search, number, donor, given["options"])
        evaluation = donor["evaluation"] + 1
    try:
        for k in range(evaluation, search.evaluations + 1):
            report = _advance(journal, search, journal.trial(number), k)
            report = replace(report, copied_from=donor["number"] if donor and k == evaluation else None)
            journal.report(number, report)
            _tell(search, report, number)
    except (ValueError, OSError) as error:  # of this point of the space: the others go on
        journal.end(number, "failed", str(error))


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


def _tell(search: Search, report: Report, number: int) -> None:
    """Report to Ray Tune, which may end this function here."""
    values = {"objective": comparable(report.objective, search.sign), "evaluation": report.evaluation}
    if search.scheduler != "pbt":
        tune.report(values)
        return
    with tempfile.TemporaryDirectory() as folder:  # says where the weights lie; they are not copied for Ray
        where = {"number": number, "evaluation": report.evaluation, "step": report.step}
        (Path(folder) / "trial.json").write_text(json.dumps(where))
        tune.report(values, checkpoint=Checkpoint.from_directory(folder))


def _donor(number: int) -> dict[str, int] | None:
    """The trial whose weights the scheduler has told this one to take over, with the evaluation and step of them."""
    given = tune.get_checkpoint()
    if given is None:
        return None
    with given.as_directory() as folder:
        where: dict[str, int] = json.loads((Path(folder) / "trial.json").read_text())
    return where if where["number"] != number else None


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
