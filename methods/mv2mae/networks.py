"""The shared encoder, the same-view decoder and the cross-view decoder."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from crossview.methods.blocks import xavier_init
from crossview.methods.mv2mae.config import Config, Transformer
from crossview.methods.mv2mae.tokens import Split, positions

_EPS = 1e-6


def _heads(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "B L (heads D) -> B heads L D", heads=heads)


def _mlp(stack: Transformer) -> nn.Sequential:
    hidden = round(stack.width * stack.mlp_ratio)
    return nn.Sequential(nn.Linear(stack.width, hidden), nn.GELU(), nn.Linear(hidden, stack.width))


class SelfAttention(nn.Module):
    """Multi-head self-attention without a key bias, which would have no effect, as in VideoMAE."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = (_heads(part, self.heads) for part in nn.functional.linear(x, self.qkv.weight, bias).chunk(3, dim=-1))
        return self.proj(rearrange(nn.functional.scaled_dot_product_attention(q, k, v), "B heads L D -> B L (heads D)"))


class CrossAttention(nn.Module):
    """Multi-head attention from one sequence to another; all four linear layers have a bias, as in CroCo."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, L, D) and (B, S, D) -> (B, L, D)."""
        q, k, v = (_heads(part, self.heads) for part in (self.q(x), self.k(memory), self.v(memory)))
        return self.proj(rearrange(nn.functional.scaled_dot_product_attention(q, k, v), "B heads L D -> B L (heads D)"))

    def map(self, x: Tensor, memory: Tensor) -> Tensor:
        """Attention weights, (B, heads, L, S) with rows that sum to 1, which the fused kernel does not return."""
        q, k = _heads(self.q(x), self.heads), _heads(self.k(memory), self.heads)
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


class DropPath(nn.Module):
    """Randomly drops a residual branch for whole samples (Huang et al., ECCV 2016)."""

    def __init__(self, chance: float = 0.0) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        if not self.training or not self.chance:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.chance
        return x * keep / (1 - self.chance)


class Block(nn.Module):
    """A pre-norm Transformer block."""

    def __init__(self, stack: Transformer) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(stack.width, eps=_EPS)
        self.attn = SelfAttention(stack.width, stack.heads)
        self.norm2 = nn.LayerNorm(stack.width, eps=_EPS)
        self.mlp = _mlp(stack)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CrossBlock(nn.Module):
    """Pre-norm self-attention, cross-attention to a memory that is not updated, and MLP: CroCo's decoder block."""

    def __init__(self, stack: Transformer) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(stack.width, eps=_EPS)
        self.attn = SelfAttention(stack.width, stack.heads)
        self.norm2 = nn.LayerNorm(stack.width, eps=_EPS)
        self.norm_memory = nn.LayerNorm(stack.width, eps=_EPS)
        self.cross = CrossAttention(stack.width, stack.heads)
        self.norm3 = nn.LayerNorm(stack.width, eps=_EPS)
        self.mlp = _mlp(stack)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, L, D) and (B, S, D) -> (B, L, D)."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross(self.norm2(x), self.norm_memory(memory))
        return x + self.mlp(self.norm3(x))

    def map(self, x: Tensor, memory: Tensor) -> Tensor:
        """The cross-attention weights for the same inputs, (B, heads, L, S)."""
        x = x + self.attn(self.norm1(x))
        return self.cross.map(self.norm2(x), self.norm_memory(memory))


