"""A model of MV2MAE small enough for a test, and batches for it."""

from __future__ import annotations

import torch
from torch import Tensor

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods.mv2mae.config import Config, Transformer
from crossview.methods.mv2mae.model import Model

SMALL = Transformer(width=24, depth=2, heads=2)
TINY = Config(
    frames=4,
    size_px=32,
    geometry=Geometry(),
    crop_scales=(1.0, 0.875, 0.75, 0.66),
    patch_px=8,
    encoder=Transformer(width=48, depth=2, heads=3),
    same_decoder=SMALL,
    cross_decoder=SMALL,
    positions="grid",
    embed_stride=2,
)
"""2 x 4 x 4 tokens, of which 22 are hidden."""


def batch_of(config: Config = TINY, size: int = 3) -> dict[str, Tensor]:
    """Random video of both views."""
    shape = (size, config.frames, 3, config.size_px, config.size_px)
    batch = {"sample": torch.arange(size), "seed": torch.arange(size) * 1_000 + 5}
    return batch | {view: torch.randint(0, 256, shape, dtype=torch.uint8) for view in ("source", "target")}


def model_of(config: Config = TINY) -> Model:
    """In eval mode, so that nothing is cropped."""
    return Model(config).eval()
