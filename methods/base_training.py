"""Training a small base encoder to name what covers each patch, where no published weights are available."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.base import FrozenViT
from crossview.methods.base_config import Base

GAIN, OFFSET = 0.3, 30.0
"""Widths of the random factor and shift of each colour channel, so that colours say little."""


def train_base(
    config: Base,
    pixels: Tensor,
    coverage: Tensor,
    out: Path,
    *,
    steps: int,
    batch: int = 64,
    lr: float = 4e-3,
    seed: int = 0,
    tell: Callable[[int, float], None] | None = None,
) -> None:
    """Train a ViT on pixels uint8 (n, 3, H, W) and coverage uint8 (n, parts, h, w) of its patches; write it to `out`.

    A linear head on each patch token predicts the square root of every part's share of the patch by binary
    cross-entropy; the head is discarded. `out` is what `Base.weights` takes.
    """
    torch.manual_seed(seed)
    base = FrozenViT(replace(config, weights="random", seed=seed))
    if coverage.shape[-2:] != base.grid:
        raise UserError(
            f"coverage has a grid of {tuple(coverage.shape[-2:])}, the base of {base.grid}; they must agree"
        )
    vit = base.vit.requires_grad_(True).train()
    head = nn.Sequential(nn.LayerNorm(base.width), nn.Linear(base.width, coverage.shape[1]))
    nn.init.constant_(head[1].bias, -3.0)  # type: ignore[arg-type]  # most patches show no part: start from there
    optimizer = torch.optim.AdamW([*vit.parameters(), *head.parameters()], lr=lr, weight_decay=0.05)
    warmup = max(1, steps // 20)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
        chosen = torch.randint(len(pixels), (batch,))
        tokens = base.tokens(_recolour(pixels[chosen]))
        target = (coverage[chosen].float() / 255).sqrt().flatten(2).transpose(1, 2)  # (B, N, parts)
        loss = F.binary_cross_entropy_with_logits(head(tokens), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if tell:
            tell(step + 1, float(loss.detach()))
    temporary = out.with_name(f".{out.name}")
    save_file({name: value.contiguous() for name, value in vit.state_dict().items()}, temporary)
    temporary.replace(out)


def _recolour(frames: Tensor) -> Tensor:
    """Each channel scaled and shifted at random: uint8 (B, 3, H, W) -> float in [0, 255]."""
    gain = 1 + GAIN * (torch.rand(len(frames), 3, 1, 1) - 0.5)
    offset = OFFSET * (torch.rand(len(frames), 3, 1, 1) - 0.5)
    return (frames.float() * gain + offset).clamp(0, 255)
