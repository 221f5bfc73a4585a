"""The fine-tuning head and layer-wise learning rates (VideoMAE's recipe)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.method import Batch
from crossview.methods.mv2mae.config import Config


class Classifier(nn.Module):
    """Norm, dropout and a linear layer, initialised near 0, on the mean of the tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.options = config.finetuning
        self.norm = nn.LayerNorm(config.encoder.width, eps=1e-6)
        self.dropout = nn.Dropout(self.options.dropout)
        self.head = nn.Linear(config.encoder.width, self.options.classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        return self.head(self.dropout(self.norm(pooled)))

    def losses(self, pooled: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Smoothed cross-entropy and top-1 accuracy against the batch's "video/label/action".

        The target of a clip with several classes is uniform over them, and predicting any of them counts as correct.
        """
        logits = self(pooled).float()
        label = self._labels(batch)
        share = label / label.sum(1, keepdim=True)
        loss = nn.functional.cross_entropy(logits, share, label_smoothing=self.options.label_smoothing)
        right = label.gather(1, logits.argmax(1, keepdim=True)).mean()
        return {"loss": loss, "accuracy": right}

    def _labels(self, batch: Batch) -> Tensor:
        label = batch.get("video/label/action")
        if label is None:
            raise UserError("the batch has no 'video/label/action'; fine-tuning needs a catalog with action labels")
        if label.shape[1] != self.options.classes:
            raise UserError(
                f"the catalog has {label.shape[1]} action classes and the classifier {self.options.classes}; set "
                "finetuning.classes to the number in the catalog"
            )
        shown = (label > 0).any(1)
        if not torch.compiler.is_compiling() and not bool(shown.all()):
            samples = batch["sample"][~shown].tolist()
            raise UserError(
                f"samples {samples} have no action label; fine-tuning needs one for every clip: label the recordings "
                "or remove them from the split"
            )
        return label.float()


def layer_scale(name: str, config: Config) -> float:
    """Learning rate factor of a parameter: 1 in the head, multiplied by `layer_decay` for each layer below it."""
    depth = config.encoder.depth
    layer = depth + 1
    if name.startswith("encoder.embed."):
        layer = 0
    elif name.startswith("encoder.blocks."):
        layer = int(name.split(".")[2]) + 1
    return config.finetuning.layer_decay ** (depth + 1 - layer)
