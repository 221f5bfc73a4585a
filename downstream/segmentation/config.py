"""Options of temporal action segmentation. Imports no torch, so that `--help` stays fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from crossview.datasets.sampling.sequences import Sequences, Side
from crossview.downstream.task import Mode, PredictionOptions
from crossview.downstream.trainer_config import Control
from crossview.errors import UserError
from crossview.methods.recipe import Optim, Recipe

METRICS = ("f1@10", "f1@25", "f1@50", "edit", "accuracy", "mean")
Architecture = Literal["c2f-tcn", "asformer", "ltcontext"]


@dataclass(frozen=True, kw_only=True)
class Options(PredictionOptions):
    """How a trained segmentation is scored."""

    def metrics(self) -> dict[str, Mode]:
        """Over all videos' frames and segments together, the mean of videos, and agreement of cameras; in percent."""
        both = [*METRICS, *(f"per_video/{name}" for name in METRICS), "consistency"]
        return dict.fromkeys((f"segmentation/{name}" for name in both), "max")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of a segmentation model on features of frames, or on a trained method's clip embeddings of them."""

    light: ClassVar[bool] = True
    model: Architecture = "c2f-tcn"
    kind: str = "coarse"
    """Which segments, or labels of frames, are predicted."""
    classes: int = 202
    unit: str = "recording"
    """What a video is: the labelled span of a recording, or each segment of this kind, such as "sequence"."""
    width: int = 2048
    """Values of one frame's features."""
    views: tuple[Side, ...] = ("any",)
    """Cameras seen at once, by perspective; the channels of two are concatenated."""
    test_views: tuple[str, ...] = ()
    """With two cameras, which are evaluated; () takes the first of each perspective by name."""
    chunk: int = 20
    """Frames per step: their features' maximum, or their embedding as one clip."""
    chunk_range: tuple[int, int] | None = None
    """In half of the training samples the frames per step are drawn log-uniformly from this range."""
    test_chunks: tuple[int, ...] = ()
    """Frames per step in evaluation, whose probabilities are averaged; () is `chunk`."""
    max_steps: int = 1200
    """Longer videos are cut into consecutive parts of so many steps."""
    beside: bool = False
    """Concatenate the encoder's embeddings with the features, instead of replacing them."""
    encoder_lr: float | None = None
    """Rate of the encoder as a share of the model's; None keeps it frozen."""
    encoder_clips: int = 256
    """Clips that the encoder embeds at once; bounds memory, changes no result."""

    def __post_init__(self) -> None:
        for name in ("classes", "width", "encoder_clips"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.encoder_lr is not None and self.encoder_lr <= 0:
            raise UserError(f"encoder_lr is {self.encoder_lr}; it must be above 0, or None for a frozen encoder")
        self.sampling()

    def sampling(self, *, encoded: bool = False) -> Sequences:
        """Labelled spans as steps; with an encoder, all frames of each."""
        return Sequences(
            kind=self.kind,
            classes=self.classes,
            option="method.classes",
            unit=self.unit,
            views=self.views,
            chunk=self.chunk,
            chunk_range=self.chunk_range,
            test_chunks=self.test_chunks,
            test_views=self.test_views,
            max_steps=self.max_steps,
            pooled=not encoded,
        )

    def controls(self, weights: str | None) -> Mapping[str, Control]:
        """The same model on the features alone, and on a random encoder, trained alike."""
        if weights is None:
            return {}
        alone = Control(config=replace(self, encoder_lr=None, beside=False), weights=None)
        return {"input features": alone, "random init": Control(config=self, weights="random")}


def presets() -> dict[str, Callable[[], Recipe]]:
    """Each architecture with its authors' optimiser, on one camera and on two, and a small one for debugging."""
    return {
        "c2f-tcn": _c2f_tcn,
        "asformer": _asformer,
        "ltcontext": _ltcontext,
        "c2f-tcn-two-views": lambda: _two_views(_c2f_tcn()),
        "asformer-two-views": lambda: _two_views(_asformer()),
        "ltcontext-two-views": lambda: _two_views(_ltcontext()),
        "debug": _debug,
    }


def _c2f_tcn() -> Recipe:
    """As the Assembly101 benchmark trains it: a constant rate, chunk sizes drawn for half of the samples."""
    return Recipe(
        method=Config(model="c2f-tcn", unit="sequence", chunk_range=(10, 40)),
        optim=Optim(optimizer="adam", lr=1e-4, weight_decay=1e-4, schedule="constant", batch=20, epochs=200),
    )


def _asformer() -> Recipe:
    """The authors' optimiser; they give no setting for Assembly101, so the steps are those of C2F-TCN."""
    return Recipe(
        method=Config(model="asformer", unit="sequence"),
        optim=Optim(optimizer="adam", lr=5e-4, weight_decay=1e-5, schedule="constant", batch=1, epochs=120),
    )


def _ltcontext() -> Recipe:
    """The authors' optimiser: a constant rate for 15 epochs, then half a cosine; steps as C2F-TCN's."""
    return Recipe(
        method=Config(model="ltcontext", unit="sequence"),
        optim=Optim(
            optimizer="adam",
            lr=2.5e-4,
            weight_decay=1e-3,
            schedule="cosine",
            warmup_lr=2.5e-4,  # a warm-up from the rate itself is a constant rate
            warmup_share=15 / 120,
            min_lr=5e-5,
            batch=1,
            epochs=120,
        ),
    )


def _two_views(recipe: Recipe) -> Recipe:
    config = recipe.method
    assert isinstance(config, Config)
    return replace(recipe, method=replace(config, views=("ego", "exo"), test_views=("e1", "v1")))


def _debug() -> Recipe:
    return Recipe(
        method=Config(chunk=4, max_steps=64),
        optim=Optim(optimizer="adam", lr=1e-3, weight_decay=1e-4, schedule="constant", batch=4, steps=60),
    )
