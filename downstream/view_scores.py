"""Class scores of every test view of recordings, from frames that were read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from crossview.downstream.test_views import crop_places, scaled_px

FRAMES_AT_ONCE = 64
"""Frames that are scaled together; bounds memory."""


@torch.no_grad()
def view_scores(
    classify: Callable[[Tensor], Mapping[str, Tensor]],
    frames: Tensor,
    places: np.ndarray,
    *,
    size_px: int,
    crops: int,
    together: int = 8,
) -> dict[str, Tensor]:
    """What `classify` gives for each view, clips first: (B, V, C) by name, to be fused.

    `classify` maps clips uint8 (B, T, 3, S, S) to (B, C) by name, S being `size_px`, and gets `together` views at once;
    a clip that is asked for several times it gets once. Frames are uint8 (B, M, 3, H, W), whose shorter sides are
    scaled to `size_px` first, or features (B, M, N, D), which have no crops. `places` int64 (K, T) are a clip's frames
    among them.
    """
    corners: list[tuple[int, int] | None] = [None]
    if frames.dtype == torch.uint8:
        frames = scale(frames, size_px)
        corners = list(crop_places(frames.shape[-2], frames.shape[-1], size_px, crops))
    clips, of = np.unique(places, axis=0, return_inverse=True)
    views = [(clip, corner) for clip in clips for corner in corners]
    found: dict[str, list[Tensor]] = {}
    for k in range(0, len(views), together):
        cut = torch.stack([_view(frames, *view, size_px) for view in views[k : k + together]], dim=1)
        for name, scores in classify(cut.flatten(0, 1)).items():  # (B * v, T, ...) -> (B * v, C)
            found.setdefault(name, []).append(scores.unflatten(0, cut.shape[:2]))
    order = (of.reshape(-1, 1) * len(corners) + np.arange(len(corners))).ravel()
    return {name: torch.cat(scores, dim=1)[:, order] for name, scores in found.items()}


def _view(frames: Tensor, clip: np.ndarray, corner: tuple[int, int] | None, size_px: int) -> Tensor:
    """(B, M, ...) -> (B, T, ...)."""
    cut = frames[:, torch.as_tensor(clip, device=frames.device)]
    if corner is None:
        return cut
    top, left = corner
    return cut[..., top : top + size_px, left : left + size_px]


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
