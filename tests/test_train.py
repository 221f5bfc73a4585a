from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from feature_catalog import write_feature_catalog

from crossview.datasets.catalog import Catalog
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.config import Cadence, Compute, Data, Experiment, from_dict, preset, read, to_dict
from crossview.platform.run_folder import create
from crossview.platform.train.batch_layout import shares, worker_counts
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.loop import train
from crossview.platform.train.lr_schedule import learning_rate, total_steps
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.resolve import saved
from crossview.platform.train.state import Training, Worker

STEPS = 20


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"))


def experiment(catalog: Path, **changes: Any) -> Experiment[Any]:
    """A tiny run: BYOV's debug preset on features; `changes` name options by their path, with __ for the dot."""
    recipe = preset("byov", "debug")
    optim = dataclasses.replace(recipe.optim, steps=STEPS, batch=8, warmup_steps=3)
    result = Experiment(
        data=Data(catalog=catalog),
        method=recipe.method,
        optim=optim,
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=1, checkpoint=4, keep=10),
    )
    for path, value in changes.items():
        part, _, option = path.partition("__")
        new = dataclasses.replace(getattr(result, part), **{option: value}) if option else value
        result = dataclasses.replace(result, **{part: new})
    return result


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(run)
    assert found is not None
    return checkpoint.read_weights(found)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run)]


@pytest.fixture(scope="module")
def straight(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run that others are compared with."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    return start(run, "byov", experiment(catalog), in_process=True)


def assert_equal_runs(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(one) == losses(other)
    assert len(losses(one)) == STEPS


def test_schedule_warms_up_and_ends_at_min_lr() -> None:
    optim = Optim(lr=1.0, warmup_steps=10, min_lr=0.1, steps=110)
    assert learning_rate(optim, 0, 110) == pytest.approx(0.1)
    assert learning_rate(optim, 9, 110) == pytest.approx(1.0)
    assert learning_rate(optim, 60, 110) == pytest.approx(0.55)
    assert learning_rate(optim, 110, 110) == pytest.approx(0.1)
    assert learning_rate(dataclasses.replace(optim, schedule="constant"), 109, 110) == 1.0


def test_accumulation_follows_from_batch_workers_and_micro_batch() -> None:
    assert shares(Optim(batch=8, steps=1), Compute(workers=2, micro_batch=2)) == (2, 2)
    assert shares(Optim(batch=8, steps=1), Compute(workers=2)) == (4, 1)
    with pytest.raises(ValueError, match=r"compute.workers 3"):
        shares(Optim(batch=8, steps=1), Compute(workers=3))
    with pytest.raises(ValueError, match=r"compute.micro_batch 3"):
        shares(Optim(batch=8, steps=1), Compute(micro_batch=3))


def test_fewer_workers_keep_what_a_sample_is_compared_with() -> None:
    optim, four = Optim(batch=24, steps=1), Compute(workers=4, min_workers=1, micro_batch=3)
    assert [shares(optim, four, n, "sample") for n in (4, 3, 2, 1)] == [(3, 2), (2, 4), (3, 4), (3, 8)]
    assert [shares(optim, four, n, "pass") for n in (4, 2, 1)] == [(3, 2), (3, 4), (3, 8)]
    assert [shares(optim, four, n, "workers") for n in (4, 3, 2, 1)] == [(3, 2), (4, 2), (6, 2), (12, 2)]
    assert worker_counts(optim, four, "pass") == [4, 2, 1]
    assert worker_counts(optim, four, "workers") == [4, 3, 2, 1]
    assert worker_counts(optim, dataclasses.replace(four, min_workers=None), "sample") == [4]
    with pytest.raises(ValueError, match=r"batch 24 does not divide among 3 of compute.workers 4 in passes of 3"):
        shares(optim, four, 3, "pass")
    with pytest.raises(ValueError, match=r"compute.min_workers is 5"):
        Compute(workers=4, min_workers=5)


def test_an_epoch_without_a_step_is_refused() -> None:
    assert total_steps(Optim(epochs=3, batch=4), 10) == 7
    with pytest.raises(ValueError, match=r"less than one batch"):
        total_steps(Optim(epochs=1, batch=16), 10)


def test_configuration_survives_json(catalog: Path, tmp_path: Path) -> None:
    before = experiment(catalog, seed=3, optim__clip_norm=0.5)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict("byov", before)))
    assert read(file) == ("byov", before)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [("optim", {"nonsense": 1}, "nonsense"), ("method", {"msm_ratio": "high"}, "msm_ratio")],
)
def test_a_wrong_option_in_a_file_is_named(catalog: Path, path: str, value: dict, message: str) -> None:
    values = to_dict("byov", experiment(catalog))
    values[path] |= value
    with pytest.raises(ValueError, match=message):
        from_dict(values)


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


