"""Checkpoints that are written while training continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from feature_catalog import write_feature_catalog

from crossview import storage
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset, to_dict
from crossview.platform.run_folder import create
from crossview.platform.train.checkpoint_writer import CheckpointWriter
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.loop import train
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.resolve import saved
from crossview.platform.train.state import Worker
from crossview.platform.train.status import Status

STEPS, EVERY = 20, 4
LONG_S = 120.0
"""What a test waits at most for what must happen."""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"))


def experiment(catalog: Path, *, background: bool = True) -> Experiment[Any]:
    return Experiment(
        data=Data(catalog=catalog),
        method=preset("byov", "debug").method,
        optim=Optim(lr=1e-3, batch=8, steps=STEPS, warmup_steps=3, ema_decay=0.9),
        compute=Compute(device="cpu", threads=1, async_checkpoint=background),
        every=Cadence(log=1, checkpoint=EVERY, keep=10),
    )


@pytest.fixture(scope="module")
def straight(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stops for each checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    return start(folder, "byov", experiment(catalog, background=False), in_process=True)


def names(run: Path) -> list[str]:
    return [folder.name for folder in checkpoint.all_of(run)]


def assert_same_checkpoints(run: Path, other: Path) -> None:
    """All of them, with the optimiser's state and the random generator's; and the rows of the metrics."""
    assert names(run) == names(other)
    for mine, its in zip(checkpoint.all_of(run), checkpoint.all_of(other), strict=True):
        assert_equal(checkpoint.read_weights(mine), checkpoint.read_weights(its), mine.name)
        states = [checkpoint.read_train_state(folder, torch.device("cpu")) for folder in (mine, its)]
        assert_equal(states[0], states[1], mine.name)
    assert [row["loss"] for row in read_metrics(run)] == [row["loss"] for row in read_metrics(other)]


def assert_equal(found: Any, expected: Any, place: str) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected:
            assert_equal(found[key], expected[key], f"{place}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for k, value in enumerate(expected):
            assert_equal(found[k], value, f"{place}/{k}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), place
    else:
        assert found == expected, place


def trained(run: Path, catalog: Path, on_step: Any) -> None:
    create(run, "byov", experiment(catalog))
    train(saved(run), Worker(torch.device("cpu"), in_process=True), on_step)


def test_training_continues_during_an_upload_and_the_checkpoint_is_that_of_its_step(
    catalog: Path, straight: Path, s3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of each checkpoint leave for the store only after two more steps, where there are any."""
    upload, reached, step = storage.upload, threading.Condition(), 0

    def on_step(status: Status) -> None:
        nonlocal step
        with reached:
            step = status.step
            reached.notify_all()

    def slow(file: Path, target: Path) -> None:
        if "checkpoints" in target.parts:
            wanted = min(int(target.parent.name.removeprefix("step-")) + 2, STEPS)
            with reached:
                assert reached.wait_for(lambda: step >= wanted, LONG_S), f"no step {wanted} during {target}"
        upload(file, target)

    monkeypatch.setattr(storage, "upload", slow)
    trained(s3 / "run", catalog, on_step)
    assert step == STEPS
    assert_same_checkpoints(s3 / "run", straight)


def test_one_checkpoint_is_written_at_a_time_and_before_it_the_metrics_of_its_steps(
    catalog: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, writing = checkpoint.save, threading.Lock()
    rows: list[int] = []
    reached, step = threading.Condition(), 0

    def on_step(status: Status) -> None:
        nonlocal step
        with reached:
            step = status.step
            reached.notify_all()

    def alone(target: Path, *rest: Any) -> None:
        assert writing.acquire(blocking=False), "two at once"
        rows.append(len(read_metrics(target.parent.parent)))
        wanted = min(int(target.name.removeprefix("step-")) + EVERY, STEPS)
        with reached:
            assert reached.wait_for(lambda: step >= wanted, LONG_S)
        time.sleep(0.2)  # the next one is asked for meanwhile, and has to wait
        save(target, *rest)
        writing.release()

    monkeypatch.setattr(checkpoint, "save", alone)
    trained(tmp_path / "run", catalog, on_step)
    assert rows == list(range(EVERY, STEPS + 1, EVERY))
    assert_same_checkpoints(tmp_path / "run", straight)


@pytest.mark.parametrize(("broken", "seen"), [(4, 8), (20, 20)])
def test_a_write_that_fails_ends_training_at_the_next_checkpoint_or_the_end(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int, seen: int
) -> None:
    save, steps = checkpoint.save, []

    def full(target: Path, *rest: Any) -> None:
        if target.name == f"step-{broken:08d}":
            raise OSError(28, "No space left on device")
        save(target, *rest)

    monkeypatch.setattr(checkpoint, "save", full)
    run = tmp_path / "run"
    with pytest.raises(OSError, match=rf"step-{broken:08d} could not be written: .*crossview resume {run}"):
        trained(run, catalog, lambda status: steps.append(status.step))
    assert steps[-1] == seen
    assert names(run) == [f"step-{step:08d}" for step in range(EVERY, broken, EVERY)]
    assert len(read_metrics(run)) == seen


def test_an_error_of_training_waits_for_the_checkpoint_before_it(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failed = checkpoint.save, threading.Event()

    def slow(*arguments: Any) -> None:
        assert failed.wait(LONG_S)
        time.sleep(0.5)  # while the error leaves the loop
        save(*arguments)

    def fail(status: Status) -> None:
        if status.step == 6:
            failed.set()
            raise ValueError("a defect")

    monkeypatch.setattr(checkpoint, "save", slow)
    with pytest.raises(ValueError, match="a defect"):
        trained(tmp_path / "run", catalog, fail)
    assert names(tmp_path / "run") == ["step-00000004"]


KILLED = """
import sys, threading
from pathlib import Path
from crossview import storage
from crossview.platform.cli.main import main

upload, marker = storage.upload, Path(sys.argv.pop(1))

def stuck(file, target):
    if target.parent.name == "step-00000008" and file.suffix == ".pt":
        marker.touch()
        threading.Event().wait()
    upload(file, target)

storage.upload = stuck
main(sys.argv[1:])
"""


def test_a_kill_during_an_upload_loses_that_checkpoint_alone(
    catalog: Path, straight: Path, s3: Path, tmp_path: Path
) -> None:
    config, marker = tmp_path / "config.json", tmp_path / "marker"
    config.write_text(json.dumps(to_dict("byov", experiment(catalog))))
    command = ["train", "byov", "--from", str(config), "--debug", "--runs", str(s3), "--name", "run"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(marker), *command], env=os.environ)
    deadline = time.monotonic() + LONG_S
    while not marker.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    newest = checkpoint.latest(s3 / "run")
    assert newest is not None
    assert newest.name == "step-00000004"
    resume(s3 / "run", in_process=True)
    assert_same_checkpoints(s3 / "run", straight)


def test_a_run_saved_without_the_option_writes_in_the_background(catalog: Path) -> None:
    from crossview.platform.config import from_dict

    values = to_dict("byov", experiment(catalog, background=False))
    assert from_dict(values)[1].compute.async_checkpoint is False
    del values["compute"]["async_checkpoint"]
    assert from_dict(values)[1] == experiment(catalog)


def test_an_error_of_the_thread_is_raised_once() -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    writer = CheckpointWriter(background=True)
    writer.write(SimpleNamespace(saving=lambda copied: full))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    writer.wait()
    done: list[int] = []
    writer.write(SimpleNamespace(saving=lambda copied: partial(done.append, 1)))  # type: ignore[arg-type]
    writer.wait()
    assert done == [1]
