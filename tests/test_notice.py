"""SIGTERM ends training with a checkpoint of the current step; ranks agree on that step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from feature_catalog import write_feature_catalog

from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset, to_dict
from crossview.platform.train import notice
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.metrics import read_metrics

STEPS = 12


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"))


def experiment(catalog: Path) -> Experiment[Any]:
    return Experiment(
        data=Data(catalog=catalog),
        method=preset("byov", "debug").method,
        optim=Optim(lr=1e-3, batch=8, steps=STEPS, ema_decay=0.9),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=5, checkpoint=4, keep=10),
    )


TERMINATED = """
import os, signal, sys
from crossview.platform.cli.main import main
from crossview.platform.train.state import Training

optimise, times = Training.optimise, int(sys.argv.pop(1))

def terminated(training, *arguments):
    if training.step == 6:  # in the middle of the seventh
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)
    return optimise(training, *arguments)

Training.optimise = terminated
main(sys.argv[1:])
"""


def terminated(runs: Path, catalog: Path, times: int) -> subprocess.CompletedProcess[str]:
    """`crossview train --debug` of a run "run" that gets SIGTERM so often during its seventh step."""
    config = runs / "config.json"
    config.write_text(json.dumps(to_dict("byov", experiment(catalog))))
    command = ["train", "byov", "--from", str(config), "--debug", "--runs", str(runs), "--name", "run"]
    return subprocess.run(
        [sys.executable, "-c", TERMINATED, str(times), *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "400"},
    )


def test_sigterm_before_training_says_so(catalog: Path, tmp_path: Path) -> None:
    """As it comes while catalogs are read; a process that was forked from this one says nothing."""
    code = """
import os, signal, sys
from crossview.platform.cli.main import main
from crossview.platform.train import launcher

def begun(*arguments, **options):
    if not (child := os.fork()):
        os.kill(os.getpid(), signal.SIGTERM)
    os.waitpid(child, 0)
    os.kill(os.getpid(), signal.SIGTERM)

launcher.check_new = begun
main(sys.argv[1:])
"""
    command = ["train", "byov", "--preset", "debug", "--data.catalog", str(catalog), "--debug", "--runs", str(tmp_path)]
    process = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGTERM
    assert process.stderr.splitlines() == ["crossview train: ended by SIGTERM"]
    assert not list(tmp_path.iterdir())


def test_sigterm_ends_a_run_with_its_current_step_and_it_resumes_exactly(catalog: Path, tmp_path: Path) -> None:
    process = terminated(tmp_path, catalog, 1)
    run = tmp_path / "run"
    assert process.returncode == 143, process.stderr
    assert f"latest checkpoint is {checkpoint.folder(run, 7)}" in process.stdout + process.stderr
    assert f"`crossview resume {run}`" in process.stdout + process.stderr
    assert [folder.name for folder in checkpoint.all_of(run)] == ["step-00000004", "step-00000007"]
    resume(run, in_process=True)
    straight = start(tmp_path / "straight", "byov", experiment(catalog), in_process=True)
    assert [row["step"] for row in read_metrics(run)] == [5, 10, 12]
    assert [row["loss"] for row in read_metrics(run)] == [row["loss"] for row in read_metrics(straight)]
    mine, expected = (checkpoint.read_weights(checkpoint.folder(r, STEPS)) for r in (run, straight))
    assert all(torch.equal(mine[name], value) for name, value in expected.items())


def test_a_second_sigterm_ends_the_process_at_once(catalog: Path, tmp_path: Path) -> None:
    process = terminated(tmp_path, catalog, 2)
    assert process.returncode == 143, process.stderr
    assert [folder.name for folder in checkpoint.all_of(tmp_path / "run")] == ["step-00000004"]


def test_the_handler_of_before_is_back_after_training() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with notice.on_sigterm() as given:
        assert signal.getsignal(signal.SIGTERM) != before
        signal.raise_signal(signal.SIGTERM)
        assert given.given
    assert signal.getsignal(signal.SIGTERM) == before


def test_ranks_are_asked_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of one second, later of half a second: after the first step, and then after each five seconds."""
    now_s, step, asked = 0.0, 0, []

    def ask() -> bool:
        asked.append(step)
        return False

    monkeypatch.setattr(notice, "LOOK_S", 5.0)
    monkeypatch.setattr(notice.time, "monotonic", lambda: now_s)
    looks = notice.Looks(ask, torch.device("cpu"))
    for step in range(1, 40):
        now_s += 1.0 if step <= 16 else 0.5
        assert not looks.leave()
    assert asked == [1, 6, 11, 16, 21, 31]


def leaving(rank: int, folder: Path) -> None:
    """Rank 0 wants to leave when asked the third time, and is slower; rank 1 never wants to."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    notice.LOOK_S, asked, step = 3.0, 0, 0
    now_s = 0.0
    notice.time.monotonic = lambda: now_s  # type: ignore[assignment]

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return rank == 0 and asked == 3

    looks, left = notice.Looks(ask, torch.device("cpu")), False
    while not left and step < 30:
        step += 1
        now_s += 1.0 if rank == 0 else 0.25
        left = looks.leave()
    torch.save({"step": step, "asked": asked, "left": left}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_all_ranks_leave_after_the_same_step(tmp_path: Path) -> None:
    found = ranks.results(leaving, 2, tmp_path)
    assert found == [{"step": 7, "asked": 3, "left": True}] * 2  # asked after steps 1, 4 and 7
