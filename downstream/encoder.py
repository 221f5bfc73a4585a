"""The clip embeddings of a method, as a part of a downstream model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.method import Method

Weights = Literal["trained", "random", "input"]


class ClipEncoder(nn.Module):
    """Clips to vectors: a method's `embed_clip`, or with `weights` "input" what that is compared with.

    The latter is its first baseline, such as the frozen features that it reads, averaged over time; nothing of it is
    trained.
    """

    def __init__(self, method: Method, weights: Weights = "trained") -> None:
        super().__init__()
        self.method, self.weights = method, weights
        baselines = method.baselines()
        self.has_input = bool(baselines)
        """Whether there is what `weights` "input" asks for."""
        if weights == "input" and not baselines:
            raise UserError(
                "encoder.weights is 'input', but this method has no baseline that embeds its input; choose 'random'"
            )
        self._baseline = next(iter(baselines.values())) if weights == "input" else None
        if weights == "input":
            method.requires_grad_(False)
        with torch.enable_grad():
            vector = self(method.clip_input())
        self.width = int(vector.shape[1])
        """Channels of a vector (D)."""
        self._leave_out_unused(vector)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 (B, T, 3, H, W) or features (B, T, N, D) -> float32 (B, D)."""
        if self._baseline is not None:
            return self._baseline(clips).mean(1).float()
        return self.method.embed_clip(clips).float()

    def _leave_out_unused(self, vector: Tensor) -> None:
        """Freeze parameters that no vector depends on, such as a loss's scale: DDP waits for all gradients."""
        trained = [p for p in self.parameters() if p.requires_grad]
        if not trained or not vector.requires_grad:
            return
        found = torch.autograd.grad(vector.sum(), trained, allow_unused=True)
        for parameter, gradient in zip(trained, found, strict=True):
            parameter.requires_grad_(gradient is not None)

    def freeze(self) -> ClipEncoder:
        """Keep all of it as it is: its parameters, and in training its dropout and running statistics."""
        self.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> ClipEncoder:
        """In train mode only where something of it is trained."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))
