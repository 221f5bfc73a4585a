"""A run of BYOV's debug preset on a small catalog of features, which takes seconds and needs no decoding."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from crossview.platform import checkpoint
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset
from crossview.platform.train.metrics import read_metrics

STEPS = 20


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


def assert_equal_runs(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(one) == losses(other)
    assert len(losses(one)) == STEPS


def wait_for(ready: object, limit_s: float = 240) -> None:
    deadline = time.monotonic() + limit_s
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)
