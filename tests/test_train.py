from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from feature_catalog import write_feature_catalog
from feature_run import STEPS, experiment, losses, weights
from safetensors.torch import load_file, save_file

from crossview.platform import checkpoint
from crossview.platform.run_folder import create
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.loop import train
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.resolve import saved
from crossview.platform.train.state import Training, Worker


def test_a_run_leaves_what_it_promises(straight: Path) -> None:
    info = json.loads((straight / "run.json").read_text())
    assert info["experiment"]["name"] == "byov"
    assert info["versions"]["torch"] == torch.__version__.split("+")[0]
    assert [row["step"] for row in read_metrics(straight)] == list(range(1, STEPS + 1))
    assert list((straight / "tensorboard").glob("events.*"))
    newest = checkpoint.latest(straight)
    assert newest is not None
    assert newest.name == f"step-{STEPS:08d}"
    assert {p.name for p in newest.iterdir()} >= {"model.safetensors", "train_state.pt", "run.json"}
    assert losses(straight)[-1] < losses(straight)[0]


def test_load_embeds_without_ray(straight: Path) -> None:
    script = (
        "import sys, torch; from crossview.platform.checkpoint import load\n"
        f"model = load({str(straight)!r})\n"
        "z = model.embed(torch.zeros(1, 7, 3, 112, 112, dtype=torch.uint8))\n"
        "assert z.shape == (1, 7, 64), z.shape\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_weights_under_other_names_are_not_passed_over(straight: Path, tmp_path: Path) -> None:
    """The released code of BYOV loads whichever names fit, and so a wrong checkpoint as a random network."""
    other = tmp_path / "other"
    shutil.copytree(checkpoint.resolve(straight), other)
    stored = load_file(other / "model.safetensors")
    save_file({f"net.{name}": value for name, value in stored.items()}, other / "model.safetensors")
    with pytest.raises(RuntimeError, match="Missing key"):
        checkpoint.load(other)


def test_a_used_name_is_refused(straight: Path, features: Path) -> None:
    with pytest.raises(ValueError, match=r"a name is used once"):
        start(straight, "byov", experiment(features), in_process=True)


def test_accumulated_micro_batches_equal_the_whole_batch(straight: Path, features: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "micro", "byov", experiment(features, compute__micro_batch=1), in_process=True)
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)


def test_moving_average_is_what_load_returns(features: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "ema", "byov", experiment(features, optim__ema_decay=0.9, optim__steps=6), in_process=True)
    newest = checkpoint.latest(run)
    assert newest is not None
    state = torch.load(newest / "train_state.pt", weights_only=True)
    averaged = dict(checkpoint.load(run).named_parameters())
    assert state["raw"]
    assert any(not torch.equal(averaged[name], raw) for name, raw in state["raw"].items())
    again = start(
        tmp_path / "ema2", "byov", experiment(features, optim__ema_decay=0.9, optim__steps=6), in_process=True
    )
    last = checkpoint.folder(again, 6)
    before = torch.load(last / "train_state.pt", weights_only=True)["raw"]
    shutil.rmtree(last)
    resume(again, in_process=True)  # from step 4, average included
    assert all(torch.equal(w, weights(again)[n]) for n, w in weights(run).items())
    after = torch.load(last / "train_state.pt", weights_only=True)["raw"]
    assert all(torch.equal(raw, after[name]) for name, raw in before.items())


def test_bfloat16_trains_as_float32_nearly_does(straight: Path, features: Path, tmp_path: Path) -> None:
    half = experiment(features, compute__precision="bfloat16", optim__steps=4)
    run = start(tmp_path / "half", "byov", half, in_process=True)
    assert losses(run) == pytest.approx(losses(straight)[:4], rel=0.03)
    assert losses(run) != losses(straight)[:4]
    assert all(value.dtype == torch.float32 for value in weights(run).values())


def test_one_process_stands_in_for_the_workers_of_a_configuration(
    straight: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path / "debug", "byov", experiment(features, compute__workers=4), in_process=True)
    assert "warning: this process alone trains, in place of the 4 of compute.workers" in capsys.readouterr().out
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)


@pytest.mark.ray
def test_two_workers_agree_with_one(straight: Path, features: Path, tmp_path: Path, ray_cluster: None) -> None:
    """Each accumulates two passes per step, of which only the last exchanges gradients."""
    split = experiment(features, compute__workers=2, compute__micro_batch=2)
    run = start(tmp_path / "two", "byov", split, in_process=False)
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, precision: str) -> None:
    catalog = write_feature_catalog(tmp_path)
    for file in (tmp_path / "files").glob("*.npy"):
        np.save(file, np.full_like(np.load(file), np.nan))
    create(tmp_path / "run", "byov", experiment(catalog, compute__precision=precision))
    with pytest.raises(ValueError, match=r"step 0: loss or gradient is not finite .*crossview view"):
        train(saved(tmp_path / "run"), Worker(torch.device("cpu"), in_process=True), lambda status: None)


def test_a_step_that_the_scaler_leaves_out_does_not_move_the_average(features: Path, tmp_path: Path) -> None:
    options = {"compute__precision": "float16", "optim__ema_decay": 0.5}
    create(tmp_path / "run", "byov", experiment(features, **options))
    training = Training(saved(tmp_path / "run"), Worker(torch.device("cpu"), in_process=True))
    assert training.ema is not None
    name, parameter = next((n, p) for n, p in training.model.named_parameters() if p.requires_grad)
    training.ema[name].zero_()

    class Steep(torch.nn.Module):
        """A loss of 0 whose gradient is finite until it is scaled."""

        def forward(self, batch: object) -> dict[str, torch.Tensor]:
            return {"loss": ((parameter - parameter.detach()) * 1e37).sum()}

    training.optimise(iter([None]), Steep(), 1, STEPS)
    assert not training.ema[name].any()


@pytest.mark.ray
def test_an_error_of_the_workers_comes_back_as_itself(tmp_path: Path, ray_cluster: None) -> None:
    """Also without restarts, where Ray itself raises, and without a file, which a full disk would not take."""
    catalog = write_feature_catalog(tmp_path)
    for file in (tmp_path / "files").glob("*.npy"):
        np.save(file, np.full_like(np.load(file), np.nan))
    run = tmp_path / "run"
    stopping = experiment(catalog, compute__workers=2, compute__max_failures=0)
    with pytest.raises(ValueError, match=r"^step 0: loss or gradient is not finite"):
        start(run, "byov", stopping, in_process=False)
    assert not (run / "failure.json").exists()
