"""Ego-Exo's options and presets. Does not import torch, so that `--help` stays fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.spec import Sampling, View
from crossview.errors import UserError
from crossview.methods.recipe import LossWeights, Optim, Recipe

Stages = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A SlowFast network, or its slow pathway alone (Feichtenhofer et al., ICCV 2019); the defaults are R50's."""

    pathways: Literal["slow", "slowfast"] = "slowfast"
    blocks: Stages = (3, 4, 6, 3)
    """Bottleneck blocks per stage; (3, 4, 23, 3) for R101, likewise for temporal_blocks."""
    temporal_blocks: Stages = (3, 4, 6, 3)
    """Leading blocks per stage that have the stage's temporal kernel; the rest have a temporal kernel of 1."""
    strides: Stages = (1, 2, 2, 2)
    """Spatial stride per stage; the stem's is 4."""
    width: int = 64
    """Channels of the slow pathway's stem."""
    alpha: int = 4
    """Fast frames per slow frame."""
    beta_inverse: int = 8
    """Slow channels per fast channel."""
    fusion_ratio: int = 2
    """Channels of the lateral connection from fast to slow, per fast channel."""
    fusion_kernel: int = 7
    """Temporal kernel of the lateral connection; 5 for R101."""
    zero_init_residual: bool = True
    """Initialise the last BatchNorm's weight of every residual branch to zero."""

    def __post_init__(self) -> None:
        for name in ("width", "alpha", "beta_inverse", "fusion_ratio", "fusion_kernel"):
            if getattr(self, name) < 1:
                raise UserError(f"backbone.{name} is {getattr(self, name)}; it must be at least 1")
        if min(self.blocks) < 1 or min(self.strides) < 1 or min(self.temporal_blocks) < 0:
            raise UserError(
                f"backbone: blocks {self.blocks}, temporal_blocks {self.temporal_blocks}, strides {self.strides}; "
                "every stage must have a block and a stride of at least 1"
            )
        if self.width % self.beta_inverse or self.fusion_kernel % 2 == 0:
            raise UserError(
                f"backbone: width {self.width}, beta_inverse {self.beta_inverse}, fusion_kernel {self.fusion_kernel}; "
                "beta_inverse must divide the width, and the kernel must be odd"
            )

    @property
    def stride(self) -> int:
        """Pixels per cell of the last feature map."""
        first, second, third, fourth = self.strides
        return 4 * first * second * third * fourth


@dataclass(frozen=True, kw_only=True)
class Weights(LossWeights):
    """Loss weights; a weight of 0 builds no head and needs no file. The defaults are those of pre-training."""

    action: float = 0.5
    ego: float = 0.1
    object: float = 0.5
    hand_map: float = 1.0
    object_map: float = 1.0

    @property
    def maps(self) -> bool:
        """Whether the model has an interaction-map head."""
        return self.hand_map > 0 or self.object_map > 0


