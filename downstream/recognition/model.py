"""The recognition trainer: augmented clips through an encoder, to a classifier per kind of label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crossview.downstream.recognition.augment import augment
from crossview.downstream.recognition.config import Config
from crossview.downstream.recognition.heads import Heads, parameter_groups, shares
from crossview.downstream.trainer import Batch, ClipEncoder, Trainer
from crossview.errors import UserError


class Model(Trainer):
    """Classifiers on an encoder's vector of a clip; the encoder is trained with them, or frozen (a linear probe).

    A trained encoder is prepared by its method's `fine_tune`. A frozen one stays in eval mode and gets no gradient.
    """

    encoder: ClipEncoder
    config: Config

    def __init__(self, config: Config, encoder: ClipEncoder | None) -> None:
        super().__init__()
        if encoder is None:
            raise UserError(
                "recognition classifies what a method's encoder makes of clips; pass --encoder.run RUN, and with it "
                "--encoder.weights random to train from scratch"
            )
        _check_clips(config, encoder)
        self.config, self.encoder = config, encoder
        self.batch_dependent = config.augmentation.mixes
        self.several_classes = config.loss == "sigmoid"
        self.tuned = config.encoder_lr is not None and encoder.weights != "input"
        if self.tuned:
            encoder.method.fine_tune(drop_path=config.drop_path)
        else:
            encoder.freeze()
        self.heads = Heads(
            encoder.width,
            config.classes,
            loss=config.loss,
            dropout=config.dropout,
            label_smoothing=config.label_smoothing,
        )

    @property
    def embeds_once(self) -> bool:
        """With a frozen encoder, unless clips are augmented here."""
        return not self.tuned and not self.config.augmentation.changes

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of the kinds' losses, and with softmax the share of clips whose likeliest class is one they show."""
        clips, targets = self._video(batch), {kind: self._target(batch, kind) for kind in self.config.classes}
        if self.training and self.config.augmentation.changes:
            if clips.dtype != torch.uint8:
                raise UserError(
                    "augmentation is on, but the catalog holds features, not video; turn all of it off, as the preset "
                    "charades_ego_probe does"
                )
            mixed, targets = augment(clips, batch["seed"], targets, self.config.augmentation)
            clips = mixed.round().clamp(0, 255).to(torch.uint8)  # as every method takes them
        logits = self.heads(self._pooled(clips))
        out = self.heads.losses(logits, targets)
        if self.config.loss == "softmax":
            for kind, target in targets.items():
                right = (target.gather(1, logits[kind].argmax(1, keepdim=True)) > 0).float().mean()
                out["accuracy" if len(targets) == 1 else f"accuracy/{kind}"] = right
        return out

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Probabilities by kind, float32 (B, C), of the clips "video": uint8 (B, T, 3, H, W)."""
        return self.heads.probabilities(self.heads(self._pooled(self._video(batch))))

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """No weight decay on vectors; a layer's rate is `layer_decay` times that of the one above it."""
        below = [list(layer) for layer in self.encoder.method.layers()] if self.tuned else []
        layers = [*below, list(self.heads.parameters())]
        known = {id(p) for layer in layers for p in layer}
        if missing := [name for name, p in self.named_parameters() if p.requires_grad and id(p) not in known]:
            raise ValueError(f"{', '.join(missing[:5])}: in none of the encoder's layers(), so it would not be trained")
        return parameter_groups(layers, self.config.layer_decay, weight_decay, below=self.config.encoder_lr or 1.0)

    def _pooled(self, clips: Tensor) -> Tensor:
        if self.embeds_once and clips.ndim == 2:
            return clips  # embedded before training
        with torch.set_grad_enabled(self.tuned and torch.is_grad_enabled()):
            return self.encoder(clips)

    def _video(self, batch: Batch) -> Tensor:
        if "video" not in batch:
            raise UserError(
                f"the batch has no view 'video', only {', '.join(sorted(name for name in batch if '/' not in name))}; "
                "build it as the config's sampling() specifies"
            )
        clips, config = batch["video"], self.config
        wanted = (config.frames, 3, config.size_px, config.size_px)
        if clips.dtype == torch.uint8 and tuple(clips.shape[1:]) != wanted:
            raise UserError(
                f"view 'video': a tensor of shape {tuple(clips.shape)}; it must be (B, {', '.join(map(str, wanted))}): "
                "set frames and size_px, or repeat the last frame of a short clip"
            )
        return clips

    def _target(self, batch: Batch, kind: str) -> Tensor:
        """Of the loss, float32 (B, C): with softmax in equal shares for the classes that a clip shows."""
        label, count = batch.get(f"video/label/{kind}"), self.config.classes[kind]
        if label is None:
            raise UserError(f"the batch has no 'video/label/{kind}'; train on a catalog with labels of kind {kind!r}")
        if label.shape[1] != count:
            raise UserError(
                f"the catalog has {label.shape[1]} {kind} classes and the classifier {count}; pass "
                f"--method.classes.{kind} {label.shape[1]}"
            )
        if self.config.loss == "sigmoid":
            return label.float()
        shown = (label > 0).any(1)
        if not bool(shown.all()):
            raise UserError(
                f"samples {batch['sample'][~shown].tolist()} have no {kind} label; the loss softmax needs one for "
                "every clip: label the recordings, remove them from the split, or take the loss sigmoid"
            )
        return shares(label)


def _check_clips(config: Config, encoder: ClipEncoder) -> None:
    """Raise UserError where the encoder was trained on clips of another length or size."""
    frames, *picture = encoder.method.clip_input().shape[1:]
    size_px = picture[-1] if len(picture) == 3 else config.size_px  # features have no size
    if (frames, size_px) != (config.frames, config.size_px):
        raise UserError(
            f"frames is {config.frames} and size_px {config.size_px}, but the encoder was trained on clips of {frames} "
            f"frames of {size_px} px; pass --method.frames {frames} --method.size-px {size_px}"
        )
