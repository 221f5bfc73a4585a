"""Weights of the token errors, from frame differences of the input pixels (equation 2)."""

from __future__ import annotations

import math

import torch
from einops import rearrange, reduce
from torch import Tensor

from crossview.methods.mv2mae.config import Config, Motion
from crossview.methods.mv2mae.tokens import STD


@torch.no_grad()
def differences(video: Tensor, config: Config) -> Tensor:
    """The norm of each token's absolute frame differences: pixels in [0, 255], (B, T, 3, H, W) -> float32 (B, N)."""
    motion = config.motion
    x = video.to(torch.float32)
    step = (x[:, 1:] - x[:, :-1]).square_()
    patch = config.patch_px
    later = reduce(step, "B t C (h p) (w q) -> B t C h w", "mean", p=patch, q=patch)  # t = T - 1
    if motion.scale == "standardised":
        later = later / torch.tensor(STD, device=x.device).square().view(3, 1, 1)
    first = later[:, :1] if motion.first_frame == "copy" else torch.zeros_like(later[:, :1])
    square = reduce(torch.cat([first, later], dim=1), "B (t f) C h w -> B (t h w)", "mean", f=config.tubelet)
    unit = 1.0 if motion.scale == "0-255" else 1 / 255
    return square.sqrt() * (unit if motion.norm == "rms" else unit * math.sqrt(config.token_values))


@torch.no_grad()
def weigh(norms: Tensor, motion: Motion) -> Tensor:
    """Softmax weights of the tokens: (B, M) -> float32 (B, M), with mean 1, or sum 1 without `rescale`."""
    if motion.temperature is None:
        return torch.ones_like(norms)
    weights = (norms.float() / motion.temperature).softmax(dim=1)
    return weights * norms.shape[1] if motion.rescale else weights


def effective(weights: Tensor) -> Tensor:
    """Effective number of tokens, from 1 to M (Kish's effective sample size): (B, M) -> (B,)."""
    return weights.sum(1).square() / weights.square().sum(1)


def grid_map(values: Tensor, config: Config) -> Tensor:
    """One value per token as a map per tubelet: (B, N) -> (B, t, h, w)."""
    side = config.size_px // config.patch_px
    return rearrange(values, "B (t h w) -> B t h w", h=side, w=side)
