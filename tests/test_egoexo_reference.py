"""Ego-Exo's training step equals a plain transcription: every loss, all gradients, crops and BatchNorm statistics."""

from __future__ import annotations

from dataclasses import replace

import egoexo_reference as reference
import pytest
import torch
from egoexo_cases import CONFIGS, SIZE, built, filled, state_of
from egoexo_tiny import TINY

from crossview.methods.egoexo.config import ACTIONS_ALONE
from crossview.methods.egoexo.model import Model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_loss_and_its_gradient_equal_the_transcription(name: str, *, training: bool) -> None:
    config = CONFIGS[name]
    model, batch = built(config).train(training), filled(config)
    p = state_of(model)
    expected, running = reference.losses(
        config, p, batch, training=training, rounded=model.inputs(batch)[0], dropout_seed=11
    )
    torch.manual_seed(11)
    found = model(batch)
    assert list(found) == list(expected)
    for loss, value in expected.items():
        torch.testing.assert_close(
            found[loss].double(), value, rtol=5e-6, atol=5e-6, msg=f"{loss}: {found[loss]}, not {value}"
        )
    mixture = {
        loss: 1.3**k for k, loss in enumerate(expected)
    }  # so that the gradients of all losses are compared at once
    sum(factor * found[loss] for loss, factor in mixture.items()).backward()
    sum(factor * expected[loss] for loss, factor in mixture.items()).backward()
    for parameter, value in model.named_parameters():
        own, theirs = value.grad, p[parameter].grad
        assert (own is None) == (theirs is None), parameter
        if own is not None and theirs is not None:
            assert float(theirs.norm()) > 0, parameter
            assert float((own - theirs).norm()) <= 1e-5 * float(theirs.norm()), parameter
    for buffer, value in running.items():
        torch.testing.assert_close(model.state_dict()[buffer], value, rtol=1e-6, atol=1e-6)
    assert bool(running) == training


@pytest.mark.parametrize("name", ["pre-training", "study", "every other option"])
def test_boxes_are_cropped_as_in_the_transcription(name: str) -> None:
    config = CONFIGS[name]
    batch = filled(config)
    boxes = Model(config).inputs(batch)[1]
    assert boxes is not None
    for b in range(SIZE):
        moved = torch.tensor(reference.cropped(config, batch, b)[1])
        torch.testing.assert_close(boxes[b], moved, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, 0), (1.0, 64), (0.3, 19)])
def test_crops_flip_the_configured_share_and_use_the_whole_range_of_sides(flip: float, mirrored: int) -> None:
    """On a horizontal ramp, the sign of the slope shows the flip, and its size the side that was drawn."""
    config = replace(TINY, flip=flip, frames=4, weights=ACTIONS_ALONE)
    ramp = torch.arange(64).mul(4).to(torch.uint8).expand(64, 4, 3, 64, 64)
    batch = {"clip": ramp, "seed": torch.arange(64) * 31}
    clips, _ = Model(config).inputs(batch)
    rise = clips[:, 0, 0, 0, -1].float() - clips[:, 0, 0, 0, 0].float()
    assert int((rise < 0).sum()) == pytest.approx(mirrored, abs=5 if 0 < flip < 1 else 0)
    sides = 47 * 4 * 64 / rise.abs()
    low, high = config.short_side_px
    assert low - 0.5 <= float(sides.min()) < low + 1
    assert high - 1 < float(sides.max()) <= high + 0.5
