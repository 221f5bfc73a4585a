"""C2F-TCN (Singhania et al., arXiv 2105.10859): a temporal U-Net with an ensemble of its decoder's heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossview.downstream.segmentation.masked_layers import MaskedBatchNorm, prefix, resample
from crossview.downstream.segmentation.segmenter import SegmentationModel, at_least, check_batch
from crossview.errors import UserError

POOLS = (2, 3, 5, 6)
"""Pooling sizes of the pyramid at the coarsest level."""
TINY = 1e-10
"""Keeps the logarithm of a probability finite."""


class C2FTCN(SegmentationModel):
    """Convolutions over time at ever coarser levels and back; every level on the way back has a head.

    Batch statistics count only real steps and levels have each video's own length, so padding changes nothing. (The
    released code normalises, pools and interpolates the zeros after a video along with it.) A video that is shorter
    than the coarsest pool covers counts as followed by empty steps, which enter no statistics. There are six parameters
    fewer than the authors', whose vector of head weights nothing reads.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        widths: Sequence[int] = (256, 256, 256, 128, 128, 128, 128),
        up_width: int = 128,
        kernel: int = 5,
        ensemble: Sequence[float] = (1, 1, 1, 1, 1, 1),
        smoothing: float = 0.17,
    ) -> None:
        """`widths` are the encoder's channels from the finest level on, `ensemble` the heads' weights, finest first."""
        super().__init__(dim, classes, smoothing)
        for width in (*widths, up_width):
            at_least("width", width, 1)
        if len(widths) < 2:
            raise UserError(f"widths are {tuple(widths)}; there must be at least two levels")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"kernel is {kernel}; it must be odd, so that a step has as many neighbours on either side")
        if len(ensemble) != len(widths) - 1 or min(ensemble) < 0 or sum(ensemble) <= 0:
            raise UserError(
                f"ensemble is {tuple(ensemble)}; it must be {len(widths) - 1} weights, one per head, none below 0 and "
                "not all 0"
            )
        self.ensemble = tuple(weight / sum(ensemble) for weight in ensemble)
        self.least = 2 ** (len(widths) - 1) * max(POOLS)
        """Steps that the coarsest pool covers."""
        self.down = nn.ModuleList(ConvBlock(a, b, kernel) for a, b in zip((dim, *widths), widths, strict=False))
        self.pyramid = nn.Conv1d(widths[-1], 1, 1)
        below = [*[up_width] * (len(widths) - 2), widths[-1] + len(POOLS)]  # what comes up to each level, finest first
        self.up = nn.ModuleList(
            ConvBlock(skip + up, up_width, kernel) for skip, up in zip(widths[:-1], below, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv1d(up_width, classes, 1) for _ in self.up)

    def forward(self, features: Tensor, mask: Tensor) -> list[Tensor]:
        """(B, T, D) -> logits (B, T_k, C) of the heads, finest first: T_0 = T, T_k = max(T, least) // 2^k."""
        check_batch(features, mask, self.dim)
        steps, masks = self._levels(mask)
        short = max(0, self.least - features.shape[1])
        x = functional.pad((features * mask[..., None]).transpose(1, 2), (0, short))  # (B, D, T)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool1d(x, 2) if level else x, masks[level])
            skips.append(x)
        x = torch.cat([self._pooled(x, steps[-1]), skips.pop()], 1)
        outputs = []
        for level in reversed(range(len(self.up))):
            skip = skips.pop()
            x = resample(x, steps[level + 1], 2 * steps[level + 1], skip.shape[2])
            x = self.up[level](torch.cat([skip, x], 1), masks[level])  # (B, up_width, T_k)
            outputs.append((self.heads[level](x) * masks[level]).transpose(1, 2))
        outputs.reverse()
        return [outputs[0][:, : features.shape[1]], *outputs[1:]]

    def probabilities(self, outputs: Sequence[Tensor], mask: Tensor) -> Tensor:
        """(B, T, C): the weighted mean of the heads' softmax, coarse heads' logits interpolated to T steps first."""
        steps = self._steps(mask)
        total = torch.zeros_like(outputs[0])
        for level, (logits, weight) in enumerate(zip(outputs, self.ensemble, strict=True)):
            if level:
                x = resample(logits.transpose(1, 2), steps[level], steps[0], mask.shape[1])
                logits = x.transpose(1, 2)  # (B, T, C)
            total = total + weight * logits.softmax(-1)
        return total * mask[..., None]

    def log_probabilities(self, outputs: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
        """One (B, T, C): the loss is that of the ensemble."""
        return [(self.probabilities(outputs, mask) + TINY).log()]

    def _steps(self, mask: Tensor) -> list[Tensor]:
        """Each video's steps (B,) by level, as though its batch held no longer one."""
        longest = mask.sum(1).clamp_min(self.least)
        return [longest >> level for level in range(len(self.down))]

    def _levels(self, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Each video's steps (B,) by level, and the masks (B, 1, T_k) of those that hold a real step."""
        size, real = max(mask.shape[1], self.least), mask.sum(1)
        steps = self._steps(mask)
        masks = []
        for level, count in enumerate(steps):
            whole = (real + 2**level - 1) >> level  # a step that is real in part counts where the video is short
            masks.append(prefix(whole.minimum(count), size >> level)[:, None].float())
        return steps, masks

    def _pooled(self, x: Tensor, steps: Tensor) -> Tensor:
        """(B, D, S) -> the pyramid's channels (B, len(POOLS), S)."""
        levels = [
            resample(self.pyramid(functional.max_pool1d(x, pool)), steps // pool, steps, x.shape[2]) for pool in POOLS
        ]
        return torch.cat(levels, 1)


class ConvBlock(nn.Module):
    """Twice: convolution, batch norm, ReLU."""

    def __init__(self, width_in: int, width: int, kernel: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(a, width, kernel, padding=kernel // 2) for a in (width_in, width))
        self.norms = nn.ModuleList(MaskedBatchNorm(width) for _ in self.convs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T) -> (B, width, T)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x * mask), mask).relu()  # masked: a pooled step may end in padding
        return x
