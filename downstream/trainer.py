"""The contract between the platform and a downstream model that trains for long.

A trainer is a folder `downstream/NAME/` that has, beside a task's files, `model.py` (class `Model`) and in `config.py`
the class `Config` and `presets()`, as a method has. The platform trains it as it trains a method, and the task of the
folder, which reads "predictions", scores it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.trainer_config import TrainerConfig
from crossview.methods.trained import Batch, Trained

__all__ = ["Batch", "ClipEncoder", "Trainer", "TrainerConfig"]


class Trainer(Trained):
    """A model of a downstream task. A subclass is named `Model` and built as `Model(config, encoder)`.

    `encoder` is the trained method's, or None where the trainer reads features by themselves. What of it is trained is
    the trainer's to decide.
    """

    encoder: ClipEncoder | None
    encoder_lr: float | None = None
    """Rate of an encoder that is trained, as a share of the trainer's."""

    @property
    def embeds_once(self) -> bool:
        """Whether the embedding of a step, or of a clip, depends on its frames alone and never changes.

        The platform may then compute all before training: of steps by `embed_steps`, and `features` are float32
        (B, V, T, D') in place of (B, V, T, n, D); of clips by `encoder`, and a view is float32 (B, D').
        """
        return False

    def embed_steps(self, frames: Tensor) -> Tensor:
        """The encoder's embeddings of steps of n frames each: (m, n, D) -> (m, D')."""
        assert self.encoder is not None
        return self.encoder(frames[:, :, None])

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Trainable parameters with the same weight decay; the encoder's have a rate of their own."""
        tuned = [] if self.encoder is None else [p for p in self.encoder.parameters() if p.requires_grad]
        theirs = {id(p) for p in tuned}
        own = [p for p in self.parameters() if p.requires_grad and id(p) not in theirs]
        groups: list[dict[str, Any]] = [{"params": own, "weight_decay": weight_decay}]
        if tuned:
            groups.append({"params": tuned, "weight_decay": weight_decay, "lr_scale": self.encoder_lr})
        return groups

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """What the task scores, by name: (B, ...) each, of a batch as `forward` takes it, in eval mode.

        Nothing of a sample's prediction may depend on the others of its batch.
        """
