"""Whole recordings: windows that cover them, and untrained baselines."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn


def cover(length: int, frames: int, tubelet: int, stride: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Windows over a recording of `length` frames, and how the vectors of their tubelets combine into frame vectors.

    Returns the frames of each window, int64 (W, T), and the mixing weights, float32 (length, W * T / tubelet) with rows
    that sum to 1: frames are interpolated between the centres of tubelets and averaged over windows that overlap.
    """
    span = frames * stride
    count = max(1, -(-length // span))
    start = torch.linspace(0, max(0, length - span), count, device=device).round().long()
    index = (start[:, None] + torch.arange(frames, device=device) * stride).clamp(max=length - 1)
    frame = torch.arange(length, device=device)
    since = frame[:, None] - start  # (L, W)
    held = (since >= 0) & (since < span)
    times = frames // tubelet
    middle = stride * (tubelet - 1) / 2
    place = ((since - middle) / (stride * tubelet)).clamp(0, times - 1)
    near = (1 - (place[..., None] - torch.arange(times, device=device)).abs()).clamp(min=0)  # (L, W, t)
    mix = near * held[..., None]
    return index, (mix / held.sum(1)[:, None, None]).flatten(1)


def pixel_baselines() -> dict[str, Callable[[Tensor], Tensor]]:
    """Untrained baselines: each frame, or its difference to the previous one, averaged to 8 x 8 cells."""

    def coarse(video: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(video.flatten(0, 1).float() / 255, 8)
        return rearrange(pooled, "(B T) C H W -> B T (C H W)", B=len(video))

    def changes(video: Tensor) -> Tensor:
        x = video.float()
        later = (x[:, 1:] - x[:, :-1]).abs()
        return coarse(torch.cat([later[:, :1] if len(later[0]) else torch.zeros_like(x), later], dim=1))

    return {"pixels": coarse, "frame differences": changes}