def test_a_used_name_is_refused(straight: Path, catalog: Path) -> None:
    with pytest.raises(ValueError, match=r"a name is used once"):
        start(straight, "byov", experiment(catalog), in_process=True)


def test_killed_in_process_and_resumed_equals_straight(straight: Path, catalog: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_dict("byov", experiment(catalog))))
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


def test_a_run_in_parts_equals_straight(straight: Path, catalog: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "parts", "byov", experiment(catalog), in_process=True, until=5)
    assert [folder.name for folder in checkpoint.all_of(run)][-1] == "step-00000005"
    assert len(losses(run)) == 5
    resume(run, in_process=True, until=3)
    assert len(losses(run)) == 5
    resume(run, in_process=True)
    assert_equal_runs(straight, run)


def test_accumulated_micro_batches_equal_the_whole_batch(straight: Path, catalog: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "micro", "byov", experiment(catalog, compute__micro_batch=1), in_process=True)
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)


def test_moving_average_is_what_load_returns(catalog: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "ema", "byov", experiment(catalog, optim__ema_decay=0.9, optim__steps=6), in_process=True)
    newest = checkpoint.latest(run)
    assert newest is not None
    state = torch.load(newest / "train_state.pt", weights_only=True)
    averaged = dict(checkpoint.load(run).named_parameters())
    assert state["raw"]
    assert any(not torch.equal(averaged[name], raw) for name, raw in state["raw"].items())
    again = start(tmp_path / "ema2", "byov", experiment(catalog, optim__ema_decay=0.9, optim__steps=6), in_process=True)
    last = checkpoint.folder(again, 6)
    before = torch.load(last / "train_state.pt", weights_only=True)["raw"]
    shutil.rmtree(last)
    resume(again, in_process=True)  # from step 4, average included
    assert all(torch.equal(w, weights(again)[n]) for n, w in weights(run).items())
    after = torch.load(last / "train_state.pt", weights_only=True)["raw"]
    assert all(torch.equal(raw, after[name]) for name, raw in before.items())


def test_bfloat16_trains_as_float32_nearly_does(straight: Path, catalog: Path, tmp_path: Path) -> None:
    half = experiment(catalog, compute__precision="bfloat16", optim__steps=4)
    run = start(tmp_path / "half", "byov", half, in_process=True)
    assert losses(run) == pytest.approx(losses(straight)[:4], rel=0.03)
    assert losses(run) != losses(straight)[:4]
    assert all(value.dtype == torch.float32 for value in weights(run).values())


def test_a_full_disk_names_the_checkpoint_and_keeps_the_earlier_ones(catalog: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "full", "byov", experiment(catalog, optim__steps=4), in_process=True)
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


def test_a_broken_checkpoint_is_named(straight: Path, tmp_path: Path) -> None:
    newest = checkpoint.latest(straight)
    assert newest is not None
    copy = tmp_path / "step-00000001"
    shutil.copytree(newest, copy)
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"step-00000001/model.safetensors"):
        checkpoint.load(copy)


def wait_for(ready: object, limit_s: float = 240) -> None:
    deadline = time.monotonic() + limit_s
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


@pytest.mark.ray
def test_a_killed_worker_loses_nothing(straight: Path, catalog: Path, tmp_path: Path, ray_cluster: None) -> None:
    """kill -9 of the worker after step 12: Ray restarts it, and the run ends as if nothing had happened."""
    import threading

    run = tmp_path / "worker-killed"
    killed = threading.Event()

    def kill() -> None:
        wait_for(lambda: checkpoint.folder(run, 12).exists())
        os.kill(json.loads((run / "progress.json").read_text())["pid"], signal.SIGKILL)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    start(run, "byov", experiment(catalog), in_process=False)
    thread.join()
    assert killed.is_set()
    assert_equal_runs(straight, run)


def test_one_process_stands_in_for_the_workers_of_a_configuration(
    straight: Path, catalog: Path, tmp_path: Path
) -> None:
    run = start(tmp_path / "debug", "byov", experiment(catalog, compute__workers=4), in_process=True)
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)


@pytest.mark.ray
def test_two_workers_agree_with_one(straight: Path, catalog: Path, tmp_path: Path, ray_cluster: None) -> None:
    """Each accumulates two passes per step, of which only the last exchanges gradients."""
    split = experiment(catalog, compute__workers=2, compute__micro_batch=2)
    run = start(tmp_path / "two", "byov", split, in_process=False)
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)


