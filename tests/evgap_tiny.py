"""A small EVGAP and batches for it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from crossview.methods.evgap.config import Config, Encoder

TINY = Config(
    feature_width=24,
    encoder=Encoder(width=32, depth=3, heads=4, hidden=48, dropout=0.0),
    ego_views=2,
    exo_views=3,
    frames=8,
    fps=15.0,
    window_stride=8,
    clips_per_video=2,
)
GROUPS = dataclasses.replace(TINY, step="groups")


def batch_of(config: Config, size: int = 4) -> dict[str, Tensor]:
    """Random float16 features, 2 tokens of 12 numbers a frame, of lengths between half and twice the nominal one."""
    T = config.sampling().max_frames(config.sampling().views["ego"])
    length = torch.randint(T // 4, T + 1, (size,))
    batch = {"sample": torch.arange(size) // 2, "seed": torch.arange(size) * 1_000 + 5}
    if config.step == "groups":
        V = config.ego_views + config.exo_views
        mask = torch.ones(size, V, dtype=torch.bool)
        return batch | {"video": torch.randn(size, V, T, 2, 12).half(), "video/mask": mask, "video/length": length}
    for view in ("ego", "exo"):
        batch |= {view: torch.randn(size, T, 2, 12).half(), f"{view}/length": length}
    return batch
