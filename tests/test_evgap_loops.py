"""EVGAP against the plain loops that its speed is measured against."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import pytest
import torch
from reference_loops import reference_loops

from crossview.methods.evgap.config import Config, Encoder
from crossview.methods.evgap.model import Model
from crossview.methods.example_batch import example_batch

TINY = Config(
    feature_width=12,
    encoder=Encoder(width=16, depth=3, heads=2, hidden=24, dropout=0.0),
    ego_views=2,
    exo_views=3,
    frames=6,
)


@pytest.fixture(scope="module")
def loops() -> ModuleType:
    return reference_loops("evgap")


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("change", [{"step": "pairs"}, {"step": "groups"}, {"step": "groups", "bias": "none"}])
def test_loss_and_gradient_equal_those_of_plain_loops(loops: ModuleType, change: dict[str, Any], norm: Any) -> None:
    torch.manual_seed(0)
    encoder = dataclasses.replace(TINY.encoder, norm=norm)
    config = dataclasses.replace(TINY, encoder=encoder, **change)
    model, batch = Model(config).train(), example_batch(config.sampling(), 5, features=(1, 12))
    if config.step == "groups":
        batch["video/mask"][1, 3] = batch["video/mask"][4, 0] = False
    own = model(batch)["loss"]
    own.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    reference = loops.reference(model, batch)
    reference.backward()
    torch.testing.assert_close(own, reference, rtol=1e-5, atol=1e-5)
    assert len(gradients) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_sizes_to_time_build(loops: ModuleType) -> None:
    config, size = loops.sizes()["laptop"]()
    batch = example_batch(config.sampling(), size, features=(1, config.feature_width))
    model = Model(config)
    torch.testing.assert_close(model(batch)["loss"], loops.reference(model, batch), rtol=1e-4, atol=1e-4)
    assert set(loops.sizes()) == {"laptop", "paper"}
    assert loops.sizes()["paper"]()[0].step == "groups"
