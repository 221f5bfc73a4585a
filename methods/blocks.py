"""Transformer blocks and the sin-cos code that the methods share."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from crossview.errors import UserError


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width is {width} and heads is {heads}; heads must divide the width")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """(B, L, D) -> (B, L, D); with `causal` position t attends to positions up to t."""
        q, k, v = rearrange(self.qkv(x), "B L (qkv heads D) -> qkv B heads L D", qkv=3, heads=self.heads)
        x = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.proj(rearrange(x, "B heads L D -> B L (heads D)"))


class Block(nn.Module):
    """A pre-norm Transformer block (Dosovitskiy et al., ICLR 2021), without dropout."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x = x + self.attn(self.norm1(x), causal=causal)
        return x + self.mlp(self.norm2(x))


def xavier_init(module: nn.Module) -> None:
    """Xavier-uniform weights, zero biases in a linear layer, as in MAE (He et al., CVPR 2022), for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sincos(position: Tensor, width: int) -> Tensor:
    """Sine and cosine code of any real position (Vaswani et al., 2017): (...) -> float32 (..., width), width even."""
    if width % 2:
        raise UserError(f"the width of a sin-cos code is {width}; it must be even")
    exponent = torch.arange(width // 2, device=position.device, dtype=torch.float32) / (width // 2)
    angle = position.to(torch.float32)[..., None] * torch.exp(-math.log(10_000.0) * exponent)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
