"""The action loss, the distillation of a teacher's scores, and the interaction map's target and loss."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

HAND, OBJECT = 1, 2
"""Kinds of boxes; the map's channels are hand, object."""


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid samples of float (B,) with bool (B,); 0, with a gradient of 0, where none is valid."""
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy with the classes that a clip shows, (B, C) each; a clip that shows none does not count.

    Where it shows several, as at the border of two actions, they share the target evenly.
    """
    shown = labels.float()
    count = shown.sum(1)
    per_clip = -(shown * F.log_softmax(logits.float(), dim=1)).sum(1) / count.clamp(min=1)
    return masked_mean(per_clip, count > 0)


def binary(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid cross-entropy of every class, (B, C) each; a clip without a class is a clip of negatives."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


def distill(student: Tensor, teacher: Tensor, valid: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), logits (B, C), over valid samples (bool (B,))."""
    return masked_mean(temperature**2 * divergence(teacher / temperature, student / temperature), valid)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL divergence of softmax(student) from softmax(teacher) in nats: logits (B, C) -> (B,)."""
    log_p, log_q = F.log_softmax(teacher.detach().float(), dim=1), F.log_softmax(student.float(), dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def paint(boxes: Tensor, side: int, target: Literal["soft", "hard"] = "soft") -> Tensor:
    """Maps of hands and of objects: (B, T, K, 6) of (kind, x1, y1, x2, y2, score) -> (B, 2, T, side, side).

    A box fills the cells from that of its first corner to that of its second, both included, with its score (or 1);
    where boxes overlap the larger value stays.
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
    """Binary cross-entropy of one channel's map, (B, T, h, w) each, a mean over cells and valid samples.

    With soft targets its least value is the target's own entropy.
    """
    error = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return masked_mean(error.flatten(1).mean(1), valid)


def probability_divergence(target: Tensor, prediction: Tensor, *, binary: bool) -> Tensor:
    """Mean KL divergence in nats of `prediction` from `target`, probabilities (n, C) or, with `binary`, of any shape.

    A prediction of 0 counts as 1e-7.
    """
    q = prediction.clamp(1e-7, 1)
    terms = target.xlogy(target) - target * q.log()
    if not binary:
        return terms.sum(1).mean()
    rest, other = 1 - target, (1 - prediction).clamp(1e-7, 1)
    return (terms + rest.xlogy(rest) - rest * other.log()).mean()


def fuse_views(scores: Tensor, how: Literal["sum", "max"]) -> Tensor:
    """Class scores of the test views of a video, as one: (B, V, C) -> (B, C).

    Official: the largest sigmoid on Charades-Ego, the sum of softmaxes elsewhere.
    """
    return scores.amax(1) if how == "max" else scores.sum(1)
