"""The contract of a temporal segmentation model, and the loss that the three models share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossview.errors import UserError

IGNORED = -100
"""The target of a step without a label."""
CLIP = 16.0
"""Upper limit of a squared change of a log-probability (Farha and Gall, CVPR 2019, equation 6)."""


class SegmentationModel(nn.Module, ABC):
    """Labels every step of a feature sequence.

    Batches are padded at the end: `mask`, bool (B, T), is True on the real steps. No output of a real step, no
    gradient and no running statistic depends on the padding or on how long it is; all output at padded steps is 0.
    """

    def __init__(self, dim: int, classes: int, smoothing: float) -> None:
        """`smoothing` weighs the clipped smoothing loss against the cross-entropy."""
        super().__init__()
        at_least("dim", dim, 1)
        at_least("classes", classes, 1)
        at_least("smoothing", smoothing, 0)
        self.dim, self.classes, self.smoothing = dim, classes, smoothing

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor) -> list[Tensor]:
        """Features (B, T, D) -> logits (B, T_k, C) of every stage or head k."""

    def probabilities(self, outputs: Sequence[Tensor], mask: Tensor) -> Tensor:
        """What the model predicts from its outputs: (B, T, C), summing to 1 at real steps; here the last stage's."""
        return outputs[-1].softmax(-1) * mask[..., None]

    def log_probabilities(self, outputs: Sequence[Tensor], mask: Tensor) -> list[Tensor]:  # noqa: ARG002
        """What the loss sums over: log-probabilities (B, T, C), here those of every stage."""
        return [logits.log_softmax(-1) for logits in outputs]

    def loss(self, outputs: Sequence[Tensor], target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Scalars "loss", "cross_entropy" and "smoothing" (before its weight), each summed over stages.

        `target` is int64 (B, T), `IGNORED` where there is no label. Cross-entropy is a mean over labelled steps and
        smoothing one over pairs of neighbouring real steps and classes; of none, they are 0.
        """
        target = target.masked_fill(~mask, IGNORED)
        stages = self.log_probabilities(outputs, mask)
        entropy = torch.stack([cross_entropy(stage, target) for stage in stages]).sum()
        smooth = torch.stack([clipped_smoothing(stage, mask) for stage in stages]).sum()
        return {"loss": entropy + self.smoothing * smooth, "cross_entropy": entropy, "smoothing": smooth}


def cross_entropy(log_p: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-probability (B, T, C) of the target (B, T) over labelled steps; 0 where there are none."""
    total = functional.nll_loss(log_p.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (target != IGNORED).sum().clamp_min(1)


def clipped_smoothing(log_p: Tensor, mask: Tensor) -> Tensor:
    """Mean clipped square of the change of log-probabilities (B, T, C) from a step to the next.

    The earlier step of a pair gets no gradient (Farha and Gall, CVPR 2019, equations 6 to 8).
    """
    pairs = (mask[:, 1:] & mask[:, :-1])[..., None]
    change = (log_p[:, 1:] - log_p[:, :-1].detach()).square().clamp_max(CLIP)
    return (change * pairs).sum() / (pairs.sum() * log_p.shape[-1]).clamp_min(1)


def check_batch(features: Tensor, mask: Tensor, dim: int) -> None:
    """Raise ValueError unless features are (B, T, dim) and each row of the mask is real steps and then padding."""
    if features.ndim != 3 or features.shape[-1] != dim or mask.shape != features.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"features {tuple(features.shape)} with mask {tuple(mask.shape)} of {mask.dtype}: the model takes "
            f"features (B, T, {dim}) and a bool mask (B, T)"
        )
    if bool((~mask[:, :1]).any() | (mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueError("a mask must be True on the real steps, at least one per video, and False only after them")


def at_least(name: str, value: float, least: float) -> None:
    """Raise UserError where the option is below its least value."""
    if value < least:
        raise UserError(f"{name} is {value}; it must be at least {least}")


def share(name: str, value: float) -> None:
    """Raise UserError where a dropout rate is not in [0, 1)."""
    if not 0 <= value < 1:
        raise UserError(f"{name} is {value}; a dropout rate must be at least 0 and below 1")
