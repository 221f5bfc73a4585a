"""Class scores of every test view of recordings, from frames that were read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from crossview.downstream.recognition.test_views import crop_places, scaled_px

FRAMES_AT_ONCE = 64
"""Frames that are scaled together; bounds memory."""


@torch.no_grad()
def view_scores(
    classify: Callable[[Tensor], Mapping[str, Tensor]], frames: Tensor, places: np.ndarray, *, size_px: int, crops: int
) -> dict[str, Tensor]:
    """What `classify` gives for each view, clips first: (B, V, C) by name, for `metrics.fuse`.

    `classify` maps clips uint8 (B, T, 3, S, S) to (B, C) by name, S being `size_px`. Frames are uint8
    (B, M, 3, H, W), `places` int64 (K, T) are a clip's frames among them. Shorter sides are scaled to `size_px` first.
    """
    frames = scale(frames, size_px)
    H, W = frames.shape[-2:]
    found: dict[str, list[Tensor]] = {}
    for clip in places:
        cut = frames[:, torch.as_tensor(clip, device=frames.device)]  # (B, T, 3, H, W)
        for top, left in crop_places(H, W, size_px, crops):
            for name, scores in classify(cut[..., top : top + size_px, left : left + size_px]).items():
                found.setdefault(name, []).append(scores)
    return {name: torch.stack(scores, dim=1) for name, scores in found.items()}


def scale(frames: Tensor, size_px: int) -> Tensor:
    """Frames whose shorter side is `size_px`: uint8 (B, M, 3, H, W) -> uint8 (B, M, 3, H', W')."""
    H, W = frames.shape[-2:]
    if min(H, W) == size_px:
        return frames
    shape = scaled_px(H, W, size_px)
    out = frames.new_empty((*frames.shape[:3], *shape))
    for k in range(0, frames.shape[1], FRAMES_AT_ONCE):
        part = frames[:, k : k + FRAMES_AT_ONCE]
        scaled = nn.functional.interpolate(part.flatten(0, 1).float(), shape, mode="bilinear", antialias=True)
        out[:, k : k + FRAMES_AT_ONCE] = scaled.round().clamp(0, 255).unflatten(0, part.shape[:2])
    return out
