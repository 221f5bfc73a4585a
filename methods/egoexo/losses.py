"""The action losses, the distillation of teacher scores, and the interaction map's target and loss."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

HAND, OBJECT = 1, 2
"""Box kinds; the map's channels are in the same order."""


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid samples of float (B,) with bool (B,); 0, with a gradient of 0, where none is valid."""
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy with a clip's labels, (B, C) each; a clip without labels is excluded from the mean.

    Several labels, as at the boundary of two actions, share the target evenly.
    """
    shown = labels.float()
    count = shown.sum(1)
    per_clip = -(shown * F.log_softmax(logits.float(), dim=1)).sum(1) / count.clamp(min=1)
    return masked_mean(per_clip, count > 0)


def binary(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid cross-entropy averaged over all classes, (B, C) each; a clip without labels is all negatives."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


def distill(student: Tensor, teacher: Tensor, valid: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), logits (B, C), over valid samples (bool (B,))."""
    return masked_mean(temperature**2 * divergence(teacher / temperature, student / temperature), valid)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) in nats, without gradient to the teacher: logits (B, C) -> (B,)."""
    log_p, log_q = F.log_softmax(teacher.detach().float(), dim=1), F.log_softmax(student.float(), dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def paint(boxes: Tensor, side: int, target: Literal["soft", "hard"] = "soft") -> Tensor:
    """Hand and object maps: (B, T, K, 6) of (kind, x1, y1, x2, y2, score) -> (B, 2, T, side, side).

    A box fills the cells from the one that contains its first corner to the one that contains its second, both
    included, with its score (or 1); where boxes overlap, the larger value is kept.
    """
    kind, x1, y1, x2, y2, score = boxes.unbind(-1)  # (B, T, K)
    first_x, first_y, last_x, last_y = ((v * side).floor().clamp(0, side - 1)[..., None] for v in (x1, y1, x2, y2))
    cell = torch.arange(side, device=boxes.device)
    columns, rows = (first_x <= cell) & (cell <= last_x), (first_y <= cell) & (cell <= last_y)  # (B, T, K, side)
    covered = rows[..., :, None] & columns[..., None, :]  # (B, T, K, side, side)
    value = torch.ones_like(score) if target == "hard" else score
    filled = covered * value[..., None, None]
    channels = [(filled * (kind == k)[..., None, None]).amax(2) for k in (HAND, OBJECT)]
    return torch.stack(channels, dim=1)


def map_error(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of one channel of the map, (B, T, h, w) each, averaged over cells and valid samples.

    With soft targets its minimum is the target's own entropy.
    """
    error = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return masked_mean(error.flatten(1).mean(1), valid)


def probability_divergence(target: Tensor, prediction: Tensor, *, binary: bool) -> Tensor:
    """Mean KL(target || prediction) in nats of probabilities (n, C) or, with `binary`, of any shape.

    Predicted probabilities are clamped to at least 1e-7.
    """
    q = prediction.clamp(1e-7, 1)
    terms = target.xlogy(target) - target * q.log()
    if not binary:
        return terms.sum(1).mean()
    rest, other = 1 - target, (1 - prediction).clamp(1e-7, 1)
    return (terms + rest.xlogy(rest) - rest * other.log()).mean()
