"""Options of recognition and of how it is scored, and its recipes. Imports no torch, so that `--help` stays fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.spec import Sampling, View
from crossview.downstream.recognition.augment_config import NO_AUGMENTATION, Augmentation
from crossview.downstream.task import Mode
from crossview.downstream.test_views import ClassifierOptions
from crossview.downstream.trainer_config import Control
from crossview.errors import UserError
from crossview.methods.recipe import Optim, Recipe

KINDS = ("verb", "noun", "action")
"""Kinds of labels whose scores have known names; those of a single kind are named without it."""


@dataclass(frozen=True, kw_only=True)
class Options(ClassifierOptions):
    """Accuracies of kinds of which a sample has one class, mean average precision of those of which it has several."""

    fusion: Literal["mean", "max"] | None = None
    """How the probabilities of these become one; None takes the maximum of sigmoids and the mean of softmaxes."""
    tail_verbs: tuple[str, ...] = ()
    """Classes, by name, that are also scored by themselves, as /tail."""
    tail_nouns: tuple[str, ...] = ()
    unseen: Literal["subject", "action"] | None = None
    """Also score, as /unseen, the recordings whose subject is not in the split that is fitted on (EPIC-KITCHENS), or
    whose own action is not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, names in self.tails.items():
            if len(set(names)) < len(names):
                raise UserError(f"tail_{kind}s is {', '.join(names)}; name each class once")

    @property
    def tails(self) -> dict[str, tuple[str, ...]]:
        """By kind, where there is one."""
        named = {"verb": self.tail_verbs, "noun": self.tail_nouns}
        return {kind: names for kind, names in named.items() if names}

    def metrics(self) -> dict[str, Mode]:
        """By measure, kind of label where there are several, and part of the samples."""
        unseen = ["/unseen"] if self.unseen else []
        parts = {
            "top1": ["", "/seen", "/held_out", *unseen, "/fused"],
            "top5": ["", "/fused"],
            "mean_class": ["", "/fused"],
            "map": ["", "/seen", "/held_out"],
            "consistency": [""],
        }
        names = [
            f"recognition/{measure}{kind}{part}"
            for kind in ("", *(f"/{kind}" for kind in KINDS))
            for measure, of in parts.items()
            for part in of
        ]
        tails = [*self.tails, "action"] if self.tails else []  # an action's is its verb's or its noun's
        return dict.fromkeys([*names, *(f"recognition/top1/{kind}/tail" for kind in tails)], "max")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of a classifier on a method's encoder; the defaults fine-tune it end to end, as VideoMAE on Kinetics."""

    light: ClassVar[bool] = False
    classes: dict[str, int] = field(default_factory=lambda: {"action": 60})
    """Kinds of labels that are predicted, and how many classes each has."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """softmax is for one class per clip, sigmoid for any number, as on Charades."""
    unit: str = "recording"
    """What one sample of an epoch is: a whole recording, or a labelled segment of this kind, such as "action"."""
    perspective: Literal["ego", "exo", "any"] = "any"
    """Of the cameras that are trained on."""
    frames: int = 16
    """Frames per clip (T); as the encoder was trained, like `size_px`."""
    fps: float | None = 7.5
    """Rate in Hz; None takes the frames evenly from the whole recording or segment."""
    size_px: int = 128
    geometry: Geometry = field(default_factory=lambda: Geometry(crop="resized"))
    """How frames become squares in training; tests cut the same shape from the centre or along the longer side."""
    draws: int | None = None
    """Different clips of a sample, shown in turn from epoch to epoch; None draws start and crop anew in every epoch. A
    frozen encoder embeds each of them once where nothing is augmented."""
    encoder_lr: float | None = 1.0
    """Rate of the encoder's highest layer as a share of the classifier's, before `layer_decay`; None keeps the encoder
    frozen: a linear probe."""
    layer_decay: float = 0.75
    """Ratio of a layer's learning rate to that of the layer above."""
    drop_path: float = 0.0
    """Probability of dropping a residual branch in the encoder's last block; it grows linearly from 0 in the first."""
    dropout: float = 0.0
    """Before the classifier's linear layer."""
    label_smoothing: float = 0.1
    """Of the loss softmax; the loss sigmoid has none."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """What clips undergo after they are cropped."""

    def __post_init__(self) -> None:
        least = 2 if self.loss == "softmax" else 1
        if not self.classes or min(self.classes.values()) < least:
            raise UserError(
                f"classes is {self.classes} with loss {self.loss!r}; name at least one kind of labels, each of "
                f"{least} classes or more"
            )
        for name in ("dropout", "drop_path", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay is {self.layer_decay}; it must lie in (0, 1]")
        if self.encoder_lr is not None and self.encoder_lr <= 0:
            raise UserError(f"encoder_lr is {self.encoder_lr}; it must be above 0, or None for a frozen encoder")
        if self.encoder_lr is None and self.drop_path:
            raise UserError(f"drop_path is {self.drop_path} with a frozen encoder, which drops nothing: set it to 0")
        self.sampling()  # raises UserError for an impossible clip

    @property
    def fixed_clips(self) -> bool:
        """Whether a frame looks the same in all clips that show it: they may then come as cached features."""
        return not self.geometry.drawn and not self.augmentation.changes

    def sampling(self, *, encoded: bool = True) -> Sampling:
        """Labelled clips of one camera."""
        del encoded
        view = View(
            perspective=self.perspective,
            frames=self.frames,
            fps=self.fps,
            size_px=self.size_px,
            geometry=self.geometry,
        )
        return Sampling(
            views={"video": view},
            pairing="single",
            unit=self.unit,
            draws=self.draws,
            labels=dict(self.classes),
            label_options={kind: f"method.classes.{kind}" for kind in self.classes},
        )

    def controls(self, weights: str | None) -> Mapping[str, Control]:
        """For a trained encoder the same recipe before its training, and a linear classifier of what it reads."""
        if weights != "trained":
            return {}
        linear = replace(self, encoder_lr=None, drop_path=0.0)
        return {
            "random init": Control(config=self, weights="random"),
            "input features": Control(config=linear, weights="input"),
        }


def presets() -> dict[str, Callable[[], Recipe]]:
    """Fine-tuning on MV2MAE's sets and on segments of long videos, BYOV's linear probe, and a small one."""
    return {
        "ntu60": lambda: fine_tuning(60),
        "ntu120": lambda: fine_tuning(120),
        "ntu120-vit-t": lambda: fine_tuning(120),
        "ntu120-vit-b": lambda: fine_tuning(120, epochs=75),
        "etri": lambda: fine_tuning(55),
        "nucla": lambda: _on_few(fine_tuning(10)),
        "pkummd2": lambda: _on_few(fine_tuning(51, unit="action")),
        "rocog": lambda: _on_few(fine_tuning(7)),
        "keystep": lambda: _segments("keystep", {"keystep": 278}, "any"),
        "epic100": lambda: _segments("verb", {"verb": 97, "noun": 300}, "ego"),
        "charades_ego_probe": _charades_ego_probe,
        "debug": _debug,
    }


def fine_tuning(classes: int, *, epochs: int = 150, unit: str = "recording") -> Recipe:
    """VideoMAE's recipe for Kinetics (150 epochs of ViT-S, 75 of ViT-B) in batches of 512; the rate scales with them.

    MV2MAE's paper states none for its own benchmarks.
    """
    batch = 512
    optim = Optim(
        lr=5e-4 * batch / 256,
        min_lr=1e-6 * batch / 256,
        warmup_share=5 / epochs,
        warmup_lr=0.0,
        batch=batch,
        epochs=epochs,
    )
    return Recipe(method=Config(classes={"action": classes}, unit=unit, drop_path=0.1), optim=optim)


def _on_few(recipe: Recipe) -> Recipe:
    """VideoMAE's changes for UCF101, in batches of 64: for small datasets."""
    batch, epochs = 64, 100
    optim = replace(
        recipe.optim,
        lr=5e-4 * batch / 256,
        min_lr=1e-5 * batch / 256,
        warmup_share=5 / epochs,
        batch=batch,
        epochs=epochs,
    )
    return Recipe(method=replace(recipe.method, dropout=0.5, drop_path=0.2, layer_decay=0.7), optim=optim)


