"""A small Ego-Exo network and batches with every signal, for its tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods.egoexo.config import Backbone, Config, Weights

BACKBONE = Backbone(
    width=8,
    beta_inverse=4,
    blocks=(1, 1, 1, 1),
    temporal_blocks=(1, 1, 1, 1),
    strides=(1, 2, 2, 1),
    fusion_kernel=5,
    zero_init_residual=False,
)
TINY = Config(
    backbone=BACKBONE,
    classes={"action": 5},
    object_classes=7,
    frames=8,
    frame_px=64,
    crop_px=48,
    geometry=Geometry(),
    short_side_px=(52, 64),
    boxes=4,
    map_width=16,
)
STAR = replace(
    TINY,
    stage="finetune",
    classes={"action": 3},
    weights=Weights(action=1, ego=0, object=0, hand_map=0.1, object_map=0.1),
)
PLAIN = replace(STAR, weights=replace(STAR.weights, hand_map=0, object_map=0))


def batch_of(config: Config, size: int = 3) -> dict[str, Tensor]:
    """Random clips with all the labels, scores and boxes that `config` may ask for."""
    T, px, K = config.frames, config.frame_px, config.boxes
    every = torch.ones(size, dtype=torch.bool)
    low, span = 0.6 * torch.rand(2, size, T, K, 2)
    kind, score = torch.randint(0, 3, (size, T, K, 1)).float(), torch.rand(size, T, K, 1)
    batch = {
        "sample": torch.arange(size),
        "seed": torch.arange(size) * 1_000 + 5,
        "clip": torch.randint(0, 256, (size, T, 3, px, px), dtype=torch.uint8),
        "clip/scores/ego": torch.randn(size, 2),
        "clip/scores/ego/mask": every,
        "clip/scores/object": torch.randn(size, config.object_classes),
        "clip/scores/object/mask": every,
        "clip/boxes": torch.cat([kind, low, (low + span).clamp(max=1), score], dim=-1),
        "clip/boxes/mask": every,
    }
    for name, count in config.classes.items():
        batch[f"clip/label/{name}"] = torch.eye(count, dtype=torch.uint8)[torch.randint(0, count, (size,))]
    return batch
