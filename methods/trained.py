"""What the platform trains: a method, or a downstream trainer. It knows neither Ray nor files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossview.methods.handover import take_over

Batch = Mapping[str, Tensor]
"""What the stream yields, with NAME from `Sampling.views`:

NAME: uint8 (B, T, 3, H, W), or float16 (B, T, N, D) where the catalog holds features, or float32 (B, D) embeddings of
the clips, see `Trainer.embeds_once`.
NAME/frames: int64 (B, T), frame indices in the recording. NAME/num_frames: int64 (B,), the recording's length.
NAME/length: int64 (B,), with `Sampling.window_length` "true": frames that count; the rest repeat the last of them.
NAME/label/KIND: uint8 (B, C), for KIND of `Sampling.labels`: 1 for every class that the clip's span shows.
NAME/scores/TASK: float32 (B, C), a teacher's logits, for TASK of `Sampling.scores`; NAME/scores/TASK/mask: bool (B,).
NAME/boxes: float32 (B, T, `Sampling.boxes`, 6): kind (0 none, 1 hand, 2 object), x1, y1, x2, y2 as shares of the
frame, score; NAME/boxes/mask: bool (B,), False where the recording has no detections.
sample: int64 (B,), row of the plan. seed: int64 (B,), for `noise.uniform`.
With pairing "group" there is one NAME, "video": (B, V, T, ...), and "video/mask": bool (B, V), False where a camera is
missing. With `Sampling.windows` W, W consecutive entries belong to one row of the plan.

Of `Sequences` and `Past`, whose recordings hold features, instead:
features: float16 (B, V, T, D), or (B, V, T, n, D) with `pooled` False, or float32 (B, V, T, D) embeddings of the steps,
see `Trainer.embeds_once`. features/mask: bool (B, T), the steps there are.
features/count: int64 (B, T), frames of each step; the rest of its n repeat the last of them.
target/KIND: int64, for KIND of `labels`, (B, T) of steps or (B,) of segments; -100 where there is no label.
"""


class Trained(nn.Module, ABC):
    """A model with its loss as plain torch. A subclass is named `Model`."""

    batch_dependent = False
    """Whether a sample's loss depends on the others of its batch, as a contrastive one does."""

    several_classes = False
    """Whether a sample may show several classes of a kind, whose scores are sigmoids, and not one softmax."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses by name, each a mean over the batch's samples; "loss" is minimised, all are logged."""

    def reach(self) -> Literal["sample", "pass", "workers"]:
        """What a sample's part of a training step depends on: itself, its forward pass, or that pass on all workers.

        Where workers are fewer than configured, what it depends on is kept as it was.
        """
        norms = any(isinstance(m, _BatchNorm) for m in self.modules())
        return "pass" if self.batch_dependent or norms else "sample"

    def blocks(self) -> list[nn.Module]:
        """Modules that are called one after the other, each with trained parameters: what FSDP gathers at once.

        By default the members of every list or sequence of like modules; what is outside is gathered for the
        whole step. A model that reads a block's parameters from outside its `forward` has to leave that block out.
        """
        return [m for m in like_members(self) if any(p.requires_grad for p in m.parameters())]

    def start_from(self, weights: dict[str, Tensor]) -> list[str]:
        """Take over another run's weights, by parameter name; returns a line for all that was left out on purpose.

        Raises ValueError if a weight is missing, unknown or of another shape. A method whose stages differ in some
        parameters overrides this with `handover.take_over`.
        """
        return take_over(self, weights)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Trainable parameters for the optimiser, all with the same weight decay unless a model overrides this.

        A group may have "lr_scale", a factor of the learning rate.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad], "weight_decay": weight_decay}]


def like_members(module: nn.Module) -> list[nn.Module]:
    """The members of every list or sequence of modules of one class, frozen ones too."""
    found: list[nn.Module] = []
    for child in module.children():
        members = list(child.children()) if isinstance(child, nn.ModuleList | nn.Sequential) else []
        if len(members) > 1 and len({type(m) for m in members}) == 1:
            found += members
        else:
            found += like_members(child)
    return found