def _segments(unit: str, classes: dict[str, int], perspective: Literal["ego", "any"]) -> Recipe:
    """Of segments in long recordings, by the recipe for Kinetics: these benchmarks state none for such encoders."""
    recipe = fine_tuning(2, epochs=75)
    return replace(recipe, method=replace(recipe.method, classes=classes, unit=unit, perspective=perspective))


def _charades_ego_probe() -> Recipe:
    """A linear layer on the mean of BYOV's frames, 32 of a whole video; its optimiser is not reported and ours.

    At even distances and uncropped: a video has one clip, which is embedded once whatever `draws` is.
    """
    method = Config(
        classes={"action": 157},
        loss="sigmoid",
        frames=32,
        fps=None,
        size_px=224,
        geometry=Geometry(fit="squash", via_px=256),  # as BYOV's encoder was trained
        encoder_lr=None,
        label_smoothing=0.0,
        augmentation=NO_AUGMENTATION,
    )
    return Recipe(method=method, optim=Optim(lr=1e-3, weight_decay=0.0, batch=64, epochs=50))


def _debug() -> Recipe:
    """Of the clips that the debug preset of MV2MAE trains on; for a laptop."""
    return Recipe(
        method=Config(classes={"action": 4}, frames=8, size_px=64, layer_decay=1.0),
        optim=Optim(lr=1e-3, warmup_steps=10, clip_norm=1.0, batch=16, steps=100),
    )