def test_bad_weights_are_refused_before_the_name_is_spent(straight: Path, catalog: Path, tmp_path: Path) -> None:
    """Even where Ray would run the training: nothing of it is started."""
    import ray

    running = ray.is_initialized()
    method = experiment(catalog).method
    missing = dataclasses.replace(method, base=dataclasses.replace(method.base, weights="nowhere.pt"))
    with pytest.raises(ValueError, match=r"nowhere\.pt"):
        start(tmp_path / "new", "byov", experiment(catalog, method=missing), in_process=False)
    wider = dataclasses.replace(method, encoder=dataclasses.replace(method.encoder, width=128))
    other = experiment(catalog, method=wider, init_from=straight)
    with pytest.raises(ValueError, match=r"init_from is .*straight.*do not fit this configuration of byov"):
        start(tmp_path / "new", "byov", other, in_process=False)
    assert not (tmp_path / "new").exists()
    assert ray.is_initialized() == running


def test_weights_by_a_relative_path_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = dataclasses.replace(preset("byov", "debug").method.base, weights="mine.pt")  # type: ignore[attr-defined]
    assert base.weights == str(tmp_path / "mine.pt")


def test_init_from_starts_from_that_runs_weights(straight: Path, catalog: Path, tmp_path: Path) -> None:
    still = experiment(catalog, optim__steps=1, optim__lr=1e-12, optim__weight_decay=0.0, init_from=straight)
    run = start(tmp_path / "next", "byov", still, in_process=True)
    source, found = weights(straight), weights(run)
    assert all(torch.allclose(found[name], value, atol=1e-9) for name, value in source.items())
    _, saved = read(run)
    assert saved.init_from == checkpoint.latest(straight)


def test_init_from_decides_the_cached_features_too(tmp_path: Path) -> None:
    """The model takes the frozen base of `init_from`, and so must the features that it trains on."""
    tiny_run.write_catalog(tmp_path)
    first = tiny_run.train(tmp_path / "first", tmp_path)
    name, before = read(first)
    other = dataclasses.replace(before.method, base=dataclasses.replace(before.method.base, seed=7))
    begun = dataclasses.replace(before, method=other, init_from=first)
    cached = dataclasses.replace(begun, data=dataclasses.replace(begun.data, cache_features=True))
    on_video = start(tmp_path / "video", name, begun, in_process=True)
    on_features = start(tmp_path / "features", name, cached, in_process=True)
    assert losses(on_features) == pytest.approx(losses(on_video), rel=1e-2)
    folders = [folder for folder in (tmp_path / "catalog" / "features").iterdir() if folder.is_dir()]
    assert resume(on_features, in_process=True) == on_features
    assert [f for f in (tmp_path / "catalog" / "features").iterdir() if f.is_dir()] == folders


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, precision: str) -> None:
    catalog = write_feature_catalog(tmp_path)
    for file in (tmp_path / "files").glob("*.npy"):
        np.save(file, np.full_like(np.load(file), np.nan))
    create(tmp_path / "run", "byov", experiment(catalog, compute__precision=precision))
    with pytest.raises(ValueError, match=r"step 0: loss or gradient is not finite .*crossview view"):
        train(saved(tmp_path / "run"), Worker(torch.device("cpu"), in_process=True), lambda status: None)


def test_a_step_that_the_scaler_leaves_out_does_not_move_the_average(catalog: Path, tmp_path: Path) -> None:
    options = {"compute__precision": "float16", "optim__ema_decay": 0.5}
    create(tmp_path / "run", "byov", experiment(catalog, **options))
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


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def record(opened: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{opened}").readlink()))

    create(tmp_path / "run", "byov", experiment(catalog))
    training = Training(saved(tmp_path / "run"), Worker(torch.device("cpu"), in_process=True))
    monkeypatch.setattr(os, "fsync", record)
    training.save()
    folder = tmp_path / "run" / "checkpoints"
    inside = {file.name for file in (folder / "step-00000000").iterdir()}
    assert {f"{folder}/.step-00000000/{name}" for name in inside} | {f"{folder}/.step-00000000"} == set(synced[:-1])
    assert synced[-1] == str(folder)


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


def test_a_changed_catalog_is_refused_on_resume(tmp_path: Path) -> None:
    catalog = write_feature_catalog(tmp_path, train=3)
    run = start(tmp_path / "run", "byov", experiment(catalog, optim__steps=1), in_process=True)
    whole = Catalog.load(catalog)
    dataclasses.replace(whole, recordings=tuple(reversed(whole.recordings))).save(catalog)
    with pytest.raises(ValueError, match=r"run: the recordings .*\(6\) are not those .*--init-from .*run"):
        resume(run, in_process=True)
    whole.save(catalog)
    assert resume(run, in_process=True) == run
