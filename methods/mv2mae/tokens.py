"""Clips to tokens and back, masks, normalised targets and position codes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from crossview.methods import noise
from crossview.methods.blocks import sincos
from crossview.methods.mv2mae.config import Config, Masking

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, for pixels in 0-1."""


def patchify(video: Tensor, config: Config) -> Tensor:
    """(B, T, 3, H, W) -> (B, N, P): tokens by time, row, column; values by frame, row, column, colour."""
    return rearrange(
        video,
        "B (t f) C (h p) (w q) -> B (t h w) (f p q C)",
        f=config.tubelet,
        p=config.patch_px,
        q=config.patch_px,
    )


def unpatchify(tokens: Tensor, config: Config) -> Tensor:
    """The inverse of `patchify`: (B, N, P) -> (B, T, 3, H, W)."""
    side = config.size_px // config.patch_px
    return rearrange(
        tokens,
        "B (t h w) (f p q C) -> B (t f) C (h p) (w q)",
        f=config.tubelet,
        p=config.patch_px,
        q=config.patch_px,
        h=side,
        w=side,
    )


def standardised(video: Tensor) -> Tensor:
    """Pixels in [0, 255], standardised by ImageNet's mean and standard deviation: float32 (..., 3, H, W)."""
    mean, std = (torch.tensor(v, device=video.device).view(3, 1, 1) for v in (MEAN, STD))
    return torch.addcmul(-mean / std, video.to(torch.float32), 1 / (255 * std))


def moments(tokens: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased, plus 1e-6) that `target_norm` removes: (B, N, P) -> 2 x (B, N, P or 1).

    "token" gives one value per token; "channel" one per colour, repeated over the token.
    """
    if kind == "token":
        return tokens.mean(-1, keepdim=True), tokens.var(-1, keepdim=True).sqrt() + 1e-6
    colours = rearrange(tokens, "B N (i C) -> B N i C", C=3)
    mean = colours.mean(2, keepdim=True).expand_as(colours)
    std = (colours.var(2, keepdim=True).sqrt() + 1e-6).expand_as(colours)
    return mean.flatten(2), std.flatten(2)


class Split(NamedTuple):
    """Indices of the masked and visible tokens of a clip, in grid order; every sample has the same number of each."""

    hidden: Tensor
    """int64 (B, M)."""
    visible: Tensor
    """int64 (B, N - M)."""

    @property
    def order(self) -> Tensor:
        """Index of each grid token in the sequence of visible, then masked tokens: int64 (B, N)."""
        return torch.cat([self.visible, self.hidden], dim=1).argsort(dim=1)


def split(seed: Tensor, masking: Masking, times: int, places: int, stream: int) -> Split:
    """A random mask per seed, int64 (B,): a pure function of the sample's seed and `stream`."""
    draws = noise.uniform(seed, places if masking.kind == "tube" else times * places, stream)
    count = masking.count(times, places)
    if masking.kind == "tube":
        count //= times
    hidden, visible = (part.sort(dim=1).values for part in draws.argsort(dim=1, stable=True).tensor_split([count], 1))
    if masking.kind == "tube":
        start = torch.arange(times, device=seed.device)[None, :, None] * places
        hidden, visible = ((part[:, None] + start).flatten(1) for part in (hidden, visible))
    return Split(hidden, visible)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens at `index`: (B, N, D) and (B, n) -> (B, n, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def positions(config: Config, width: int) -> Tensor:
    """Fixed position code of every token, float32 (N, width)."""
    if config.positions == "index":
        return sincos(torch.arange(config.tokens), width)
    side = config.size_px // config.patch_px
    lengths = (config.grid[0], side, side)
    index = torch.meshgrid(*(torch.arange(n) for n in lengths), indexing="ij")
    angles = []
    for place, n in zip(index, lengths, strict=True):
        waves = torch.logspace(0, math.log2(max(2, n)), width // 6, base=2)  # half-waves along the axis: 1 to n
        angles.append((place.flatten()[:, None] + 0.5) / n * math.pi * waves)
    angle = torch.cat(angles, dim=1)
    return nn.functional.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, width - 2 * angle.shape[1]))
