"""Whole searches in this process: populations, interruptions, early stopping, failures; see serial_tune.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_catalog import write_feature_catalog
from serial_tune import take_turns

from crossview.platform import checkpoint
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset, read
from crossview.platform.train.metrics import read_metrics
from crossview.platform.tune import trial as trials_of
from crossview.platform.tune.runner import resume, start
from crossview.platform.tune.settings import Settings
from crossview.platform.tune.trial_store import Journal, Trial

METRIC = "phase_f1/ego2exo"
STEPS, EVALUATIONS = 6, 3


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"), train=3, val=2)


@pytest.fixture(scope="module")
def ratios(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("space") / "ratios.py"
    file.write_text(
        "from ray import tune\n"
        'SPACE = {"method.msm_ratio": tune.uniform(0.2, 0.8), "optim.lr": tune.loguniform(1e-4, 1e-2)}\n'
        f'METRIC, MODE, TASKS = "{METRIC}", "max", ("phases",)\n'
    )
    return str(file)


def experiment(catalog: Path) -> Experiment[Any]:
    recipe = preset("byov", "debug")
    return Experiment(
        data=Data(catalog=catalog),
        method=recipe.method,
        optim=dataclasses.replace(recipe.optim, steps=STEPS, batch=4, warmup_steps=1),
        compute=Compute(device="cpu"),
        every=Cadence(log=1, checkpoint=2, keep=10),
    )


def settings(ratios: str, **changes: Any) -> Settings:
    given = {"trials": 3, "scheduler": "none", "evaluations": EVALUATIONS, "confirm": 0, "jobs": 2}
    return Settings(**{"space": ratios, **given, **changes})


def outcome(trial: Trial) -> tuple[Any, ...]:
    """All of a trial but the times."""
    reports = [dataclasses.replace(report, seconds=0.0, at=0.0) for report in trial.reports]
    return trial.number, trial.options, trial.copied_from, trial.copied_at, reports, trial.status


def weights(journal: Journal) -> dict[Path, int]:
    """When each file of weights of the trials that have ended was written."""
    ended = [journal.of(trial.number) for trial in journal.trials() if trial.status is not None]
    return {file: file.stat().st_mtime_ns for folder in ended for file in folder.rglob("model.safetensors")}


def test_a_population_copies_better_trials(
    catalog: Path, ratios: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that copies trains on from the other's weights under options of its own."""
    take_turns(monkeypatch)
    folder = tmp_path / "population"
    start(folder, "byov", experiment(catalog), settings(ratios, scheduler="pbt"))
    journal = Journal(folder)
    trials = journal.trials()
    assert [trial.number for trial in trials] == [1, 2, 3]
    assert all(trial.reports[-1].evaluation == EVALUATIONS for trial in trials)
    copies = [(trial, report) for trial in trials for report in trial.reports if report.copied_from]
    assert copies
    for trial, report in copies:
        assert report.copied_from != trial.number
    trial, _ = copies[-1]
    run = journal.run(trial.number, 0)
    assert read(run)[1].method.msm_ratio == trial.options["method.msm_ratio"]
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.name == f"step-{STEPS:08d}"


@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_an_interrupted_search_ends_as_if_nothing_had_happened(
    catalog: Path, ratios: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    """Interrupted before an evaluation, and between its training and its score; no step is trained twice."""
    turns = take_turns(monkeypatch)
    start(tmp_path / "straight", "byov", experiment(catalog), settings(ratios, scheduler=scheduler))
    straight, begun = Journal(tmp_path / "straight"), turns.evaluations
    folder = tmp_path / "interrupted"
    journal = Journal(folder)

    def interrupt(evaluation: int) -> None:
        if evaluation == begun + 4:
            raise KeyboardInterrupt

    turns.before = interrupt
    with pytest.raises(KeyboardInterrupt, match=r"crossview tune --resume .*interrupted"):
        start(folder, "byov", experiment(catalog), settings(ratios, scheduler=scheduler))
    turns.before = lambda evaluation: None
    kept, score = weights(journal), trials_of.score

    def interrupted_score(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(trials_of, "score", interrupted_score)
    with pytest.raises(KeyboardInterrupt, match=r"crossview tune --resume .*interrupted"):
        resume(folder)
    monkeypatch.setattr(trials_of, "score", score)
    resume(folder)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert [outcome(trial) for trial in journal.trials()] == [outcome(trial) for trial in straight.trials()]
    for trial in journal.trials():
        rows = read_metrics(journal.run(trial.number, 0))
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    before = turns.evaluations
    resume(folder)  # nothing is left to do
    assert turns.evaluations == before


def test_asha_stops_trials_early(catalog: Path, ratios: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler sees each evaluation's score; whoever is not among the best at a rung is stopped there."""
    turns = take_turns(monkeypatch)
    start(
        tmp_path / "asha", "byov", experiment(catalog), settings(ratios, trials=6, scheduler="asha")
    )  # and the preset
    trials = Journal(tmp_path / "asha").trials()
    stopped = [trial for trial in trials if trial.status == "stopped"]
    assert stopped
    assert all(len(trial.reports) < EVALUATIONS for trial in stopped)
    finished = [trial for trial in trials if trial.status == "finished"]
    assert len(finished) + len(stopped) == 7
    assert all(len(trial.reports) == EVALUATIONS for trial in finished)
    assert turns.evaluations == sum(len(trial.reports) for trial in trials)


def test_a_search_whose_first_trials_all_fail_ends(
    ratios: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = take_turns(monkeypatch)
    catalog = write_feature_catalog(tmp_path, train=3, val=2)
    for file in (tmp_path / "files").glob("train*.npy"):
        np.save(file, np.full_like(np.load(file), np.nan))
    with pytest.raises(ValueError, match=r"trials all failed and none has a score.*loss or gradient is not finite"):
        start(tmp_path / "nan", "byov", experiment(catalog), settings(ratios, trials=30))
    statuses = [trial.status for trial in Journal(tmp_path / "nan").trials()]
    assert statuses == ["failed"] * 3 + [None]  # two at a time: the fourth was about to begin
    assert turns.evaluations == 3
