"""Which frames are masked, and how the latents of visible ones are put back in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from crossview.methods import noise


def num_masked(ratio: float, frames: int) -> int:
    """Masked frames: 13 and 26 of 32, 8 and 16 of 20 at the paper's 0.4 and 0.8; int(T * (1 - r)) keeps too few."""
    return round(ratio * frames)


class Split(NamedTuple):
    """Which frames of a clip are masked and which are visible; the counts are the same in every sample."""

    mask: Tensor
    """bool (B, T), True where a frame is masked."""
    visible: Tensor
    """int64 (B, n), the visible frames in time order."""


def split(seed: Tensor, frames: int, ratio: float, stream: int) -> Split:
    """Mask frames at random: int64 (B,) seeds.

    A pure function of each sample's seed and of `stream`, which keeps views and tasks independent.
    """
    hidden, shown = (
        noise.uniform(seed, frames, stream).argsort(dim=1, stable=True).tensor_split([num_masked(ratio, frames)], 1)
    )
    mask = torch.zeros(len(seed), frames, dtype=torch.bool, device=seed.device)
    return Split(mask.scatter_(1, hidden, True), shown.sort(dim=1).values)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Frames at `index`: (B, T, D) and (B, n) -> (B, n, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def restore(latents: Tensor, index: Tensor, token: Tensor, frames: int) -> Tensor:
    """Put visible latents back in place and `token` elsewhere: (B, n, D), (B, n) and (D,) -> (B, frames, D)."""
    full = token.to(latents.dtype).expand(latents.shape[0], frames, -1)
    return full.scatter(1, index[..., None].expand_as(latents), latents)
