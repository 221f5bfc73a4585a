"""A frame's time in its recording as a sin-cos code."""

from __future__ import annotations

import torch
from torch import Tensor

from crossview.methods.blocks import sincos
from crossview.methods.byov.config import TimeCode


def time_code(kind: TimeCode, frames: Tensor, num_frames: Tensor, span: int, width: int) -> Tensor:
    """int64 (B, T) indices in recordings of int64 (B,) frames -> float32 (B, T, width).

    continuous: position (t + 0.5) / L * span, so that clips and recordings of any length share one clock. index: 0..T-1
    as in the released code, and its linear interpolation from `span` positions where T differs. none: zeros.
    """
    B, T = frames.shape
    if kind == "none":
        return torch.zeros(B, T, width, device=frames.device)
    if kind == "continuous":
        return sincos((frames.float() + 0.5) / num_frames[:, None].float() * span, width)
    table = sincos(torch.arange(span, device=frames.device), width)
    position = ((torch.arange(T, device=frames.device) + 0.5) * (span / T) - 0.5).clamp(0, span - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=span - 1)
    return torch.lerp(table[low], table[high], (position - low)[:, None]).expand(B, -1, -1)
