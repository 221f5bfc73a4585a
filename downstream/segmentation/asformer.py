"""ASFormer (Yi et al., BMVC 2021, arXiv 2110.08568): attention in windows that double from layer to layer."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from crossview.downstream.segmentation.masked_layers import attend, instance_norm, key_windows, query_windows
from crossview.downstream.segmentation.segmenter import SegmentationModel, at_least, check_batch, share
from crossview.errors import UserError

Window = Literal["band", "column"]
QUERIES = 64
"""Least number of queries per window: narrower ones share a window, which costs less than many small ones."""


class ASFormer(SegmentationModel):
    """An encoder labels the features and decoders refine the labels, stage by stage.

    Instance norms count only real steps and padded keys get no weight at all, so padding changes nothing. (The
    released code takes one video at a time, and gives padded keys a weight of about 1e-6.)
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        width: int = 64,
        layers: int = 10,
        decoders: int = 3,
        reduction: int = 2,
        window: Window = "band",
        input_dropout: float = 0.3,
        dropout: float = 0.5,
        smoothing: float = 0.15,
    ) -> None:
        """`window` says which keys a query sees, see `window_mask`; `input_dropout` drops whole channels."""
        super().__init__(dim, classes, smoothing)
        for name, value in (("width", width), ("layers", layers), ("reduction", reduction)):
            at_least(name, value, 1)
        at_least("decoders", decoders, 0)
        share("input_dropout", input_dropout)
        share("dropout", dropout)
        if width % reduction:
            raise UserError(f"width is {width} and reduction is {reduction}; the reduction must divide the width")
        if window not in ("band", "column"):
            raise UserError(f"window is {window!r}; it must be band or column")
        self.input_dropout = nn.Dropout1d(input_dropout)
        self.stages = nn.ModuleList(
            Stage(classes if stage else dim, classes, width, layers, reduction, window, dropout)
            for stage in range(1 + decoders)
        )

    def forward(self, features: Tensor, mask: Tensor) -> list[Tensor]:
        """(B, T, D) -> logits (B, T, C) of the encoder and each decoder."""
        check_batch(features, mask, self.dim)
        real = mask[:, None].to(features.dtype)  # (B, 1, T)
        x: Tensor = self.input_dropout(features.transpose(1, 2)) * real
        feature: Tensor | None = None
        outputs = []
        for number, stage in enumerate(self.stages):
            weight = math.exp(-3 * (number - 1)) if number else 1.0
            logits, feature = stage(x, feature, mask, weight)
            outputs.append(logits.transpose(1, 2))
            x = logits.softmax(1) * real
        return outputs


class Stage(nn.Module):
    """The encoder or a decoder: layers with windows of 1, 2, 4, ... steps, and a classifier."""

    def __init__(
        self, width_in: int, classes: int, width: int, layers: int, reduction: int, window: Window, dropout: float
    ) -> None:
        super().__init__()
        self.project = nn.Conv1d(width_in, width, 1)
        self.layers = nn.ModuleList(Layer(width, 2**layer, reduction, window, dropout) for layer in range(layers))
        self.classify = nn.Conv1d(width, classes, 1)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """(B, D, T) and the previous stage's feature (B, width, T) -> logits (B, C, T), feature (B, width, T)."""
        x = self.project(x) * mask[:, None]
        for layer in self.layers:
            x = layer(x, previous, mask, weight)
        return self.classify(x) * mask[:, None], x


class Layer(nn.Module):
    """A dilated convolution, then attention in windows as wide as the dilation."""

    def __init__(self, width: int, block: int, reduction: int, window: Window, dropout: float) -> None:
        super().__init__()
        self.block, self.window = block, window
        self.conv = nn.Conv1d(width, width, 3, padding=block, dilation=block)
        self.query, self.key, self.value = (nn.Conv1d(width, width // reduction, 1) for _ in range(3))
        self.out = nn.Conv1d(width // reduction, width, 1)
        self.project = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor, weight: float) -> Tensor:
        """(B, D, T) -> (B, D, T); values are of the previous stage's feature, if there is one."""
        real = mask[:, None]
        y = self.conv(x).relu()
        normed = instance_norm(y, real.to(y.dtype))
        values = normed if previous is None else previous
        q, k, v = (
            conv(of).transpose(1, 2)  # (B, T, D / reduction)
            for conv, of in ((self.query, normed), (self.key, normed), (self.value, values))
        )
        attended = windowed_attention(q, k, v, mask, self.block, self.window)
        y = y + weight * self.out(attended.transpose(1, 2).relu())
        result: Tensor = (x + self.dropout(self.project(y))) * real
        return result


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, block: int, window: Window) -> Tensor:
    """Attention of every step to the real steps of its window: (B, T, D) -> (B, T, D)."""
    queries, margin = max(block, QUERIES), block // 2
    keys = key_windows(mask[..., None], queries, margin).transpose(2, 3)  # (B, N, 1, queries + 2 margin)
    allowed = window_mask(block, queries, window, q.device) & keys
    out = attend(query_windows(q, queries), key_windows(k, queries, margin), key_windows(v, queries, margin), allowed)
    return out.flatten(1, 2)[:, : q.shape[1]]


def window_mask(block: int, queries: int, window: Window, device: torch.device | None = None) -> Tensor:
    """Which keys a query sees: bool (queries, queries + 2 (block // 2)), key j being step j - block // 2 of the window.

    "band": query i sees the `block` steps around it, keys i to i + block - 1, as the paper describes. "column": every
    query of a block sees the union of their bands, as in the authors' code; their released weights need it.
    """
    i = torch.arange(queries, device=device)[:, None]
    j = torch.arange(queries + 2 * (block // 2), device=device)
    if window == "band":
        return (i <= j) & (j < i + block)
    start = i // block * block
    return (start <= j) & (j < start + 2 * block - 1)
