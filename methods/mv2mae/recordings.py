"""Whole recordings: windows that cover them, multi-view testing, and untrained baselines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

if TYPE_CHECKING:
    from crossview.methods.mv2mae.model import Model


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


@torch.no_grad()
def probabilities(model: Model, recording: Tensor, clips: int = 5, crops: int = 3) -> Tensor:
    """Class probabilities of whole recordings, averaged over `clips` x `crops` views: (B, L, 3, H, W) -> (B, C).

    Clips are sampled at the model's stride and start at evenly spaced frames. Frames are resized so that their shorter
    side has the model's size, and square crops are evenly spaced along the longer side; square frames have one crop.
    """
    if clips < 1 or crops < 1:
        raise ValueError(f"clips is {clips} and crops {crops}; both must be at least 1")
    config, size = model.config, model.config.size_px
    B, L, _, H, W = recording.shape
    if min(H, W) != size:
        scale = size / min(H, W)
        shape = (max(size, round(H * scale)), max(size, round(W * scale)))
        frames = nn.functional.interpolate(recording.flatten(0, 1).float(), shape, mode="bilinear", antialias=True)
        recording = frames.round().clamp(0, 255).to(torch.uint8).unflatten(0, (B, L))
    span = (config.frames - 1) * config.embed_stride + 1
    starts = torch.linspace(0, max(0, L - span), clips).round().long().tolist()
    steps = torch.arange(config.frames, device=recording.device) * config.embed_stride
    room_y, room_x = recording.shape[-2] - size, recording.shape[-1] - size
    places = torch.linspace(0, 1, crops).tolist() if crops > 1 and room_x + room_y else [0.5]
    total = torch.zeros((), device=recording.device)
    for start in starts:
        clip = recording[:, (start + steps).clamp(max=L - 1)]
        for place in places:
            y, x = round(place * room_y), round(place * room_x)
            total = total + model.logits(clip[..., y : y + size, x : x + size]).float().softmax(-1)
    return total / (len(starts) * len(places))


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
