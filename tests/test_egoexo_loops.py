"""Ego-Exo against the plain loops that its speed is measured against."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from egoexo_tiny import TINY, batch_of
from reference_loops import reference_loops

from crossview.methods.egoexo.model import Model
from crossview.methods.example_batch import example_batch


@pytest.fixture(scope="module")
def loops() -> ModuleType:
    return reference_loops("egoexo")


def test_loss_and_gradient_equal_those_of_plain_loops(loops: ModuleType) -> None:
    torch.manual_seed(0)
    model, batch = Model(TINY).train(), batch_of(TINY, 4)
    own = model(batch)["loss"]
    own.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    reference = loops.reference(model, batch)
    reference.backward()
    torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-4)
    assert len(gradients) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        assert p.grad is not None
        error = (p.grad - gradients[name]).norm() / gradients[name].norm()
        assert float(error) < 1e-2, name


def test_the_sizes_to_time_build(loops: ModuleType) -> None:
    config, size = loops.sizes()["laptop"]()
    batch = example_batch(config.sampling(), size)
    model = Model(config)
    torch.testing.assert_close(model(batch)["loss"], loops.reference(model, batch), rtol=1e-4, atol=1e-4)
    assert set(loops.sizes()) == {"laptop", "paper"}
