"""Multi-view testing: class probabilities of whole recordings, averaged over clips and crops."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.mv2mae.model import Model


@torch.no_grad()
def probabilities(model: Model, recording: Tensor, clips: int = 5, crops: int = 3) -> Tensor:
    """Class probabilities of whole recordings, averaged over `clips` x `crops` views: (B, L, 3, H, W) -> (B, C).

    Clips are sampled at the model's stride and start at evenly spaced frames. Frames are resized so that their shorter
    side has the model's size, and square crops are evenly spaced along the longer side; square frames have one crop.
    """
    if clips < 1 or crops < 1:
        raise UserError(f"clips is {clips} and crops {crops}; both must be at least 1")
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
