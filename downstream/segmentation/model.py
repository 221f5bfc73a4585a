"""The segmentation trainer: steps of features, or of a method's clip embeddings, to a label each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crossview.downstream.segmentation.asformer import ASFormer
from crossview.downstream.segmentation.c2f_tcn import C2FTCN
from crossview.downstream.segmentation.config import Config
from crossview.downstream.segmentation.ltcontext import LTContext
from crossview.downstream.segmentation.segmenter import SegmentationModel
from crossview.downstream.trainer import Batch, ClipEncoder, Trainer
from crossview.errors import UserError

ARCHITECTURES: dict[str, Callable[[int, int], SegmentationModel]] = {
    "c2f-tcn": C2FTCN,
    "asformer": ASFormer,
    "ltcontext": LTContext,
}


class Model(Trainer):
    """An architecture on the features of steps, on an encoder's embedding of each, or on both beside each other.

    The encoder embeds the frames of a step as one clip; the last step of a video may have fewer frames than the others.
    A frozen one stays in eval mode and gets no gradient; of a trained one activations are computed again in the
    backward pass.
    """

    config: Config
    batch_dependent = True  # losses are means over a pass's steps, and C2F-TCN normalises over them

    def __init__(self, config: Config, encoder: ClipEncoder | None) -> None:
        super().__init__()
        self.config, self.encoder, self.encoder_lr = config, encoder, config.encoder_lr
        self.tuned = encoder is not None and config.encoder_lr is not None and encoder.weights != "input"
        if encoder is None and (config.beside or config.encoder_lr is not None):
            raise UserError(
                f"beside is {config.beside} and encoder_lr {config.encoder_lr}, but there is no encoder; pass "
                "--encoder.run RUN, or leave them out"
            )
        if encoder is not None and not self.tuned:
            encoder.freeze()
        per_view = config.width if encoder is None else encoder.width + (config.width if config.beside else 0)
        self.segmenter = ARCHITECTURES[config.model](per_view * len(config.views), config.classes)

    @property
    def embeds_once(self) -> bool:
        """With a frozen encoder, unless the features are wanted beside its embeddings."""
        return self.encoder is not None and not self.tuned and not self.config.beside

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The architecture's loss and its parts."""
        steps, mask = self._steps(batch)
        target = batch[f"target/{self.config.kind}"][:, : mask.shape[1]]
        return self.segmenter.loss(self.segmenter(steps, mask), target, mask)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Probabilities of each step up to the longest video's last, (B, T, C); 0 for padding."""
        steps, mask = self._steps(batch)
        return {"probabilities": self.segmenter.probabilities(self.segmenter(steps, mask), mask)}

    def _steps(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the architecture reads (B, T, V * D) and its mask (B, T), both cut to the batch's longest video."""
        longest = int(batch["features/mask"].sum(1).max())
        features, mask = batch["features"][:, :, :longest].float(), batch["features/mask"][:, :longest]
        if self.embeds_once and features.ndim == 4:
            return features.transpose(1, 2).flatten(2), mask  # the steps' embeddings (B, V, T, D')
        self._check_width(features)
        if self.encoder is None:
            steps = features
        else:
            steps = self._encoded(features, batch["features/count"][:, :longest])
            if self.config.beside:
                steps = torch.cat([steps, features.amax(3)], -1)
        return steps.transpose(1, 2).flatten(2), mask  # (B, V, T, D) -> (B, T, V * D)

    def embed_steps(self, frames: Tensor) -> Tensor:
        """Steps of n frames each, as one clip: (m, n, D) -> (m, D')."""
        self._check_width(frames)
        return super().embed_steps(frames)

    def _check_width(self, features: Tensor) -> None:
        if features.shape[-1] != self.config.width:
            raise UserError(
                f"the features have {features.shape[-1]} values per frame, but width is {self.config.width}; pass "
                f"--method.width {features.shape[-1]}"
            )

    def _encoded(self, features: Tensor, count: Tensor) -> Tensor:
        """Frames (B, V, T, n, D) and how many each step has (B, T) -> embeddings (B, V, T, D'); 0 for padding."""
        assert self.encoder is not None
        B, V, T = features.shape[:3]
        frames = count[:, None].expand(B, V, T).flatten()
        clips = features.flatten(0, 2)  # (B * V * T, n, D)
        out = features.new_zeros(len(clips), self.encoder.width)
        for size in frames.unique().tolist():
            if size:
                places = (frames == size).nonzero().flatten()
                found = [self._embedded(clips[some, :size]) for some in places.split(self.config.encoder_clips)]
                out = out.index_copy(0, places, torch.cat(found).to(out.dtype))
        return out.unflatten(0, (B, V, T))

    def _embedded(self, clips: Tensor) -> Tensor:
        if self.tuned and torch.is_grad_enabled():
            return checkpoint(self.embed_steps, clips, use_reentrant=False)
        with torch.set_grad_enabled(self.tuned and torch.is_grad_enabled()):
            return self.embed_steps(clips)
