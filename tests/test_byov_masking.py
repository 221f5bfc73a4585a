"""BYOV's masks: how many frames they hide, that they are independent, and how visible frames return."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from byov_tiny import TINY

from crossview.methods.byov.masking import num_masked, restore, split, take
from crossview.methods.byov.model import Model


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(
    ("frames", "ratio", "hidden"),
    [(32, 0.4, 13), (32, 0.8, 26), (20, 0.4, 8), (20, 0.8, 16), (40, 0.8, 32), (100, 0.8, 80)],
)
def test_masks_hide_exactly_as_many_frames_as_the_ratio_says(frames: int, ratio: float, hidden: int) -> None:
    assert num_masked(ratio, frames) == hidden
    mask, visible = split(torch.arange(50), frames, ratio, 0)
    assert (mask.sum(1) == hidden).all()
    assert visible.shape == (50, frames - hidden)
    assert (visible.diff(dim=1) > 0).all()
    assert not mask.gather(1, visible).any()


def test_masks_are_independent_per_sample_view_and_task() -> None:
    model = Model(TINY)
    seed = torch.arange(40)
    msm, mcm = model.split(seed, "msm", 10).mask, model.split(seed, "mcm", 10).mask
    assert len(msm.unique(dim=0)) > 30
    assert not torch.equal(msm[:40], msm[40:])
    assert 0.3 < float((msm[:40] & msm[40:]).sum() / msm[:40].sum()) < 0.5
    for view in (slice(0, 40), slice(40, 80)):  # of MSM's 4 frames in 10, MCM's independent 8 hide 80 %
        assert 0.7 < float((msm[view] & mcm[view]).sum() / msm[view].sum()) < 0.9
    assert 0.75 < float((mcm[:40] & mcm[40:]).sum() / mcm[:40].sum()) < 0.85


def test_visible_frames_return_to_their_places() -> None:
    x = torch.randn(6, 20, 5)
    mask, visible = split(torch.arange(6), 20, 0.4, 3)
    token = torch.full((5,), 9.0)
    back = restore(take(x, visible), visible, token, 20)
    torch.testing.assert_close(back, torch.where(mask[..., None], token, x))