ACTIONS_ALONE = Weights(ego=0, object=0, hand_map=0, object_map=0)
"""The action loss as in pre-training, without the three signals."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of Ego-Exo; the defaults pre-train SlowFast R50 on Kinetics-400."""

    stage: Literal["pretrain", "finetune"] = "pretrain"
    """finetune loads the backbone of `--init-from`, and the interaction-map head where a map weight is above 0
    (Ego-Exo*); the classifier is new."""
    unit: str = "recording"
    """What one sample of an epoch is: a whole recording, or a labelled segment of this kind, such as "verb"."""
    backbone: Backbone = field(default_factory=Backbone)
    weights: Weights = field(default_factory=Weights)
    classes: dict[str, int] = field(default_factory=lambda: {"action": 400})
    """Label kinds of the catalog and their class counts; each has its own classifier, and their losses are summed."""
    action_loss: Literal["cross_entropy", "binary"] = "cross_entropy"
    """cross_entropy is for one class per clip (softmax), binary for any number (sigmoid)."""
    object_classes: int = 1000
    """Number of classes of the object teacher."""
    ego_temperature: float = 1.0
    object_temperature: float = 1.0
    frames: int = 32
    """Frames of a clip (T); the slow pathway takes every alpha-th of them."""
    fps: float = 15.0
    perspective: Literal["ego", "exo", "any"] = "any"
    """Which recordings to train on."""
    geometry: Geometry = field(default_factory=lambda: Geometry(crop="random", short_px=(256, 320)))
    """How frames become training crops of `crop_px`, and, with the low end of its `short_px`, squares of `frame_px`."""
    frame_px: int = 256
    """Side of the squares that evaluation and embedding use whole."""
    crop_px: int = 224
    """Side of a training crop."""
    short_side_px: tuple[int, int] | None = None
    """With a geometry that draws nothing: squares of `frame_px` are decoded in training too, and scaled to a side from
    this range and cropped on the device, for frames that are cached."""
    flip: float = 0.5
    """Probability of flipping a clip horizontally."""
    recolour: float = 0.0
    """Strength of colour augmentation: each channel of a training clip is scaled by a factor in 1 ± this and shifted by
    up to 100 times this, on a scale of 255; 0, as in the paper, turns it off."""
    boxes: int = 16
    """Detections per frame that the map targets are painted from, those with the highest scores."""
    map_target: Literal["soft", "hard"] = "soft"
    """Value of a box's cells: soft uses its confidence, hard 1."""
    map_width: int = 512
    """Hidden channels of the interaction-map head."""
    dropout: float = 0.0
    """Applied before the classifiers and the score heads, not before the interaction-map head."""

    def __post_init__(self) -> None:
        w = self.weights
        if w.action > 0 and (not self.classes or min(self.classes.values()) < 2):
            raise UserError(f"classes is {self.classes} with weights.action {w.action}; name label kinds of 2 or more")
        if self.stage == "finetune" and (w.ego or w.object):
            raise UserError(
                f"weights.ego is {w.ego} and weights.object {w.object} with stage 'finetune'; the scores are distilled "
                "only in pre-training: set both to 0"
            )
        if self.stage == "finetune" and not w.action:
            raise UserError("weights.action is 0 with stage 'finetune'; there would be no new classifier to train")
        if self.backbone.pathways == "slowfast" and self.frames % self.backbone.alpha:
            raise UserError(
                f"frames is {self.frames} with backbone.alpha {self.backbone.alpha}; alpha must divide the frames"
            )
        if self.short_side_px is not None and self.geometry.drawn:
            raise UserError(
                f"short_side_px is {self.short_side_px} with geometry.crop {self.geometry.crop!r} and "
                f"geometry.short_px {self.geometry.short_px}, which crop already: pass --method.short-side-px None, or "
                "--method.geometry.crop centre --method.geometry.short-px None"
            )
        low, high = self.short_side_px or (self.crop_px, self.crop_px)
        if not 0 < self.crop_px <= low <= high:
            raise UserError(
                f"crop_px is {self.crop_px} and short_side_px {self.short_side_px}; they must satisfy "
                "0 < crop <= low <= high: lower the crop or raise the sides"
            )
        if min(self.crop_px, self.frame_px) < self.backbone.stride:
            raise UserError(
                f"crop_px is {self.crop_px} and frame_px {self.frame_px} with a backbone of stride "
                f"{self.backbone.stride}; both must be at least as large: raise them or lower backbone.strides"
            )
        if w.maps and (self.crop_px % self.backbone.stride or self.frame_px % self.backbone.stride):
            raise UserError(
                f"crop_px is {self.crop_px} and frame_px {self.frame_px} with a map of one cell per "
                f"{self.backbone.stride} pixels; both must be multiples of that, or its cells would be aligned "
                "differently in training and evaluation"
            )
        for name, low_end, high_end in (("flip", 0, 1), ("recolour", 0, 1), ("dropout", 0, 0.999)):
            if not low_end <= getattr(self, name) <= high_end:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in [{low_end}, {high_end}]")
        for name in ("frames", "boxes", "map_width", "ego_temperature", "object_temperature"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.object_classes < 2:
            raise UserError(f"object_classes is {self.object_classes}; it must be at least 2")

    def sampling(self) -> Sampling:
        """One clip of one recording, with the labels and teacher signals whose weight is above 0."""
        w = self.weights
        view = View(
            perspective=self.perspective,
            frames=self.frames,
            fps=self.fps,
            size_px=self.crop_px if self.short_side_px is None else self.frame_px,
            test_px=self.frame_px,
            geometry=self.geometry,
        )
        scores = {"ego": 2} if w.ego else {}
        if w.object:
            scores["object"] = self.object_classes
        return Sampling(
            views={"clip": view},
            pairing="single",
            unit=self.unit,
            labels=dict(self.classes) if w.action else {},
            label_options={kind: f"method.classes.{kind}" for kind in self.classes},
            scores=scores,
            boxes=self.boxes if w.maps else 0,
        )


def presets() -> dict[str, Callable[[], Recipe]]:
    """Pre-training and fine-tuning of each table: `_star` keeps the map loss, `_baseline` uses none of the signals."""
    made: dict[str, Callable[[], Recipe]] = {
        "kinetics400": lambda: _kinetics(R50),
        "kinetics400_slow_r50": lambda: _kinetics(SLOW_R50),
        "kinetics400_r101": lambda: _kinetics(R101),
        "kinetics400_baseline": lambda: _kinetics(R50, baseline=True),
        "kinetics400_slow_r50_baseline": lambda: _kinetics(SLOW_R50, baseline=True),
        "kinetics400_r101_baseline": lambda: _kinetics(R101, baseline=True),
        "charades_ego_slow_r50": lambda: _charades(SLOW_R50, 0.0),
        "charades_ego": lambda: _charades(R50, 0.0),
        "charades_ego_star": lambda: _charades(R50, 0.1),
        "charades_ego_r101": lambda: _charades(R101, 0.0),
        "charades_ego_r101_star": lambda: _charades(R101, 0.1),
        "epic55": lambda: _epic(R50, 0.0, {"verb": 125, "noun": 352}, lr=0.01, batch=64),
        "epic55_star": lambda: _epic(R50, 3.0, {"verb": 125, "noun": 352}, lr=0.01, batch=64),
        "epic100": lambda: _epic(R50, 0.0, {"verb": 97, "noun": 300}, lr=0.02, batch=128),
        "epic100_star": lambda: _epic(R50, 3.0, {"verb": 97, "noun": 300}, lr=0.02, batch=128),
        "epic100_r101": lambda: _epic(R101, 0.0, {"verb": 97, "noun": 300}, lr=0.02, batch=128),
        "epic100_r101_star": lambda: _epic(R101, 3.0, {"verb": 97, "noun": 300}, lr=0.02, batch=128),
        "ego_teacher": _ego_teacher,
        "debug": _debug,
    }
    return made


R50 = Backbone()
R101 = Backbone(blocks=(3, 4, 23, 3), temporal_blocks=(3, 4, 23, 3), fusion_kernel=5)
SLOW_R50 = Backbone(pathways="slow")


def _clips(backbone: Backbone, fps: float) -> Config:
    """32 frames at half the source's frame rate, or 8 at an eighth of it for the slow pathway alone."""
    if backbone.pathways == "slow":
        return Config(backbone=backbone, frames=8, fps=fps / 8)
    return Config(backbone=backbone, frames=32, fps=fps / 2)


def _kinetics(backbone: Backbone, *, baseline: bool = False) -> Recipe:
    """200 epochs from scratch; the baseline has dropout and an action weight of 1."""
    method = _clips(backbone, 30.0)
    if baseline:
        method = replace(method, weights=replace(ACTIONS_ALONE, action=1.0), dropout=0.5)
    return Recipe(
        method=method,
        optim=_sgd(
            lr=0.8,
            batch=512,
            epochs=200,
            schedule="cosine",
            cosine_over="run",
            warmup_share=34 / 200,
            warmup_lr=0.08,
        ),
    )


def _charades(backbone: Backbone, map_weight: float) -> Recipe:
    method = replace(
        _finetuned(_clips(backbone, 24.0), map_weight), classes={"action": 157}, action_loss="binary", perspective="ego"
    )
    return Recipe(method=method, optim=_sgd(lr=0.25, batch=64, epochs=60, schedule="cosine"))


def _epic(backbone: Backbone, map_weight: float, classes: dict[str, int], *, lr: float, batch: int) -> Recipe:
    method = replace(_finetuned(_clips(backbone, 60.0), map_weight), classes=classes, perspective="ego", unit="verb")
    milestones = (20 / 30, 25 / 30)
    return Recipe(method=method, optim=_sgd(lr=lr, batch=batch, epochs=30, schedule="steps", milestones=milestones))


def _finetuned(config: Config, map_weight: float) -> Config:
    weights = Weights(action=1.0, ego=0, object=0, hand_map=map_weight, object_map=map_weight)
    return replace(config, stage="finetune", weights=weights, dropout=0.5)


def _sgd(**options: object) -> Optim:
    return Optim(optimizer="sgd", momentum=0.9, weight_decay=1e-4, **options)  # type: ignore[arg-type]


def _ego_teacher() -> Recipe:
    """Ego-vs-exo classifier on the catalog's perspective labels; `weights.ego` distils its scores (exo 0, ego 1)."""
    method = replace(
        _clips(SLOW_R50, 24.0), classes={"perspective": 2}, weights=replace(ACTIONS_ALONE, action=1.0), dropout=0.5
    )
    return Recipe(method=method, optim=_sgd(lr=0.1, batch=64, epochs=10, schedule="cosine"))


def _debug() -> Recipe:
    """Small enough to train on a laptop CPU; needs the labels and teacher signals of the synthetic world."""
    backbone = Backbone(
        blocks=(1, 1, 1, 1),
        temporal_blocks=(1, 1, 1, 1),
        strides=(1, 2, 2, 1),
        width=16,
        beta_inverse=4,
        fusion_kernel=5,
        zero_init_residual=False,
    )
    method = Config(
        backbone=backbone,
        classes={"action": 4},
        object_classes=11,
        frames=8,
        frame_px=64,
        crop_px=64,
        geometry=Geometry(),
        short_side_px=(64, 80),
        boxes=8,
        map_width=32,
    )
    return Recipe(method=method, optim=_sgd(lr=0.05, batch=8, steps=150, schedule="cosine", warmup_share=0.1))
