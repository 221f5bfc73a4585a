"""A small BYOV network and its batches, for its tests."""

from __future__ import annotations

import torch
from torch import Tensor

from crossview.methods.base_config import Base
from crossview.methods.byov.config import Config, Decoder, Encoder
from crossview.methods.byov.model import Model

TINY = Config(
    base=Base(model="vit_tiny_patch16_224", weights="random", size_px=64, width=48, depth=2, heads=3),
    encoder=Encoder(width=32, depth=2, heads=4, mlp_ratio=3.0),
    decoder=Decoder(width=24, depth=2, heads=3, mlp_ratio=2.0),
    frames=10,
)
"""No two widths are alike, so that a swapped one cannot pass."""


def batch_of(config: Config, size: int = 3, frames: int | None = None) -> dict[str, Tensor]:
    """Random video with frame indices spread over recordings of different lengths."""
    T, px = frames or config.frames, config.base.size_px
    batch = {"sample": torch.arange(size), "seed": torch.arange(size) * 1_000 + 5}
    for view in ("ego", "exo"):
        length = torch.randint(T, 4 * T, (size,))
        batch |= {
            view: torch.randint(0, 256, (size, T, 3, px, px), dtype=torch.uint8),
            f"{view}/frames": (torch.rand(size, T).sort(1).values * length[:, None]).long(),
            f"{view}/num_frames": length,
        }
    return batch


def randomised(model: Model) -> Model:
    """Every parameter away from its initial value: biases and segments start at 0, where a mistake would not show."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.2 if p.ndim < 2 else 0.08))
    return model
