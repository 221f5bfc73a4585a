"""Encodes the frames of a clip into one class token per layer."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from crossview.methods.blocks import xavier_init
from crossview.methods.evgap.config import Encoder


class Attention(nn.Module):
    """Multi-head attention from the first tokens to all, with dropout on the weights; PyTorch's fused kernel."""

    def __init__(self, config: Encoder) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, keys: Tensor | None, queries: int | None) -> Tensor:
        """(n, S, D) and bool (n, S), or None for all keys -> (n, queries, D); `queries` None stands for all S."""
        q = rearrange(self.query(x[:, :queries]), "n q (h d) -> n h q d", h=self.heads)
        k, v = rearrange(self.key_value(x), "n s (two h d) -> two n h s d", two=2, h=self.heads)
        mask = None if keys is None else keys[:, None, None]
        dropout = self.dropout if self.training else 0.0
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(rearrange(y, "n h q d -> n q (h d)"))


class Layer(nn.Module):
    """One Transformer layer: post-norm (Vaswani et al., 2017), PyTorch's default, or pre-norm."""

    def __init__(self, config: Encoder) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = Attention(config)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.feed = nn.Sequential(
            nn.Linear(config.width, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.width),
            nn.Dropout(config.dropout),
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, keys: Tensor | None, queries: int | None = None) -> Tensor:
        """(n, S, D) -> (n, S, D), or (n, queries, D): only the first `queries` tokens."""
        if self.pre:
            x = x[:, :queries] + self.drop(self.attention(self.norm1(x), keys, queries))
            return x + self.feed(self.norm2(x))
        x = self.norm1(x[:, :queries] + self.drop(self.attention(x, keys, queries)))
        return self.norm2(x + self.feed(x))


class ClipEncoder(nn.Module):
    """The encoder shared by ego and exo clips: projection, class token, learned positions, Transformer layers.

    Positions encode relative time in the clip: a clip of `frames` frames has one row of the table per frame, and
    longer and shorter clips interpolate between the rows. Only the class token of the last layer is used, so its other
    tokens are not computed.
    """

    rows: Tensor

    def __init__(self, features: int, frames: int, config: Encoder) -> None:
        super().__init__()
        self.project = nn.Linear(features, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        pre = config.norm == "pre"
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) if pre else nn.Identity() for _ in range(config.depth))
        self.apply(xavier_init)
        self.token = nn.Parameter(0.02 * torch.randn(config.width))
        self.positions = nn.Parameter(0.02 * torch.randn(1 + frames, config.width))
        """The class token's position, then one per frame of a clip of nominal length."""
        self.drop = nn.Dropout(config.dropout)
        self.register_buffer("rows", torch.arange(frames, dtype=torch.float32), persistent=False)

    def depths(self) -> list[list[nn.Parameter]]:
        """Parameters of the input's embedding, then of each layer with the norm of its class token."""
        lowest = [*self.project.parameters(), self.token, self.positions]
        both = zip(self.layers, self.norms, strict=True)
        return [lowest, *([*layer.parameters(), *norm.parameters()] for layer, norm in both)]

    def forward(self, features: Tensor, length: Tensor | None = None) -> Tensor:
        """Frame features (n, T, F), of which the first length (n,) are valid -> class tokens (layers, n, D)."""
        return self.clips(self.project(features), length)

    def clips(self, frames: Tensor, length: Tensor | None = None) -> Tensor:
        """Projected frames (n, T, D) -> class tokens (layers, n, D)."""
        n, T, _ = frames.shape
        x = frames + self._code(frames, length)
        first = (self.token + self.positions[0]).expand(n, 1, -1)
        x = self.drop(torch.cat([first.to(x.dtype), x], dim=1))  # (n, 1 + T, D)
        keys = None if length is None else torch.arange(1 + T, device=x.device) <= length[:, None]
        tokens = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(x, keys, 1 if layer is self.layers[-1] else None)
            tokens.append(norm(x[:, 0]))
        return torch.stack(tokens)

    def _code(self, frames: Tensor, length: Tensor | None) -> Tensor:
        """Positions, interpolated linearly between the table's rows: (1 or n, T, D)."""
        T, count = frames.shape[1], len(self.rows)
        whole = frames.new_full((1,), T, dtype=torch.float32) if length is None else length.to(torch.float32)
        share = (torch.arange(T, device=frames.device) + 0.5) / whole[:, None]  # (1 or n, T)
        place = (share * count - 0.5).clamp(0, count - 1)
        return (1 - (place[..., None] - self.rows).abs()).clamp(min=0) @ self.positions[1:]
