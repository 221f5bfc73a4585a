"""Classifiers on pooled features, their losses, and learning rates that fall with depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from crossview.errors import UserError

Loss = Literal["softmax", "sigmoid"]
"""softmax is for one class per clip, sigmoid for any number."""


class Heads(nn.Module):
    """A classifier per kind of label on one pooled vector: norm, dropout and a linear layer initialised near 0."""

    def __init__(
        self,
        dim: int,
        classes: Mapping[str, int],
        *,
        loss: Loss = "softmax",
        norm: bool = True,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not classes or min(classes.values()) < (2 if loss == "softmax" else 1):
            raise UserError(f"classes is {dict(classes)} with loss {loss!r}; name label kinds of at least 2 classes")
        if loss == "sigmoid" and label_smoothing:
            raise UserError(
                f"label_smoothing is {label_smoothing} with loss 'sigmoid'; it is for 'softmax': set it to 0"
            )
        self.loss, self.label_smoothing = loss, label_smoothing
        self.norm = nn.LayerNorm(dim, eps=1e-6) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linears = nn.ModuleDict({kind: nn.Linear(dim, count) for kind, count in classes.items()})
        for linear in self.linears.values():
            nn.init.trunc_normal_(linear.weight, std=2e-5)  # type: ignore[arg-type]
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        """Logits by kind: (B, D) -> (B, C)."""
        features = self.dropout(self.norm(pooled))
        return {kind: linear(features) for kind, linear in self.linears.items()}

    def losses(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss by kind, and their sum as "loss"; targets (B, C) may be soft, as those of `shares`."""
        loss = self._cross_entropy if self.loss == "softmax" else nn.functional.binary_cross_entropy_with_logits
        parts = {kind: loss(logits[kind].float(), targets[kind].float()) for kind in self.linears}
        return {"loss": sum(parts.values(), start=next(iter(parts.values())).new_zeros(())), **parts}

    def probabilities(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Probabilities by kind, float32 (B, C)."""
        softmax = self.loss == "softmax"
        return {k: x.float().softmax(-1) if softmax else x.float().sigmoid() for k, x in logits.items()}

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted by a target's sum, so that clips without a label (all zeros) do not count; 0 if none has one."""
        log_p = logits.log_softmax(-1)
        each = -(1 - self.label_smoothing) * (target * log_p).sum(-1)
        each = each - self.label_smoothing * target.sum(-1) * log_p.mean(-1)
        return each.sum() / target.sum().clamp(min=1e-6)


def shares(labels: Tensor) -> Tensor:
    """Softmax targets of multi-hot labels (B, C): float32, equal for the classes that a clip shows; zeros for none."""
    return labels.float() / labels.sum(-1, keepdim=True).clamp(min=1)


def layer_rates(layers: int, decay: float, below: float = 1.0) -> list[float]:
    """Learning rate factors from the lowest layer to the head, which has 1: each `decay` times that of the next.

    All but the head's are multiplied by `below`.

    A ViT of 12 blocks has 14 layers (its embedding, the blocks, the head), with factors from 0.02376 at 0.75
    (VideoMAE).
    """
    return [*(below * decay ** (layers - 1 - i) for i in range(layers - 1)), 1.0]


def parameter_groups(
    layers: Sequence[Sequence[nn.Parameter]], decay: float, weight_decay: float, *, below: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for the optimiser, with "lr_scale", of layers from the lowest to the head; vectors have no weight decay.

    For `decay` and `below` see `layer_rates`. Frozen parameters are left out; one in two layers raises ValueError.
    """
    every = [id(p) for layer in layers for p in layer]
    if len(set(every)) < len(every):
        raise ValueError("a parameter is in two layers; it would be trained twice a step")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for layer, rate in zip(layers, layer_rates(len(layers), decay, below), strict=True):
        for p in layer:
            if p.requires_grad:
                groups.setdefault((weight_decay if p.ndim > 1 else 0.0, rate), []).append(p)
    return [{"params": p, "weight_decay": wd, "lr_scale": rate} for (wd, rate), p in groups.items()]
