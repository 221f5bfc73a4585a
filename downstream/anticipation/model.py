"""TempAgg as a trainer: on frame features by themselves, or on a trained encoder's vectors of short windows."""

from __future__ import annotations

import torch
from torch import Tensor

from crossview.downstream.anticipation.config import Config
from crossview.downstream.anticipation.tempagg import TempAgg, losses
from crossview.downstream.trainer import Batch, ClipEncoder, Trainer
from crossview.errors import UserError


class Model(Trainer):
    """Anticipates verbs, nouns and actions.

    An encoder embeds windows of consecutive frames, counted back from the last observed one; a window's vector stands
    for each of its frames.
    """

    def __init__(self, config: Config, encoder: ClipEncoder | None) -> None:
        super().__init__()
        if encoder is not None and config.encoder_lr is None:
            encoder.freeze()
        self.config, self.encoder, self.encoder_lr = config, encoder, config.encoder_lr
        width = config.feature_width if encoder is None else encoder.width
        self.tempagg = TempAgg(width, config.classes, config.observed, config.network)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each kind of class, summed over aggregate blocks, and their sum as "loss"."""
        found = self.tempagg(*self._frames(batch))
        return losses(found.per_tab, {kind: batch[f"target/{kind}"] for kind in self.config.classes})

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Scores by kind, the sum of all aggregate blocks' logits: (B, classes)."""
        return dict(self.tempagg(*self._frames(batch)).logits)

    def _frames(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What TempAgg takes: (B, T, D) and bool (B, T)."""
        features, mask = batch["features"][:, 0], batch["features/mask"]  # (B, T, D) of the one camera
        if self.encoder is not None:
            return self._encoded(self.encoder, features, mask), mask
        if features.shape[2] != self.config.feature_width:
            raise UserError(
                f"method.feature_width is {self.config.feature_width}, but the catalog's features have "
                f"{features.shape[2]} values per frame; pass --method.feature_width {features.shape[2]}"
            )
        return features, mask

    def _encoded(self, encoder: ClipEncoder, features: Tensor, mask: Tensor) -> Tensor:
        """Vectors of windows at their frames, (B, T, D) -> (B, T, D'); 0 where a window has no frame that there is.

        The oldest window is of as many frames as the others, and shares those with its neighbour that it would lack.
        """
        B, T = mask.shape
        size = min(self.config.window, T)
        number = (T - 1 - torch.arange(T, device=mask.device)) // size  # (T,), window of each frame, the latest is 0
        stops = [max(T - size * k, size) for k in range(int(number[0]) + 1)]
        windows = torch.stack([features[:, stop - size : stop] for stop in stops], 1)  # (B, W, size, D)
        shown = torch.stack([mask[:, stop - size : stop].any(1) for stop in stops], 1)  # (B, W)
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in encoder.parameters())):
            vectors = encoder(windows[shown][:, :, None])  # of the windows that there are, one token per frame
        placed = vectors.new_zeros(B, len(stops), vectors.shape[1])
        placed[shown] = vectors
        return placed[:, number]  # (B, T, D')
