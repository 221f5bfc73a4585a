"""Layers for padded sequences (B, C, T): normalisation, resampling and attention that see only the real steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5
"""Added to variances, PyTorch's default."""


class MaskedBatchNorm(nn.Module):
    """Batch normalisation whose statistics count only real steps; output at padded steps is 0.

    Without padding it equals `nn.BatchNorm1d`. A batch of a single real step, which has no variance, leaves the
    running statistics as they are.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T) with a mask (B, 1, T) of 0 and 1 -> (B, C, T)."""
        if self.training:
            mean, variance, count = moments(x, mask, (0, 2))
            self._track(mean.detach(), variance.detach(), count)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance + EPSILON).rsqrt()
        return (x * scale[:, None] + (self.bias - mean * scale)[:, None]) * mask

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        momentum = self.momentum * (count > 1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        unbiased = variance * count / (count - 1).clamp_min(1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def moments(x: Tensor, mask: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and count of the real steps of (B, C, T) over these dimensions."""
    count = mask.sum(over).clamp_min(1)
    mean = (x * mask).sum(over, keepdim=True) / mask.sum(over, keepdim=True).clamp_min(1)
    variance = ((x - mean) * mask).square().sum(over) / count
    return mean.squeeze(over), variance, count


def instance_norm(x: Tensor, mask: Tensor) -> Tensor:
    """Each channel of each video to mean 0 and variance 1 over its real steps: (B, C, T) -> (B, C, T)."""
    mean, variance, _ = moments(x, mask, (2,))  # (B, C)
    return (x - mean[..., None]) * (variance + EPSILON).rsqrt()[..., None] * mask


def resample(x: Tensor, source: Tensor, target: Tensor, size: int) -> Tensor:
    """Linear interpolation of each video's first `source` steps to `target` steps, first and last step kept.

    (B, C, S) with lengths int64 (B,), at least 1 -> (B, C, size), 0 from each video's `target` on.
    """
    at = torch.arange(size, device=x.device).minimum(target[:, None] - 1)  # (B, size)
    steps = (target - 1).clamp_min(1)[:, None]
    scaled = at * (source - 1)[:, None]  # whole numbers: positions are exact at any length
    low = scaled // steps
    part = ((scaled - low * steps) / steps).to(x.dtype)[:, None]
    high = (low + 1).minimum(source[:, None] - 1)

    def steps_at(index: Tensor) -> Tensor:
        return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))

    return torch.lerp(steps_at(low), steps_at(high), part) * prefix(target, size)[:, None]


def prefix(lengths: Tensor, size: int) -> Tensor:
    """The mask of these lengths: int64 (B,) -> bool (B, size)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, dropout: float = 0.0) -> Tensor:
    """Fused attention to the allowed keys alone; a query without any, which is padding, attends to all of them."""
    allowed = allowed | ~allowed.any(-1, keepdim=True)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)


def query_windows(x: Tensor, queries: int) -> Tensor:
    """(B, T, D) -> consecutive windows (B, N, queries, D), the last one filled with zeros."""
    return functional.pad(x, (0, 0, 0, -x.shape[1] % queries)).unflatten(1, (-1, queries))


def key_windows(x: Tensor, queries: int, margin: int) -> Tensor:
    """(B, T, D) -> the query windows with `margin` more steps on either side, (B, N, queries + 2 margin, D)."""
    padded = functional.pad(x, (0, 0, margin, margin + -x.shape[1] % queries))
    return padded.unfold(1, queries + 2 * margin, queries).transpose(2, 3)
