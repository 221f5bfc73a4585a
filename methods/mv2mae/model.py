"""MV2MAE as plain torch: what pre-training minimises, what fine-tuning minimises, and how a recording is embedded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from crossview.methods.augment import crop_video, multi_scale_crop
from crossview.methods.handover import take_over
from crossview.methods.method import Batch, Method
from crossview.methods.mv2mae import motion
from crossview.methods.mv2mae.classifier import Classifier, layer_scale
from crossview.methods.mv2mae.config import Config, Motion
from crossview.methods.mv2mae.networks import CrossDecoder, Encoder, SameDecoder
from crossview.methods.mv2mae.recordings import cover, pixel_controls
from crossview.methods.mv2mae.tokens import Split, moments, patchify, split, standardised, take

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWS = ("source", "target")
_CHUNK = 64
"""Clips of a whole recording that are embedded at a time."""


class Clips(NamedTuple):
    """A batch's clips, the sources before the targets (2B), and what is asked of each."""

    video: Tensor
    """uint8 (2B, T, 3, H, W)."""
    tokens: Tensor
    """Standardised pixels, float32 (2B, N, P)."""
    split: Split
    target: Tensor
    """What the hidden tokens are to be, float32 (2B, M, P)."""
    weights: Tensor
    """How much each hidden token's error counts, float32 (2B, M)."""
    effective: Tensor
    """Tokens that as many equal weights would stand for, (2B,)."""


