"""BYOV's encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossview.methods.blocks import Block, xavier_init
from crossview.methods.byov import config as options
from crossview.methods.byov.masking import restore


class Encoder(nn.Module):
    """Frame features of either view -> latents (section 3.1); the latents of a complete recording are the embedding."""

    def __init__(self, width_in: int, config: options.Encoder, *, final_norm: bool) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.final_norm = final_norm
        self.apply(xavier_init)

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters of the embedding, then of each block; the norm's belong to the one that it follows."""
        layers = [list(part.parameters()) for part in (self.embed, *self.blocks)]
        layers[-1 if self.final_norm else 0] += self.norm.parameters()
        return layers

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """Any frames in time order, with their time code added: (B, n, D) -> (B, n, width)."""
        x = self.embed(x)
        if not self.final_norm:
            x = self.norm(x)
        for block in self.blocks:
            x = block(x, causal=causal)
        return self.norm(x) if self.final_norm else x


class Decoder(nn.Module):
    """Latents of the visible frames -> features of all frames (sections 3.3 and 3.4)."""

    def __init__(self, width_in: int, width_out: int, config: options.Decoder, *, segments: bool) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, config.width))
        self.mask_token = nn.Parameter(torch.empty(config.width))
        self.segments = nn.Parameter(torch.zeros(2, config.width)) if segments else None
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, width_out)
        self.apply(xavier_init)
        nn.init.normal_(self.mask_token, std=0.02)

    def self_view(self, latents: Tensor, visible: Tensor, code: Tensor, *, causal: bool) -> Tensor:
        """Latents (B, n, D) at `visible` (B, n), time code (B, T, width) -> features (B, T, width_out)."""
        return self._decode(self._fill(latents, visible, code), causal=causal)

    def cross_view(
        self, latents: Tensor, visible: Tensor, code: Tensor, context: Tensor, context_code: Tensor
    ) -> Tensor:
        """As `self_view`, with the other view's complete latents (B, S, D) appended to the target's."""
        target = self._fill(latents, visible, code)
        other = self.embed(context)
        other = other + context_code.to(other.dtype)
        if self.segments is not None:
            target, other = target + self.segments[0], other + self.segments[1]
        return self._decode(torch.cat([target, other], dim=1), causal=False, keep=code.shape[1])

    def _fill(self, latents: Tensor, visible: Tensor, code: Tensor) -> Tensor:
        x = restore(self.embed(latents), visible, self.mask_token, code.shape[1])
        return x + code.to(x.dtype)

    def _decode(self, x: Tensor, *, causal: bool, keep: int | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, causal=causal)
        return self.head(self.norm(x[:, :keep]))
