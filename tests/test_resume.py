from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from feature_catalog import write_feature_catalog
from feature_run import assert_equal_runs, experiment, losses, wait_for

from crossview.datasets.catalog import Catalog
from crossview.platform import checkpoint
from crossview.platform.config import to_dict
from crossview.platform.run_folder import create
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.resolve import saved
from crossview.platform.train.state import Training, Worker


def test_killed_in_process_and_resumed_equals_straight(straight: Path, features: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_dict("byov", experiment(features))))
    command = [
        sys.executable,
        "-c",
        "from crossview.platform.cli.main import main; main()",
        "train",
        "byov",
        "--from",
        str(config),
        "--debug",
    ]
    process = subprocess.Popen([*command, "--runs", str(tmp_path), "--name", "killed"])
    wait_for(lambda: checkpoint.folder(run, 12).exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for folder in checkpoint.all_of(run):  # the steps after 12 are to be redone
        if folder.name > "step-00000012":
            shutil.rmtree(folder)
    resume(run, in_process=True)
    assert_equal_runs(straight, run)


def test_a_run_in_parts_equals_straight(straight: Path, features: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "parts", "byov", experiment(features), in_process=True, until=5)
    assert [folder.name for folder in checkpoint.all_of(run)][-1] == "step-00000005"
    assert len(losses(run)) == 5
    resume(run, in_process=True, until=3)
    assert len(losses(run)) == 5
    resume(run, in_process=True)
    assert_equal_runs(straight, run)


@pytest.mark.ray
def test_a_killed_worker_loses_nothing(straight: Path, features: Path, tmp_path: Path, ray_cluster: None) -> None:
    """kill -9 of the worker after step 12: Ray restarts it, and the run ends as if nothing had happened."""

    run = tmp_path / "worker-killed"
    killed = threading.Event()

    def kill() -> None:
        wait_for(lambda: checkpoint.folder(run, 12).exists())
        os.kill(json.loads((run / "progress.json").read_text())["pid"], signal.SIGKILL)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    start(run, "byov", experiment(features), in_process=False)
    thread.join()
    assert killed.is_set()
    assert_equal_runs(straight, run)


def test_a_full_disk_names_the_checkpoint_and_keeps_the_earlier_ones(features: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "full", "byov", experiment(features, optim__steps=4), in_process=True)
    info = json.loads((run / "run.json").read_text())
    info["experiment"]["optim"]["steps"] = 8
    (run / "run.json").write_text(json.dumps(info))
    for largest_file, named in ((100_000, "step-00000008"), (0, "could not be written")):  # 0: every write fails
        script = (
            f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, {largest_file}))\n"
            f"from crossview.platform.cli.main import main; main(['resume', {str(run)!r}, '--debug'])"
        )
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == 2, result.stderr
        assert named in result.stderr
        assert "space" in result.stderr
        assert f"crossview resume {run}" in result.stderr
    assert [p.name for p in checkpoint.all_of(run)] == ["step-00000004"]
    assert not list((run / "checkpoints").glob(".*"))


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def record(opened: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{opened}").readlink()))

    create(tmp_path / "run", "byov", experiment(features))
    training = Training(saved(tmp_path / "run"), Worker(torch.device("cpu"), in_process=True))
    monkeypatch.setattr(os, "fsync", record)
    training.save()
    folder = tmp_path / "run" / "checkpoints"
    inside = {file.name for file in (folder / "step-00000000").iterdir()}
    assert {f"{folder}/.step-00000000/{name}" for name in inside} | {f"{folder}/.step-00000000"} == set(synced[:-1])
    assert synced[-1] == str(folder)


def test_a_broken_checkpoint_is_named(straight: Path, tmp_path: Path) -> None:
    newest = checkpoint.latest(straight)
    assert newest is not None
    copy = tmp_path / "step-00000001"
    shutil.copytree(newest, copy)
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"step-00000001/model.safetensors"):
        checkpoint.load(copy)


def test_a_cut_training_state_is_named(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    newest = checkpoint.latest(straight)
    assert newest is not None
    shutil.copytree(newest, run / "checkpoints" / "step-00000004")
    shutil.copy(straight / "run.json", run)
    state = run / "checkpoints" / "step-00000004" / "train_state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step-00000004/train_state\.pt: not a readable checkpoint"):
        resume(run, in_process=True)


def test_a_changed_catalog_is_refused_on_resume(tmp_path: Path) -> None:
    catalog = write_feature_catalog(tmp_path, train=3)
    run = start(tmp_path / "run", "byov", experiment(catalog, optim__steps=1), in_process=True)
    whole = Catalog.load(catalog)
    dataclasses.replace(whole, recordings=tuple(reversed(whole.recordings))).save(catalog)
    with pytest.raises(ValueError, match=r"run: the recordings .*\(6\) are not those .*--init-from .*run"):
        resume(run, in_process=True)
    whole.save(catalog)
    assert resume(run, in_process=True) == run
