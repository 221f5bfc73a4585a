"""The contract between a method and the platform. A method knows neither Ray nor files."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.recipe import MethodConfig
from crossview.methods.trained import Batch, Trained

__all__ = ["Batch", "Method", "build", "model_class"]


class Method(Trained):
    """One published method. A subclass is named `Model` and built as `Model(config)`."""

    fixed_baselines: ClassVar[frozenset[str]] = frozenset()
    """Those of `baselines` that no trained parameter changes: a run computes their scores once."""

    config: Any
    """The `Config` that it was built with."""

    @abstractmethod
    def embed(self, video: Tensor) -> Tensor:
        """Frame embeddings of whole recordings: uint8 (B, T, 3, H, W) or features (B, T, N, D) -> float (B, T, D')."""

    def embed_clip(self, video: Tensor) -> Tensor:
        """One vector per clip of the trained length: uint8 (B, T, 3, H, W) or features (B, T, N, D) -> float (B, D').

        With gradients, where they are on: fine-tuning adapts what it goes through.
        """
        return self.embed(video).mean(1)

    def fine_tune(self, *, drop_path: float = 0.0) -> None:
        """Prepare what `embed_clip` goes through for training under a classifier, which has a norm of its own.

        `drop_path` is the probability of dropping a residual branch in the last block, and grows linearly from 0 in the
        first. Raises ValueError for one above 0 where there are no such blocks.
        """
        if drop_path:
            raise UserError(
                f"drop_path is {drop_path}, but this method's encoder drops no branches; set --method.drop-path 0"
            )

    def layers(self) -> Sequence[Sequence[nn.Parameter]]:
        """Parameters of `embed_clip` by layer, from the lowest, for rates that fall with depth; here all in one.

        Each that `embed_clip` trains is in one layer: the lowest are those of the input's embedding.
        """
        return [list(self.parameters())]

    def clip_input(self) -> Tensor:
        """A clip of zeros as `embed_clip` takes it: (1, T, ...)."""
        view = next(iter(self.config.sampling().views.values()))
        return torch.zeros(1, view.frames, 3, view.size_px, view.size_px, dtype=torch.uint8)

    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars by name that measure on held-out samples whether the loss's objective is learnt; higher is better."""
        del batch
        return {}

    def class_logits(self, video: Tensor) -> dict[str, Tensor]:
        """Logits of clips as `embed_clip` takes them, by kind of label: (B, C) each; {} where there is no classifier.

        The predictions of a trained run that serves as a teacher.
        """
        del video
        return {}

    def class_scores(self, clips: Tensor) -> dict[str, Tensor]:
        """Probabilities of test clips by kind of label, uint8 (B, T, 3, H, W) -> (B, C); {} without a classifier.

        A method that has one overrides this, and is scored by tasks that score classifiers.
        """
        del clips
        return {}

    def frozen_features(self, video: Tensor) -> Tensor | None:
        """What a frozen part computes: uint8 (B, T, 3, H, W) -> float16 (B, T, N, D); None if there is none.

        The platform may cache it once per recording; `forward` and `embed` take it in place of video.
        """
        del video
        return None

    def baselines(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Baseline embeddings, with `embed`'s signature; the platform adds a random init."""
        return {}


def model_class(name: str) -> type[Method]:
    """`Model` of `methods/<name>/model.py`."""
    found: type[Method] = importlib.import_module(f"crossview.methods.{name}.model").Model
    return found


def build(name: str, config: MethodConfig) -> Method:
    """The model of `methods/<name>/model.py` for `config`."""
    model: Method = model_class(name)(config)
    return model