class Encoder(nn.Module):
    """Tokens of any view -> latents, with joint space-time attention over the tokens that are passed in."""

    positions: Tensor

    blocks: nn.ModuleList
    norm: nn.Module

    def __init__(self, config: Config) -> None:
        super().__init__()
        stack = config.encoder
        self.embed = nn.Linear(config.token_values, stack.width)
        self.blocks = nn.ModuleList(Block(stack) for _ in range(stack.depth))
        self.norm = nn.LayerNorm(stack.width, eps=_EPS)
        self.register_buffer("positions", positions(config, stack.width), persistent=False)
        self.apply(xavier_init)

    def fine_tune(self, drop_path: float) -> None:
        """Leave the norm out, and drop residual branches with a chance that grows from 0 in the first block."""
        self.norm = nn.Identity()
        chance = drop_path / max(1, len(self.blocks) - 1)
        for i, block in enumerate(self.blocks):
            block.drop_path.chance = chance * i  # type: ignore[union-attr]

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters of the token embedding, then of each block; the last norm, where there is one, with the last."""
        layers = [list(part.parameters()) for part in (self.embed, *self.blocks)]
        layers[-1] += self.norm.parameters()
        return layers

    def forward(self, tokens: Tensor, index: Tensor | None = None) -> Tensor:
        """Tokens at the positions `index` (B, n), or all tokens in order: (B, n, P) -> (B, n, D)."""
        x = self.embed(tokens) + (self.positions if index is None else self.positions[index])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _Decoder(nn.Module):
    """Common parts of both decoders: a projection, a mask token, position codes and a head, with separate weights."""

    positions: Tensor

    def __init__(self, config: Config, stack: Transformer, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.project = nn.Linear(config.encoder.width, stack.width, bias=False)
        self.mask_token = nn.Parameter(torch.empty(stack.width))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(stack.width, eps=_EPS)
        self.head = nn.Linear(stack.width, config.token_values)
        self.register_buffer("positions", positions(config, stack.width), persistent=False)
        self.apply(xavier_init)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def sequence(self, latents: Tensor, split: Split) -> Tensor:
        """The whole clip, visible tokens first: latents (B, N - M, D) -> (B, N, width). Attention ignores the order."""
        visible = self.project(latents) + self.positions[split.visible]
        hidden = self.mask_token + self.positions[split.hidden]
        return torch.cat([visible, hidden.to(visible.dtype)], dim=1)

    def predict(self, x: Tensor, split: Split) -> Tensor:
        """Values of the masked tokens: (B, N, width) -> (B, M, P)."""
        return self.head(self.norm(x[:, split.visible.shape[1] :]))


class SameDecoder(_Decoder):
    """Visible tokens of a clip -> its masked tokens: MAE's decoder."""

    def __init__(self, config: Config) -> None:
        stack = config.same_decoder
        super().__init__(config, stack, [Block(stack) for _ in range(stack.depth)])

    def forward(self, latents: Tensor, split: Split) -> Tensor:
        """(B, N - M, D) -> (B, M, P)."""
        x = self.sequence(latents, split)
        for block in self.blocks:
            x = block(x)
        return self.predict(x, split)


class CrossDecoder(_Decoder):
    """Visible tokens of the target and, as memory, of the source -> masked tokens of the target."""

    def __init__(self, config: Config) -> None:
        stack = config.cross_decoder
        super().__init__(config, stack, [CrossBlock(stack) for _ in range(stack.depth)])

    def forward(self, latents: Tensor, split: Split, source: Tensor, visible: Tensor) -> Tensor:
        """Latents of the target (B, N - M, D) and of the source at `visible` (B, S, D) -> (B, M, P)."""
        x, memory = self.sequence(latents, split), self._memory(source, visible)
        for block in self.blocks:
            x = block(x, memory)
        return self.predict(x, split)

    def attention(self, latents: Tensor, split: Split, source: Tensor, visible: Tensor, layer: int = -1) -> Tensor:
        """Attention of every target token, in grid order, to the source's visible tokens: (B, heads, N, S)."""
        x, memory = self.sequence(latents, split), self._memory(source, visible)
        chosen = range(len(self.blocks))[layer]
        for block in list(self.blocks)[:chosen]:
            x = block(x, memory)
        attention = self.blocks[chosen].map(x, memory)  # type: ignore[operator]
        rows = split.order[:, None, :, None].expand(-1, attention.shape[1], -1, attention.shape[3])
        return attention.gather(2, rows)

    def _memory(self, source: Tensor, visible: Tensor) -> Tensor:
        return self.project(source) + self.positions[visible]
