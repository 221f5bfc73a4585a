"""Whole searches on a small cluster: shared features, population-based training, groups of workers, kills, failures."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from feature_catalog import write_feature_catalog
from serial_tune import take_turns

from crossview.platform import checkpoint
from crossview.platform.cli.main import main
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset, read, to_dict
from crossview.platform.train import launcher
from crossview.platform.train.metrics import read_metrics
from crossview.platform.tune import spec
from crossview.platform.tune.overrides import with_options
from crossview.platform.tune.runner import start
from crossview.platform.tune.settings import Settings
from crossview.platform.tune.trial_store import Journal

METRIC = "phase_f1/ego2exo"
STEPS = 8


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


def experiment(catalog: Path, **compute: Any) -> Experiment[Any]:
    recipe = preset("byov", "debug")
    return Experiment(
        data=Data(catalog=catalog),
        method=recipe.method,
        optim=dataclasses.replace(recipe.optim, steps=STEPS, batch=4, warmup_steps=1),
        compute=Compute(device="cpu", **compute),
        every=Cadence(log=1, checkpoint=2, keep=10),
    )


@pytest.mark.ray
@pytest.mark.long
def test_trials_are_ordinary_runs_that_share_features(ratios: str, tmp_path: Path, ray_cluster: None) -> None:
    """From videos to the page: every trial is scored beside its baselines, and none computes a feature again."""
    tiny_run.write_catalog(tmp_path)
    tiny = Experiment(
        data=Data(catalog=tmp_path / "catalog", cache_features=True),
        method=tiny_run.method_config(),
        optim=dataclasses.replace(experiment(tmp_path).optim, batch=2, steps=4),
        compute=Compute(device="cpu"),
        every=Cadence(log=1, checkpoint=2),
    )
    folder = tmp_path / "runs" / "search"
    page = start(folder, "byov", tiny, Settings(space=ratios, trials=2, evaluations=2, seeds=2, confirm=2, test=True))
    search, journal = spec.read(folder), Journal(folder)
    trials = journal.trials()
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert {trial.status for trial in trials} <= {"finished", "stopped"}
    for trial in trials:
        first = trial.reports[0]
        assert {"random init", "frozen features", "time only"} <= set(first.baselines)
        assert first.objective == pytest.approx(np.mean(first.per_seed))
        assert len(first.per_seed) == 2
        assert first.losses["loss"] > 0
        for seed in (0, 1):
            run = journal.run(trial.number, seed)
            assert read(run)[1].seed == seed
            assert [row["step"] for row in read_metrics(run)] == list(range(1, 2 * len(trial.reports) + 1))
            assert checkpoint.load(run) is not None
    assert len({trial.options.get("method.msm_ratio") for trial in trials}) == 3

    features = tmp_path / "catalog" / "features"
    folders = [part for part in features.iterdir() if not part.name.startswith("catalog")]
    assert len(folders) == 1
    begun = min(file.stat().st_mtime for file in folder.glob("trials/*/trial.json"))
    assert all(file.stat().st_mtime < begun for file in features.rglob("*.npy"))

    assert page.read_text().count("data:image/png") == 4
    scored = {file.name for file in (folder / "confirm").glob("*.json")}
    variants = (
        ("preset", "winner")
        if json.loads((folder / "best.json").read_text()) != to_dict("byov", search.experiment)
        else ("preset",)
    )
    assert scored == {
        f"{variant}-seed{seed}-{split}.json"
        for variant in variants
        for seed in (1000, 1001)
        for split in ("val", "test")
    }
    assert not (folder / "ray").exists()
    main(["train", "byov", "--from", str(folder / "best.json"), "--runs", str(tmp_path), "--name", "best", "--debug"])
    assert read(tmp_path / "best")[1].method == read(folder / "best.json")[1].method


@pytest.mark.ray
@pytest.mark.long
def test_population_based_training_copies_better_trials(
    catalog: Path, ratios: str, tmp_path: Path, ray_cluster: None
) -> None:
    """Whoever copies goes on from the other's weights under options of its own; more members than places."""
    folder = tmp_path / "population"
    settings = Settings(space=ratios, trials=3, scheduler="pbt", evaluations=2, confirm=0, jobs=2)
    start(folder, "byov", experiment(catalog), settings)
    journal = Journal(folder)
    trials = journal.trials()
    assert [trial.number for trial in trials] == [1, 2, 3]
    assert all(trial.reports[-1].evaluation == 2 for trial in trials)
    copies = [(trial, report) for trial in trials for report in trial.reports if report.copied_from]
    assert copies
    for trial, report in copies:
        assert report.copied_from != trial.number
    trial, _ = copies[-1]
    run = journal.run(trial.number, 0)
    _, saved = read(run)
    assert saved.method.msm_ratio == trial.options["method.msm_ratio"]  # type: ignore[attr-defined]
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.name == f"step-{STEPS:08d}"


