from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossview.downstream.trainer import Batch, ClipEncoder, Trainer

from .config import Config


class Model(Trainer):
    config: Config

    def __init__(self, config: Config, encoder: ClipEncoder | None) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder and encoder.freeze()
        self.head = nn.Linear(encoder.width if encoder else config.width, 4)

    def _logits(self, batch: Batch) -> Tensor:
        features = batch["features"].mean(1)  # (B, V, T, ...) -> (B, T, ...)
        if self.encoder is None:
            return self.head(features.float())
        B, T = features.shape[:2]
        with torch.no_grad():
            vectors = self.encoder(features.flatten(0, 1)[:, :, None])  # (B * T, n, 1, D)
        return self.head(vectors.unflatten(0, (B, T)))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": functional.cross_entropy(self._logits(batch).mT, batch["target/phase"])}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"probabilities": self._logits(batch).softmax(-1)}
