"""The loops that MV2MAE is timed against compute the same loss and gradients; a resumed training has the same curve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from mv2mae_tiny import TINY, batch_of
from reference_loops import reference_loops

from crossview.methods.mv2mae.config import Config, Weights
from crossview.methods.mv2mae.model import Model

PLAIN = replace(TINY, crop_scales=())


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def loops() -> ModuleType:
    return reference_loops("mv2mae")


@pytest.mark.parametrize("config", [PLAIN, replace(PLAIN, positions="index", weights=Weights(same_source=0, cross=2))])
def test_the_loops_have_the_same_loss_and_gradients(loops: ModuleType, config: Config) -> None:
    model, batch = Model(config), batch_of(config)
    for parameter in model.parameters():  # biases start at 0, where a mistake would not show
        torch.nn.init.normal_(parameter, std=0.1)
    loss = model(batch)["loss"]
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    expected = loops.reference(model, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    for name, ours, theirs in zip(names, gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=name)


def test_sizes_are_complete_configurations(loops: ModuleType) -> None:
    for name, make in loops.sizes().items():
        config, batch = make()
        assert not config.crop_scales
        assert batch >= 2, name


def train(model: Model, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        batch = batch_of(TINY, 2)
        batch |= {"seed": torch.tensor([2 * step, 2 * step + 1])}
        optimizer.zero_grad()
        loss = model(batch | {v: batch[v] // (step + 1) for v in ("source", "target")})["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_resumed_training_has_the_same_curve() -> None:
    def fresh() -> tuple[Model, torch.optim.Optimizer]:
        torch.manual_seed(1)
        model = Model(TINY)
        return model, torch.optim.AdamW(model.parameter_groups(0.05), lr=1e-3)

    model, optimizer = fresh()
    torch.manual_seed(2)
    whole = train(model, optimizer, range(4))
    model, optimizer = fresh()
    torch.manual_seed(2)
    first = train(model, optimizer, range(2))
    resumed, other = fresh()
    resumed.load_state_dict(model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    torch.manual_seed(2)
    for _ in range(2):
        batch_of(TINY, 2)
    assert first + train(resumed, other, range(2, 4)) == whole
