"""Trackers: the interface on one that records, and Weights & Biases and MLflow themselves where they are installed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from feature_run import STEPS, experiment, losses

from crossview.platform.train import resolve, trackers
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.metrics import Metrics, read_metrics
from crossview.platform.train.trackers import Background, check_tracker


class Recorded:
    """Keeps what it is given, but for the steps at which it fails."""

    def __init__(self, failing: tuple[int, ...] = ()) -> None:
        self.calls: list[Any] = []
        self.failing = failing

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step in self.failing:
            raise ConnectionError(f"the server\nis gone at {step}")
        self.calls.append((step, dict(values)))

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")


def recorded_run(
    folder: Path, features: Path, tracker: Callable[[], Recorded], monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> Path:
    """A run that logs to `tracker` under the name of wandb."""
    monkeypatch.setattr(resolve, "check_tracker", lambda name: None)
    monkeypatch.setitem(trackers._SERVICES, "wandb", lambda run, info: tracker())
    return start(folder, "byov", experiment(features, track="wandb", **changes), in_process=True)


def test_metrics_reach_every_tracker_and_are_flushed_before_they_are_closed(tmp_path: Path) -> None:
    one, other = Recorded(), Recorded()
    metrics = Metrics(tmp_path, 0, [one, other])
    metrics.log(1, {"loss": 2.0})
    metrics.flush()
    metrics.log(2, {"loss": 1.0})
    metrics.close()
    assert one.calls == other.calls == [(1, {"loss": 2.0}), "flush", (2, {"loss": 1.0}), "flush", "close"]


def test_a_run_logs_each_row_in_order_and_closes_its_tracker(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Recorded()
    run = recorded_run(tmp_path / "run", features, lambda: tracker, monkeypatch, optim__steps=4)
    assert tracker.calls.pop() == "close"
    rows = [{"step": step, **values} for step, values in tracker.calls]
    assert rows == [{k: v for k, v in row.items() if k != "time_s"} for row in read_metrics(run)]


def test_a_tracker_that_fails_is_reported_once_and_the_run_goes_on(
    features: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Recorded(failing=(3, 5))
    run = recorded_run(tmp_path / "run", features, lambda: tracker, monkeypatch)
    assert losses(run) == losses(straight)
    assert [step for step, _ in tracker.calls[:-1]] == [k for k in range(1, STEPS + 1) if k not in (3, 5)]
    printed = " ".join(capsys.readouterr().out.split())
    warning = "--track wandb: wandb failed, so metrics are missing there (the server is gone at 3); training goes on"
    assert json.loads((run / "progress.json").read_text())["warnings"] == [warning]
    assert printed.count("--track wandb") == printed.count(f"warning: {warning}") == 1


def test_a_tracker_that_does_not_start_is_reported_and_the_run_goes_on(
    features: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin() -> Recorded:
        raise PermissionError("no key")

    run = recorded_run(tmp_path / "run", features, begin, monkeypatch)
    assert losses(run) == losses(straight)
    assert json.loads((run / "progress.json").read_text())["warnings"] == [
        "--track wandb: wandb could not be started, so this run is not logged there (no key); training goes on"
    ]


def test_a_tracker_that_hangs_does_not_keep_a_run_from_ending() -> None:
    warnings: list[str] = []
    free = threading.Event()

    class Hanging(Recorded):
        def log(self, step: int, values: Mapping[str, float]) -> None:
            free.wait(60)

    tracker = Background("wandb", Hanging, warnings.append, close_s=0.01)
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    free.set()
    assert len(warnings) == 1
    assert "did not take all metrics within 0.01 s of the end" in warnings[0]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_refused_before_the_name_is_used(
    name: str, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = SimpleNamespace(util=SimpleNamespace(find_spec=lambda package: None))
    monkeypatch.setattr(trackers, "importlib", nothing)
    with pytest.raises(ValueError, match=rf"--track {name}: .* `pip install 'crossview\[{name}\]'`"):
        start(tmp_path / "run", "byov", experiment(features, track=name), in_process=True)
    assert not (tmp_path / "run").exists()
    check_tracker(None)


def test_another_tracker_is_refused(features: Path) -> None:
    with pytest.raises(ValueError, match=r"track is 'tensorboard'; it must be 'wandb' or 'mlflow'"):
        experiment(features, track="tensorboard")


def in_two_parts(folder: Path, features: Path, name: str) -> Path:
    """A run that is stopped after step 6 and resumed; the option and the id are kept in its folder."""
    run = start(folder, "byov", experiment(features, track=name, optim__steps=8), in_process=True, until=6)
    before = json.loads((run / "tracker.json").read_text())
    resume(run, in_process=True)
    assert json.loads((run / "tracker.json").read_text()) == before
    assert json.loads((run / "progress.json").read_text())["warnings"] == []
    return run


def records(data: bytes) -> Iterator[bytes]:
    """The records of wandb's file: after 7 bytes, LevelDB's log format (checksum, length and kind before each part)."""
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def test_wandb_has_both_parts_of_a_run_under_one_id(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed; it is the optional extra crossview[wandb]")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = in_two_parts(tmp_path / "run", features, "wandb")
    (name,) = json.loads((run / "tracker.json").read_text()).values()
    found: dict[int, float] = {}
    config: dict[str, Any] = {}
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert [file.stem for file in files] == [f"run-{name}"] * 2
    for file in files:
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                assert (record.run.run_id, record.run.project, record.run.display_name) == (name, "crossview", "run")
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            if "loss" in items:
                found[record.history.step.num] = json.loads(items["loss"])
    assert found == {row["step"]: row["loss"] for row in read_metrics(run)}
    assert config["experiment"]["optim"]["steps"] == 8


def test_mlflow_has_both_parts_of_a_run_under_one_id(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed; it is the optional extra crossview[mlflow]")

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    run = in_two_parts(tmp_path / "run", features, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (kept,) = client.search_runs([client.get_experiment_by_name("crossview").experiment_id])
    assert json.loads((run / "tracker.json").read_text()) == {"mlflow": kept.info.run_id}
    assert (kept.info.run_name, kept.info.status) == ("run", "FINISHED")
    assert kept.data.params["optim.steps"] == "8"
    assert "versions.torch" in kept.data.tags
    found = {metric.step: metric.value for metric in client.get_metric_history(kept.info.run_id, "loss")}
    assert found == {row["step"]: row["loss"] for row in read_metrics(run)}
    client_side = trackers.Mlflow(run, {})
    client_side.log(9, {"R@1": 0.5})
    assert client.get_run(kept.info.run_id).data.metrics["R_1"] == 0.5