class Model(Method):
    """Masked autoencoding of two synchronised views, each from itself and the target from the source.

    arXiv 2401.15900. The state under `encoder.` embeds; the decoders are for pre-training only, `classifier.` is
    fine-tuning's. Both views go through a network in one pass.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        if config.stage == "finetune":
            self.encoder = Encoder(config, norm=False, drop_path=config.finetuning.drop_path)
            self.classifier = Classifier(config)
            return
        self.encoder = Encoder(config, norm=True)
        weights = config.weights
        self.same_decoder = SameDecoder(config) if weights.same_source or weights.same_target else None
        self.cross_decoder = CrossDecoder(config) if weights.cross else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction losses and their weighted sum, or the classifier's loss; "effective_tokens" is no loss."""
        if self.config.stage == "finetune":
            video = self._training(self._video(batch, "video"), batch["seed"], 2)
            return self.classifier.losses(self._pooled(video), batch)
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
        """Crop, tokenise, hide and weigh both views; each has a mask and a crop of its own."""
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
        """What each side (0 source, 1 target) with a loss makes of its own hidden tokens, (B, M, P)."""
        weights = self.config.weights
        sides = [side for side, weight in enumerate((weights.same_source, weights.same_target)) if weight]
        if self.same_decoder is None:
            return {}
        if len(sides) == 1:
            return {sides[0]: self.same_decoder(_half(latents, sides[0]), Split(*_half(parts, sides[0])))}
        return dict(enumerate(self.same_decoder(latents, parts).chunk(2)))

    def cross_view(self, latents: Tensor, parts: Split, source: Tensor, visible: Tensor) -> Tensor:
        """What the targets' latents and their sources' (with the places they stand at) make of the hidden tokens."""
        if self.cross_decoder is None:
            raise ValueError("weights.cross is 0, so this model has no cross-view decoder; train one with it above 0")
        prediction: Tensor = self.cross_decoder(latents, parts, source, visible)
        return prediction

    def embed(self, video: Tensor) -> Tensor:
        """Latents of whole recordings in windows of the trained length, each tubelet's mean over space.

        Windows take every `embed_stride`-th frame and stand side by side, the last at the recording's end; vectors are
        interpolated between the tubelets' times. A recording shorter than a window repeats its last frame.
        """
        config = self.config
        self._check(video[:, :1].expand(-1, config.frames, -1, -1, -1) if video.ndim == 5 else video, "recording")
        index, mix = cover(video.shape[1], config.frames, config.tubelet, config.embed_stride, video.device)
        parts = []
        for rows in index.split(max(1, _CHUNK // len(video))):
            clips = video[:, rows.flatten()].unflatten(1, rows.shape).flatten(0, 1)  # (B W, T, 3, H, W)
            means = self._latents(clips).unflatten(1, config.grid).mean(2)  # (B W, t, D)
            parts.append(means.unflatten(0, (len(video), -1)).flatten(1, 2))
        vectors = self._normed(torch.cat(parts, dim=1).float())
        return torch.einsum("L W, B W D -> B L D", mix, vectors)

    def embed_clip(self, video: Tensor) -> Tensor:
        """The mean over all tokens of the unmasked clip; in a fine-tuned model, what its last layer reads."""
        self._check(video, "clip")
        return self._normed(self._latents(video).mean(1).float())

    def logits(self, video: Tensor) -> Tensor:
        """Class scores of clips, uint8 (B, T, 3, H, W) -> (B, C); for a model of the stage "finetune"."""
        if self.config.stage != "finetune":
            raise ValueError(f"stage is {self.config.stage!r}; only a fine-tuned model classifies: train that stage")
        self._check(video, "clip")
        return self.classifier(self._pooled(video))

    @torch.no_grad()
    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """Gains: 1 - error / the error without what the prediction should use; all tokens count alike unless "moving".

        cross_view_gain: without the true source, that of another sample in its place; cross_view_gain/moving: with
        motion weights. same_view_gain: against the target's mean over the visible tokens. accuracy: fine-tuning's.
        """
        if self.config.stage == "finetune":
            pooled = self._pooled(self._video(batch, "video"))
            return {"accuracy": self.classifier.losses(pooled, batch)["accuracy"]}
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
            raise ValueError("a batch of 1 sample has no other source to compare with; measure on 2 or more")
        for name, weights in (("cross_view_gain", ones), ("cross_view_gain/moving", self._moving(clips))):
            measured = clips._replace(weights=weights)
            right, wrong = (self._cross_error(latents, measured, shift).mean() for shift in (0, 1))
            out[name] = 1 - right / wrong
        return out

    def controls(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Coarse pictures of the frames and of their differences: what needs no training."""
        return pixel_controls()

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Motion weights by temperature; reconstructions of a masked target; where its tokens look in the source."""
        from crossview.methods.mv2mae import figures

        return figures.draw(self, batch) if self.config.stage == "pretrain" else {}

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """No decay of vectors; in fine-tuning the rate falls by `layer_decay` with each layer from the head down."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            decay = weight_decay if parameter.ndim > 1 else 0.0
            scale = layer_scale(name, self.config) if self.config.stage == "finetune" else 1.0
            groups.setdefault((decay, scale), []).append(parameter)
        return [{"params": p, "weight_decay": decay, "lr_scale": scale} for (decay, scale), p in groups.items()]

    def start_from(self, weights: dict[str, Tensor]) -> list[str]:
        """Fine-tuning takes a pre-trained encoder without its last norm; else every weight must fit."""
        trained = self.config.stage == "pretrain" or any(name.startswith("classifier.") for name in weights)
        if trained:
            return take_over(self, weights)
        return take_over(
            self, weights, fresh=("classifier.",), dropped=("encoder.norm.", "same_decoder.", "cross_decoder.")
        )

    def _cross_error(self, latents: Tensor, clips: Clips, shift: int = 0) -> Tensor:
        """Each target's error (B,), the sources moved by `shift` samples; with swapped roles the mean of both ways."""
        sides = (1, 0) if self.config.swap_roles else (1,)
        roll = [1 - side for side in sides]
        rows = (latents, *clips.split, clips.target, clips.weights)
        own, hidden, visible, target, weights = (torch.cat([_half(x, s) for s in sides]) for x in rows)
        source, places = (torch.cat([_half(x, s).roll(shift, 0) for s in roll]) for x in (latents, clips.split.visible))
        error = _error(self.cross_view(own, Split(hidden, visible), source, places), target, weights)
        return error.view(len(sides), -1).mean(0)

    def _moving(self, clips: Clips) -> Tensor:
        """Motion weights as configured, or by the default temperature where the loss has none."""
        if self.config.motion.temperature is not None:
            return clips.weights
        return self._weights(clips.video, clips.split.hidden, replace(self.config.motion, temperature=60.0))[0]

    def _weights(self, video: Tensor, hidden: Tensor, options: Motion) -> tuple[Tensor, Tensor]:
        """Weights of the hidden tokens, (B, M), and of all tokens that share the softmax, (B, N or M)."""
        norms = motion.differences(video, self.config)
        if options.over == "masked":
            weights = motion.weigh(norms.gather(1, hidden), options)
            return weights, weights
        shared = motion.weigh(norms, options)
        return shared.gather(1, hidden), shared

    def _latents(self, video: Tensor) -> Tensor:
        """All tokens of unmasked clips, (B, N, D)."""
        return self.encoder(self._tokens(video))

    def _tokens(self, video: Tensor) -> Tensor:
        """uint8 (B, T, 3, H, W) -> standardised float32 (B, N, P)."""
        return patchify(standardised(video), self.config)

    def _pooled(self, video: Tensor) -> Tensor:
        return self._latents(video).mean(1)

    def _normed(self, pooled: Tensor) -> Tensor:
        """A fine-tuned encoder's norm stands after the pooling."""
        return self.classifier.norm(pooled) if self.config.stage == "finetune" else pooled

    def _training(self, video: Tensor, seed: Tensor, stream: int) -> Tensor:
        """Random crops of a stack of views (kB, T, 3, H, W), in training alone; flips are common to the views."""
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
            raise ValueError(
                f"the batch has no view {view!r}, only {names}; stage {self.config.stage!r} needs it: sample as the "
                "config's sampling() says"
            )
        self._check(batch[view], f"view {view!r}")
        return batch[view]

    def _check(self, video: Tensor, what: str) -> None:
        config = self.config
        wanted = (config.frames, 3, config.size_px, config.size_px)
        if video.ndim != 5 or tuple(video.shape[1:]) != wanted:
            raise ValueError(
                f"{what}: a tensor of shape {tuple(video.shape)}; it must be (B, {', '.join(map(str, wanted))}), video "
                "of the trained length and size: set frames and size_px, or repeat the last frame of a short clip"
            )


def _error(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error, the mean over values and hidden tokens: (B, M, P) twice and (B, M) -> float32 (B,)."""
    return ((prediction.float() - target).square().mean(-1) * weights).mean(1)


def _half(x: Any, side: int) -> Any:
    """One view of what holds both: a tensor (2B, ...) or a tuple of such."""
    return tuple(_half(part, side) for part in x) if isinstance(x, tuple) else x.chunk(2)[side]
