"""MV2MAE in plain torch: the losses of pre-training, and embeddings of clips and recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.augment import crop_video, multi_scale_crop
from crossview.methods.method import Batch, Method
from crossview.methods.mv2mae import motion
from crossview.methods.mv2mae.config import Config, Motion
from crossview.methods.mv2mae.networks import CrossDecoder, Encoder, SameDecoder
from crossview.methods.mv2mae.recordings import cover, pixel_baselines
from crossview.methods.mv2mae.tokens import Split, moments, patchify, split, standardised, take

VIEWS = ("source", "target")
_CHUNK = 64
"""Clips per forward pass when recordings are embedded."""


class Clips(NamedTuple):
    """The clips of a batch, sources before targets (2B), with their masks, targets and weights."""

    video: Tensor
    """uint8 (2B, T, 3, H, W)."""
    tokens: Tensor
    """Standardised pixels, float32 (2B, N, P)."""
    split: Split
    target: Tensor
    """Reconstruction targets of the masked tokens, float32 (2B, M, P)."""
    weights: Tensor
    """Weight of each masked token's error, float32 (2B, M)."""
    effective: Tensor
    """Effective number of tokens, (2B,)."""


class Model(Method):
    """Masked autoencoding of two synchronised views: each from itself, and the target also from the source.

    arXiv 2401.15900. Embeddings use the parameters under `encoder.`; the decoders are for pre-training only. Both views
    pass through a network in one batch.
    """

    fixed_baselines = frozenset({"pixels", "frame differences"})

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        weights = config.weights
        self.same_decoder = SameDecoder(config) if weights.same_source or weights.same_target else None
        self.cross_decoder = CrossDecoder(config) if weights.cross else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstruction losses and their weighted sum; "effective_tokens" is only logged."""
        clips = self.clips(batch)
        latents = self.encode(clips)
        parts: dict[str, Tensor] = {}
        for side, prediction in self.same_view(latents, clips.split).items():
            parts[f"same/{VIEWS[side]}"] = _error(prediction, *_half((clips.target, clips.weights), side)).mean()
        if self.cross_decoder is not None:
            parts["cross"] = self._cross_error(latents, clips).mean()
        weights = self.config.weights
        total = sum(getattr(weights, name.replace("/", "_")) * value for name, value in parts.items())
        return {"loss": torch.as_tensor(total), **parts, "effective_tokens": clips.effective.mean()}

    def clips(self, batch: Batch) -> Clips:
        """Crop, tokenise, mask and weight both views; each has its own mask and crop."""
        config, seed = self.config, batch["seed"]
        video = self._training(torch.cat([self._video(batch, view) for view in VIEWS]), seed, 2)
        drawn = [split(seed, config.masking, *config.grid, stream) for stream in range(2)]
        parts = Split(*(torch.cat(both) for both in zip(*drawn, strict=True)))
        tokens = self._tokens(video)
        target = take(tokens, parts.hidden)
        if config.target_norm != "none":
            mean, std = moments(target, config.target_norm)
            target = (target - mean) / std
        weights, shared = self._weights(video, parts.hidden, config.motion)
        return Clips(video, tokens, parts, target, weights, motion.effective(shared))

    def encode(self, clips: Clips) -> Tensor:
        """Latents of the visible tokens of both views, (2B, N - M, D)."""
        return self.encoder(take(clips.tokens, clips.split.visible), clips.split.visible)

    def same_view(self, latents: Tensor, parts: Split) -> dict[int, Tensor]:
        """Masked tokens of each side (0 source, 1 target) that has a loss, predicted from itself: (B, M, P)."""
        weights = self.config.weights
        sides = [side for side, weight in enumerate((weights.same_source, weights.same_target)) if weight]
        if self.same_decoder is None:
            return {}
        if len(sides) == 1:
            return {sides[0]: self.same_decoder(_half(latents, sides[0]), Split(*_half(parts, sides[0])))}
        return dict(enumerate(self.same_decoder(latents, parts).chunk(2)))

    def cross_view(self, latents: Tensor, parts: Split, source: Tensor, visible: Tensor) -> Tensor:
        """Predictions of the masked tokens from the targets' latents and those of the sources at `visible`."""
        if self.cross_decoder is None:
            raise UserError("weights.cross is 0, so this model has no cross-view decoder; train one with it above 0")
        prediction: Tensor = self.cross_decoder(latents, parts, source, visible)
        return prediction

    def embed(self, video: Tensor) -> Tensor:
        """Latents of whole recordings, computed in windows of the training length and averaged over space per tubelet.

        Windows take every `embed_stride`-th frame; they are adjacent and the last one ends with the recording. Vectors
        are interpolated between the centres of the tubelets. A recording shorter than a window repeats its last frame.
        """
        config = self.config
        self._check(video[:, :1].expand(-1, config.frames, -1, -1, -1) if video.ndim == 5 else video, "recording")
        index, mix = cover(video.shape[1], config.frames, config.tubelet, config.embed_stride, video.device)
        parts = []
        for rows in index.split(max(1, _CHUNK // len(video))):
            clips = video[:, rows.flatten()].unflatten(1, rows.shape).flatten(0, 1)  # (B W, T, 3, H, W)
            means = self._latents(clips).unflatten(1, config.grid).mean(2)  # (B W, t, D)
            parts.append(means.unflatten(0, (len(video), -1)).flatten(1, 2))
        vectors = torch.cat(parts, dim=1).float()
        return torch.einsum("L W, B W D -> B L D", mix, vectors)

    def embed_clip(self, video: Tensor) -> Tensor:
        """The mean over all tokens of the unmasked clip."""
        self._check(video, "clip")
        return self._latents(video).mean(1).float()

    def fine_tune(self, *, drop_path: float = 0.0) -> None:
        """Without the final norm, as in VideoMAE."""
        self.encoder.fine_tune(drop_path)

    def layers(self) -> list[list[nn.Parameter]]:
        """The token embedding and the blocks of the encoder."""
        return self.encoder.layers()

    @torch.no_grad()
    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """Gains are 1 - error / the error of a baseline; all tokens are weighted equally except in "moving".

        cross_view_gain: over using the source of another sample; cross_view_gain/moving: the same with motion weights.
        same_view_gain: over predicting the mean of the clip's masked tokens.
        """
        clips = self.clips(batch)
        latents, ones = self.encode(clips), torch.ones_like(clips.weights)
        out: dict[str, Tensor] = {}
        for side, prediction in self.same_view(latents, clips.split).items():
            target, equal = _half((clips.target, ones), side)
            constant = target.mean((1, 2), keepdim=True).expand_as(target)
            gain = 1 - _error(prediction, target, equal).mean() / _error(constant, target, equal).mean()
            out[f"same_view_gain/{VIEWS[side]}"] = gain
        if self.cross_decoder is None:
            return out
        if len(batch["seed"]) < 2:
            raise UserError("a batch of 1 sample has no other source to compare with; use 2 or more samples")
        for name, weights in (("cross_view_gain", ones), ("cross_view_gain/moving", self._moving(clips))):
            measured = clips._replace(weights=weights)
            right, wrong = (self._cross_error(latents, measured, shift).mean() for shift in (0, 1))
            out[name] = 1 - right / wrong
        return out

    def baselines(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Untrained baselines: coarse frames and coarse frame differences."""
        return pixel_baselines()

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """No weight decay on vectors."""
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            groups.setdefault(weight_decay if parameter.ndim > 1 else 0.0, []).append(parameter)
        return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]

    def _cross_error(self, latents: Tensor, clips: Clips, shift: int = 0) -> Tensor:
        """Errors of the targets (B,), with the sources shifted by `shift` samples; averaged over both swapped roles."""
        sides = (1, 0) if self.config.swap_roles else (1,)
        roll = [1 - side for side in sides]
        rows = (latents, *clips.split, clips.target, clips.weights)
        own, hidden, visible, target, weights = (torch.cat([_half(x, s) for s in sides]) for x in rows)
        source, places = (torch.cat([_half(x, s).roll(shift, 0) for s in roll]) for x in (latents, clips.split.visible))
        error = _error(self.cross_view(own, Split(hidden, visible), source, places), target, weights)
        return error.view(len(sides), -1).mean(0)

    def _moving(self, clips: Clips) -> Tensor:
        """Motion weights as configured, with the default temperature if the loss has none."""
        if self.config.motion.temperature is not None:
            return clips.weights
        return self._weights(clips.video, clips.split.hidden, replace(self.config.motion, temperature=60.0))[0]

    def _weights(self, video: Tensor, hidden: Tensor, options: Motion) -> tuple[Tensor, Tensor]:
        """Weights of the masked tokens, (B, M), and of all tokens in the softmax, (B, N or M)."""
        norms = motion.differences(video, self.config)
        if options.over == "masked":
            weights = motion.weigh(norms.gather(1, hidden), options)
            return weights, weights
        shared = motion.weigh(norms, options)
        return shared.gather(1, hidden), shared

    def _latents(self, video: Tensor) -> Tensor:
        """Latents of all tokens of unmasked clips, (B, N, D)."""
        return self.encoder(self._tokens(video))

    def _tokens(self, video: Tensor) -> Tensor:
        """uint8 (B, T, 3, H, W) -> standardised float32 (B, N, P)."""
        return patchify(standardised(video), self.config)

    def _training(self, video: Tensor, seed: Tensor, stream: int) -> Tensor:
        """Random crops of k stacked views (kB, T, 3, H, W), only in training; the views of a sample share the flip."""
        config = self.config
        if not self.training or not (config.crop_scales or config.flip):
            return video
        scales = config.crop_scales or (1.0,)
        views = video.chunk(len(video) // len(seed))
        crops = [multi_scale_crop(seed, scales=scales, flip=config.flip, stream=stream + k) for k in range(len(views))]
        return torch.cat(
            [crop_video(v, replace(c, flip=crops[0].flip), config.size_px) for v, c in zip(views, crops, strict=True)]
        )

    def _video(self, batch: Batch, view: str) -> Tensor:
        if view not in batch:
            names = ", ".join(sorted(name for name in batch if "/" not in name))
            raise UserError(
                f"the batch has no view {view!r}, only {names}; build the batch as the config's sampling() specifies"
            )
        self._check(batch[view], f"view {view!r}")
        return batch[view]

    def _check(self, video: Tensor, what: str) -> None:
        config = self.config
        wanted = (config.frames, 3, config.size_px, config.size_px)
        if video.ndim != 5 or tuple(video.shape[1:]) != wanted:
            raise UserError(
                f"{what}: a tensor of shape {tuple(video.shape)}; it must be (B, {', '.join(map(str, wanted))}), video "
                "of the training length and size: set frames and size_px, or repeat the last frame of a short clip"
            )


def _error(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error, averaged over values and masked tokens: 2 x (B, M, P) and (B, M) -> float32 (B,)."""
    return ((prediction.float() - target).square().mean(-1) * weights).mean(1)


def _half(x: Any, side: int) -> Any:
    """One view of tensors that stack both: a tensor (2B, ...) or a tuple of them."""
    return tuple(_half(part, side) for part in x) if isinstance(x, tuple) else x.chunk(2)[side]