@pytest.mark.ray
@pytest.mark.long
def test_more_groups_of_workers_than_fit_wait_for_each_other(
    catalog: Path, ratios: str, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three trials of two workers claim more than the cluster has; all of them end, and as one process would."""
    settings = Settings(space=ratios, trials=2, scheduler="none", evaluations=1, confirm=0)
    start(tmp_path / "groups", "byov", experiment(catalog, workers=2), settings)
    assert "trials: 2 at a time, each with 1.56 CPUs; the cluster has 4 CPUs" in capsys.readouterr().out
    groups = Journal(tmp_path / "groups").trials()
    assert [trial.status for trial in groups] == ["finished"] * 3
    for trial in groups:
        alone = with_options("byov", experiment(catalog), trial.options)
        run = launcher.start(tmp_path / f"alone-{trial.number}", "byov", alone, in_process=True)
        assert trial.reports[0].losses["loss"] == pytest.approx(read_metrics(run)[-1]["loss"], rel=1e-3)


@pytest.mark.ray
def test_a_search_whose_trials_all_fail_ends_and_says_why(ratios: str, tmp_path: Path, ray_cluster: None) -> None:
    catalog = write_feature_catalog(tmp_path, train=3, val=2)
    for file in (tmp_path / "files").glob("train*.npy"):
        np.save(file, np.full_like(np.load(file), np.nan))
    with pytest.raises(ValueError, match=r"trials all failed and none has a score.*loss or gradient is not finite"):
        start(tmp_path / "nan", "byov", experiment(catalog), Settings(space=ratios, trials=30, confirm=0))
    failed = [trial for trial in Journal(tmp_path / "nan").trials() if trial.status == "failed"]
    assert 3 <= len(failed) < 12


@pytest.mark.ray
@pytest.mark.long
def test_a_search_killed_at_random_times_ends_as_if_nothing_had_happened(
    catalog: Path, ratios: str, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of the driver, twice: ended trials stay as they are, no step is trained twice, no score differs."""
    import ray

    settings = Settings(space=ratios, trials=3, scheduler="none", evaluations=3, confirm=0, jobs=2)
    take_turns(monkeypatch)
    start(tmp_path / "straight", "byov", experiment(catalog), settings)
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(to_dict("byov", experiment(catalog))))
    folder = tmp_path / "killed"
    begin = ["tune", "byov", "--from", str(file), "--runs", str(tmp_path), "--name", "killed", "--space", ratios]
    begin += ["--trials", "3", "--scheduler", "none", "--evaluations", "3", "--confirm", "0", "--jobs", "2"]
    again = ["tune", "--resume", str(folder)]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    seed = int(time.time())
    rng = random.Random(seed)
    print(f"random times from seed {seed}")
    kept: dict[Path, int] = {}
    for command in (begin, again):
        process = driver(command, environment)
        before = reports(folder)
        while reports(folder) == before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for trial in (t for t in Journal(folder).trials() if t.status is not None):
            for one in Journal(folder).of(trial.number).rglob("model.safetensors"):
                assert kept.setdefault(one, one.stat().st_mtime_ns) == one.stat().st_mtime_ns
    assert driver(again, environment).wait() == 0
    assert all(one.stat().st_mtime_ns == stamp for one, stamp in kept.items())
    straight, killed = Journal(tmp_path / "straight").trials(), Journal(folder).trials()
    assert [trial.number for trial in killed] == list(range(4))
    for one, other in zip(straight, killed, strict=True):
        assert (one.status, one.options) == (other.status, other.options)
        assert [r.objective for r in one.reports] == [r.objective for r in other.reports]
        rows = read_metrics(Journal(folder).run(other.number, 0))
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert driver(again, environment).wait() == 0  # nothing is left to do


def driver(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    code = "from crossview.platform.cli.main import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *command], env=environment)


def reports(folder: Path) -> int:
    return sum(len(trial.reports) for trial in Journal(folder).trials())
