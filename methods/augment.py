"""Random crops and flips of clips on the device: one geometry for all frames of a sample, drawn from its seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods import noise

_QUARTERS = (
    (0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3),
)  # fmt: skip
"""Places of a multi-scale crop, in quarters of the free margin (Wang et al., TSN, ECCV 2016: 13 of them)."""


@dataclass(frozen=True)
class Crop:
    """A rectangle per sample in unit coordinates of the frame, mirrored where `flip` says so; all float32 (B,)."""

    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor
    flip: Tensor
    """bool (B,)."""


def scale_crop(
    seed: Tensor, *, crop_px: int, short_side_px: tuple[int, int], flip: float = 0.5, stream: int = 0
) -> Crop:
    """A square of `crop_px` out of frames whose side is scaled to a uniformly drawn length: seeds (B,) -> crops."""
    low, high = short_side_px
    if not 0 < crop_px <= low <= high:
        raise UserError(
            f"crop of {crop_px} px from sides of {short_side_px}; it must satisfy 0 < crop <= low <= high: lower the "
            "crop or raise the sides"
        )
    scale, x, y, mirrored = noise.uniform(seed, 4, stream).unbind(1)
    share = crop_px / (low + (high - low) * scale)
    return Crop(x * (1 - share), y * (1 - share), share, share, mirrored < flip)


def multi_scale_crop(
    seed: Tensor,
    *,
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66),
    max_step: int = 1,
    flip: float = 0.0,
    stream: int = 0,
) -> Crop:
    """Sides from a set of shares, width and height at most `max_step` entries apart, at one of 13 places (TSN)."""
    if not scales or not all(0 < s <= 1 for s in scales):
        raise UserError(f"scales is {scales}; give at least one share of the frame's side, each in (0, 1]")
    n = len(scales)
    pairs = [(scales[i], scales[j]) for i in range(n) for j in range(n) if abs(i - j) <= max_step]
    pair, place, mirrored = noise.uniform(seed, 3, stream).unbind(1)
    sides = torch.tensor(pairs, device=seed.device)[(pair * len(pairs)).long()]  # (B, 2): width, height
    quarter = torch.tensor(_QUARTERS, device=seed.device)[(place * len(_QUARTERS)).long()]  # (B, 2)
    left, top = ((1 - sides) * quarter / 4).unbind(1)
    return Crop(left, top, sides[:, 0], sides[:, 1], mirrored < flip)


def crop_video(video: Tensor, crop: Crop, size_px: int) -> Tensor:
    """Resampled bilinearly in one step: uint8 or float (B, T, 3, H, W) -> the same type (B, T, 3, size_px, size_px)."""
    T = video.shape[1]
    frames = rearrange(video, "B T C H W -> B (T C) H W").to(torch.float32)
    middle = (torch.arange(size_px, device=video.device) + 0.5) / size_px
    across = torch.where(crop.flip[:, None], 1 - middle, middle)  # (B, S)
    x = crop.left[:, None] + crop.width[:, None] * across
    y = crop.top[:, None] + crop.height[:, None] * middle
    grid = torch.stack([x[:, None].expand(-1, size_px, -1), y[:, :, None].expand(-1, -1, size_px)], dim=-1)
    # Autocast would run the sampling in half precision, whose steps near 1 are wider than a pixel.
    with torch.autocast(video.device.type, enabled=False):
        out = nn.functional.grid_sample(frames, grid * 2 - 1, padding_mode="border", align_corners=False)
    out = rearrange(out, "B (T C) H W -> B T C H W", T=T)
    return out if video.is_floating_point() else out.round_().clamp_(0, 255).to(video.dtype)


def crop_boxes(boxes: Tensor, crop: Crop) -> Tensor:
    """Boxes in the crop's own unit coordinates: (B, T, K, 6) of (kind, x1, y1, x2, y2, score) -> the same shape.

    They are clipped to the crop; one without area there becomes zeros (kind 0: none), so that a box outside leaves no
    trace at the border.
    """
    left, top, width, height = (v[:, None, None] for v in (crop.left, crop.top, crop.width, crop.height))
    kind, x1, y1, x2, y2, score = boxes.unbind(-1)
    x1, x2, y1, y2 = (x1 - left) / width, (x2 - left) / width, (y1 - top) / height, (y2 - top) / height
    mirrored = crop.flip[:, None, None]
    x1, x2 = torch.where(mirrored, 1 - x2, x1), torch.where(mirrored, 1 - x1, x2)
    x1, y1, x2, y2 = (v.clamp(0, 1) for v in (x1, y1, x2, y2))
    out = torch.stack([kind, x1, y1, x2, y2, score], dim=-1)
    return out * ((x2 > x1) & (y2 > y1))[..., None]


SHIFT_LEVELS = 100.0
"""Of 255 that `recolour` shifts by at most, per unit of its amount."""


def recolour(video: Tensor, seed: Tensor, amount: float, *, stream: int = 1) -> Tensor:
    """Each colour of a clip scaled by up to 1 ± amount and shifted by up to ± 100 amount levels, one draw per sample.

    uint8 (B, T, 3, H, W) and seeds (B,) -> uint8 of the same shape.
    """
    draw = 2 * noise.uniform(seed, 6, stream) - 1
    gain, shift = (v[:, None, :, None, None] for v in (1 + amount * draw[:, :3], SHIFT_LEVELS * amount * draw[:, 3:]))
    return torch.addcmul(shift, video.to(torch.float32), gain).round_().clamp_(0, 255).to(video.dtype)
