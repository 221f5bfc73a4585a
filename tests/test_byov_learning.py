"""BYOV overfits one pair of clips, and the partner then matters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from byov_tiny import TINY

from crossview.methods.byov.config import Decoder, Encoder
from crossview.methods.byov.model import Model


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_one_pair_is_overfitted_and_the_right_partner_helps() -> None:
    """Ten times lower on a pair of 32-frame clips; the cross-view loss rises with a partner of other content."""
    small = {"encoder": Encoder(width=32, depth=2, heads=4), "decoder": Decoder(width=32, depth=2, heads=4)}
    model = Model(dataclasses.replace(TINY, frames=32, **small))
    generator = torch.Generator().manual_seed(3)
    path = torch.randn(4, 32, 48, generator=generator).cumsum(1) * 0.5  # content that both views of a pair share
    merged = torch.cat([path, path.roll(1, dims=-1)])
    frames, length = torch.arange(32).expand(8, 32), torch.full((8,), 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    first = last = 0.0
    for step in range(180):
        splits = {t: model.split(torch.arange(4) + 4 * step, t, 32) for t in ("msm", "mcm")}
        loss = model.losses(merged, frames, length, splits)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = first or loss.item(), loss.item()
    assert last < first / 10
    model.eval()
    other = torch.cat([merged[:4], merged[4:].roll(1, 0)])
    splits = {"mcm": model.split(torch.arange(4), "mcm", 32)}
    with torch.no_grad():
        right = model.losses(merged, frames, length, splits)["mcm/ego"]
        wrong = model.losses(other, frames, length, splits)["mcm/ego"]
    assert right < wrong
