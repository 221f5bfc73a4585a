"""Training in parts (FSDP2) on two real workers (gloo), every method, against one process."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from resolved import new_without_data, without_data
from torch import Tensor
from torch.distributed.tensor import DTensor

from crossview.methods.example_batch import example_batch
from crossview.platform import checkpoint, run_folder
from crossview.platform.config import Cadence, Compute, Data, Experiment, method_names, preset
from crossview.platform.train.batch_layout import shares
from crossview.platform.train.loop import training_of
from crossview.platform.train.metrics import Interval
from crossview.platform.train.state import Training, Worker

WORKERS, BATCH, STEPS = 2, 8, 4
GROUPED = "evgap"
"""A method with several groups of parameters."""
Numbers = list[float]


def experiment(method: str) -> Experiment[Any]:
    """The debug preset, with what the platform does to gradients and weights turned on: two passes a step, clipping,
    a moving average."""
    recipe = preset(method, "debug")
    return Experiment(
        data=Data(catalog=Path("unused")),
        method=recipe.method,
        optim=dataclasses.replace(recipe.optim, batch=BATCH, steps=STEPS, clip_norm=0.5, ema_decay=0.9),
        compute=Compute(device="cpu", workers=WORKERS, micro_batch=BATCH // WORKERS // 2, parallel="fsdp"),
        every=Cadence(keep=10),
    )


def passes(method: str, training: Training, step: int) -> Iterator[Mapping[str, Tensor]]:
    """What this worker's stream would yield for one step."""
    rank, world = training.worker.rank, training.worker.world
    made = training.experiment
    micro, count = shares(made.optim, made.compute, world, training.model.reach())
    with torch.random.fork_rng():
        torch.manual_seed(step)
        batch = example_batch(made.method.sampling(), BATCH)
    for k in range(count):
        first = (k * world + rank) * micro
        yield {name: value[first : first + micro] for name, value in batch.items()}


def steps(method: str, training: Training, until: int) -> Numbers:
    """Losses and gradient norms up to a step."""
    made = training.experiment
    _, count = shares(made.optim, made.compute, training.worker.world, training.model.reach())
    found, forward, interval = [], training.forward(), Interval(training.worker.device, training.step)
    while training.step < until:
        values = training.optimise(passes(method, training, training.step), forward, count, STEPS)
        row = interval.row(values, training.step, BATCH)
        found += [row["loss"], row["grad_norm"]]
    return found


def work(rank: int, folder: Path) -> None:
    """What one worker does: two steps, a checkpoint, and two steps from the checkpoint that one process wrote."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORKERS)
    found: dict[str, Any] = {}
    for method in method_names():
        worker = Worker(torch.device("cpu"), rank, WORKERS)
        training = training_of(without_data(folder / f"{method}-parts"), worker)
        numbers = steps(method, training, STEPS // 2)
        training.save()
        kept = sum(p.to_local().numel() for p in training.model.parameters() if isinstance(p, DTensor))
        trained = sum(p.numel() for p in training.model.parameters() if p.requires_grad)
        found[method] = {
            "first": numbers,
            "kept": kept / trained,
            "rest": steps(method, training_of(without_data(folder / f"{method}-whole"), worker), STEPS),
        }
    by_position = training_of(without_data(folder / "by-position"), worker)
    found[GROUPED]["by position"] = steps(GROUPED, by_position, STEPS)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Numbers]:
    """One process over the whole batch; it leaves checkpoints of every second step."""
    found = {}
    for method in method_names():
        run_folder.create(folder / f"{method}-parts", method, experiment(method))
        run = new_without_data(folder / f"{method}-whole", method, experiment(method))
        training = training_of(run, Worker(torch.device("cpu")))
        numbers = steps(method, training, STEPS // 2)
        training.save()
        if method == GROUPED:
            keep_by_position(folder / f"{method}-whole", training, folder / "by-position")
        found[method] = numbers + steps(method, training, STEPS)
    return found


def keep_by_position(run: Path, training: Training, copy: Path) -> None:
    """Copy a run and its checkpoint, with the optimiser's state as Crossview 0.4 kept it."""
    shutil.copytree(run, copy)
    found = checkpoint.latest(copy)
    assert found is not None
    state = torch.load(found / "train_state.pt", weights_only=True)
    torch.save(state | {"optimizer": training.optimizer.state_dict()}, found / "train_state.pt")


@pytest.fixture(scope="module")
def workers(folder: Path, alone: dict[str, Numbers]) -> list[dict[str, Any]]:
    return ranks.results(work, WORKERS, folder)


@pytest.fixture(params=method_names())
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_parts_train_as_one_process_does(method: str, workers: list[dict[str, Any]], alone: dict[str, Numbers]) -> None:
    for found in workers:
        assert found[method]["first"] == pytest.approx(alone[method][:STEPS], rel=1e-4)


def test_each_worker_keeps_half_of_what_is_trained(method: str, workers: list[dict[str, Any]]) -> None:
    for found in workers:
        assert found[method]["kept"] == pytest.approx(0.5, abs=0.05)


def test_a_checkpoint_of_parts_is_that_of_one_process(
    method: str, folder: Path, workers: list[dict[str, Any]], alone: dict[str, Numbers]
) -> None:
    """Same names, shapes and near the same numbers, moments and averages included; and one process goes on from it."""
    parts, whole = (checkpoint.folder(folder / f"{method}-{kind}", STEPS // 2) for kind in ("parts", "whole"))
    assert_close(checkpoint.read_weights(parts), checkpoint.read_weights(whole))
    states = [checkpoint.read_train_state(path, torch.device("cpu")) for path in (parts, whole)]
    assert_close(states[0], states[1])
    training = training_of(without_data(folder / f"{method}-parts"), Worker(torch.device("cpu")))
    assert steps(method, training, STEPS) == pytest.approx(alone[method][STEPS:], rel=1e-4)


def test_parts_go_on_from_the_checkpoint_of_one_process(
    method: str, workers: list[dict[str, Any]], alone: dict[str, Numbers]
) -> None:
    for found in workers:
        assert found[method]["rest"] == pytest.approx(alone[method][STEPS:], rel=1e-4)


def test_parts_go_on_from_a_checkpoint_of_crossview_0_4(
    workers: list[dict[str, Any]], alone: dict[str, Numbers]
) -> None:
    for found in workers:
        assert found[GROUPED]["by position"] == pytest.approx(alone[GROUPED][STEPS:], rel=1e-4)


def assert_close(found: Any, expected: Any, path: str = "") -> None:
    assert type(found) is type(expected), path
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            assert_close(found[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for k, value in enumerate(expected):
            assert_close(found[k], value, f"{path}/{k}")
    elif isinstance(expected, Tensor):
        # Each worker's BatchNorm keeps statistics of its own clips.
        if path != "/rng" and "running_" not in path and "num_batches" not in path:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5, msg=lambda m: path + m)
    else:
        assert found == expected, path
