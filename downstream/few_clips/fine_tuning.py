"""Few-clip fine-tuning: a new linear head on a clip encoder, trained with the whole network or by itself."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossview.errors import UserError

FLOOR = 0.1
"""Least standard deviation of a channel for the head, as a share of the channels' mean."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """The recipe, the same for every encoder: AdamW, half a cosine down to 0, gradients cut at norm 1."""

    epochs: int = 20
    batch: int = 10
    """Clips per step, or all where there are fewer; the last of an epoch that make no whole batch are left out."""
    head_lr: float = 1e-2
    encoder_lr: float = 3e-4
    weight_decay: float = 0.05
    head_only: bool = False
    """Keep the encoder frozen."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "head_lr", "encoder_lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"fine-tuning: {name} is {getattr(self, name)}; it must be above 0")
        if self.weight_decay < 0:
            raise ValueError(f"fine-tuning: weight_decay is {self.weight_decay}; it must be 0 or more")


class Classifier(nn.Module):
    """An encoder's `embed_clip`, standardised by fixed numbers, and a linear head."""

    mean: Tensor
    scale: Tensor

    def __init__(self, encoder: nn.Module, vectors: Tensor, classes: int) -> None:
        """`vectors` (N, D), the encoder's of the clips to tune on, give the fixed mean and scale; the head is 0."""
        super().__init__()
        self.encoder = encoder
        deviation = vectors.std(0, unbiased=False)
        self.register_buffer("mean", vectors.mean(0))
        self.register_buffer("scale", deviation.clamp_min(max(FLOOR * float(deviation.mean()), 1e-6)))
        self.head = nn.Linear(vectors.shape[1], classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, ...) -> logits (B, classes)."""
        return self.classify(embedded(self.encoder, clips))

    def classify(self, vectors: Tensor) -> Tensor:
        """(B, D) -> logits (B, classes)."""
        logits: Tensor = self.head((vectors - self.mean) / self.scale)
        return logits


def fine_tune(
    encoder: nn.Module, clips: Tensor, labels: Tensor, classes: int, recipe: FineTuning, *, seed: int
) -> Classifier:
    """A classifier of `clips`, uint8 (N, T, 3, H, W) or features (N, T, M, D), by `labels`, int64 (N,) below `classes`.

    The given encoder stays as it is: a copy is trained, in train mode (so batch norm adapts), all of it that requires a
    gradient. The result is in eval mode and a function of the arguments. Raises ValueError if labels and clips do
    not fit each other, and where the loss is not finite.
    """
    if labels.shape != (len(clips),) or not len(clips) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"fine-tuning: {len(clips)} clips with labels {labels.tolist()[:10]} of {classes} classes; there must be a "
            f"label from 0 to {classes - 1} for each of at least one clip"
        )
    with torch.random.fork_rng(devices=[clips.device] if clips.is_cuda else []):
        torch.manual_seed(seed)
        model = Classifier(copy.deepcopy(encoder), embed_all(encoder, clips, recipe.batch), classes).to(clips.device)
        _train(model, clips, labels, recipe, seed)
    return model.eval()


def likeliest(model: Classifier, clips: Tensor, *, batch: int = 32) -> Tensor:
    """Class of each of `clips` (N, T, ...): int64 (N,)."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in clips.split(batch)])


def accuracy(model: Classifier, clips: Tensor, labels: Tensor, *, batch: int = 32) -> float:
    """Share of `clips` (N, T, ...) whose class is the likeliest."""
    return float((likeliest(model, clips, batch=batch) == labels).float().mean())


def embedded(encoder: nn.Module, clips: Tensor) -> Tensor:
    """`encoder.embed_clip` as float32: (B, T, ...) -> (B, D)."""
    return cast(Tensor, encoder.embed_clip(clips)).float()  # type: ignore[operator]


@torch.no_grad()
def embed_all(encoder: nn.Module, clips: Tensor, batch: int) -> Tensor:
    """Vectors of all clips from the encoder in eval mode: (N, T, ...) -> (N, D)."""
    mode = encoder.training
    try:
        encoder.eval()
        return torch.cat([embedded(encoder, part) for part in clips.split(batch)])
    finally:
        encoder.train(mode)


def _train(model: Classifier, clips: Tensor, labels: Tensor, recipe: FineTuning, seed: int) -> None:
    parameters = [] if recipe.head_only else [p for p in model.encoder.parameters() if p.requires_grad]
    groups = [
        {"params": list(model.head.parameters()), "lr": recipe.head_lr},
        {"params": parameters, "lr": recipe.encoder_lr},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=recipe.weight_decay)
    batch = min(recipe.batch, len(clips))
    per_epoch = len(clips) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * per_epoch)
    draw = torch.Generator().manual_seed(seed)
    vectors = embed_all(model.encoder, clips, batch) if recipe.head_only else None
    model.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(clips), generator=draw)[: per_epoch * batch].to(clips.device)
        for chosen in order.split(batch):
            logits = model(clips[chosen]) if vectors is None else model.classify(vectors[chosen])
            loss = functional.cross_entropy(logits, labels[chosen])
            if not math.isfinite(loss.item()):
                raise UserError(
                    f"few_clips: the loss is {loss.item()}; clip embeddings must be finite: check the checkpoint, or "
                    f"lower encoder_lr (now {recipe.encoder_lr:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([*model.head.parameters(), *parameters], 1.0)
            optimizer.step()
            schedule.step()
