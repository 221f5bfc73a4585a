"""A classifier on MV2MAE's tiny encoder, and batches for it."""

from __future__ import annotations

import torch
from mv2mae_tiny import TINY
from torch import Tensor

from crossview.downstream.encoder import ClipEncoder, Weights
from crossview.downstream.recognition.augment_config import NO_AUGMENTATION
from crossview.downstream.recognition.config import Config
from crossview.downstream.recognition.model import Model
from crossview.methods.mv2mae.model import Model as Mv2mae

FINE = Config(
    classes={"action": 5}, frames=TINY.frames, size_px=TINY.size_px, drop_path=0.1, augmentation=NO_AUGMENTATION
)


def classifier(config: Config = FINE, weights: Weights = "trained", *, method: Mv2mae | None = None) -> Model:
    """In eval mode, so that nothing is dropped or augmented; its linear layers are not near 0, where all look alike."""
    model = Model(config, ClipEncoder(method or Mv2mae(TINY), weights)).eval()
    for linear in model.heads.linears.values():
        torch.nn.init.normal_(linear.weight)  # type: ignore[arg-type]
    return model


def labelled(config: Config = FINE, size: int = 4) -> dict[str, Tensor]:
    """Random labelled clips, classes in turn."""
    shape = (size, config.frames, 3, config.size_px, config.size_px)
    batch = {"sample": torch.arange(size), "seed": torch.arange(size) * 1_000 + 5}
    batch["video"] = torch.randint(0, 256, shape, dtype=torch.uint8)
    for kind, count in config.classes.items():
        batch[f"video/label/{kind}"] = torch.nn.functional.one_hot(torch.arange(size) % count, count).to(torch.uint8)
    return batch
