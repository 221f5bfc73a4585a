"""EVGAP's options and the recipes of its two steps. No torch: `--help` stays fast."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.spec import Sampling, View
from crossview.errors import UserError
from crossview.methods.base_config import Base
from crossview.methods.recipe import Optim, Recipe, values_of

CLIP_SCALE = 1 / 0.07
"""CLIP's initial logit scale."""
MAX_SCALE = 100.0
"""A learned scale is clamped to [1, 100], as in CLIP."""
TEXT = math.log10(1 / 0.7)
"""The paper's initial value of step 2's temperature."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The encoder, shared by ego and exo clips; its class token is the clip's embedding."""

    width: int = 512
    depth: int = 6
    heads: int = 8
    hidden: int = 2048
    """Width of the feed-forward network, which uses ReLU."""
    dropout: float = 0.1
    """On the input tokens, the attention weights and each residual branch, in training."""
    norm: Literal["post", "pre"] = "post"
    """post is PyTorch's default Transformer layer, whose output is normalised; pre normalises the input of each branch,
    and the class token of every layer by an additional norm."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.hidden) < 1 or self.width % self.heads:
            raise UserError(f"encoder has {values_of(self)}; sizes must be at least 1 and heads must divide the width")
        if not 0 <= self.dropout < 1:
            raise UserError(f"encoder.dropout is {self.dropout}; it must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of EVGAP. Defaults follow the paper; the README lists the choices made where it is silent."""

    step: Literal["pairs", "groups"] = "pairs"
    """pairs aligns one ego with one exo clip (step 1); groups aligns all cameras of an instant (step 2)."""
    input: Literal["features", "video"] = "features"
    """What the catalog contains: precomputed frame features, or video, from which the frozen `base` computes them."""
    feature_width: int = 2048
    """With input "features": values per frame, over all tokens (N x D)."""
    base: Base = field(default_factory=Base)
    """With input "video": the frozen timm backbone."""
    geometry: Geometry = field(default_factory=Geometry)
    """With input "video": how frames become squares of `base.size_px`."""
    base_grid: int | None = None
    """None uses the pooled output of any timm model; g averages a plain ViT's patch tokens over each cell of a g x g
    grid and concatenates the cells, which preserves spatial information."""
    encoder: Encoder = field(default_factory=Encoder)
    ego_views: int = 4
    """Ego cameras of a group (M); a missing camera is left out of the loss."""
    exo_views: int = 8
    """Exo cameras of a group (N)."""
    frames: int = 20
    """Frames of a window of scale 1, and of the window around each frame when embedding."""
    fps: float = 30.0
    """Frame rate of the windows; recordings with another rate are sampled at the nearest frames."""
    window_scale: tuple[float, float] = (0.5, 2.0)
    """Range of a window's length in units of `frames`, drawn log-uniformly per instant and shared by its cameras."""
    window_length: Literal["true", "resampled"] = "true"
    """true gives clips of 10 to 40 frames, with padding masked; resampled takes 20 frames at a scaled distance."""
    window_stride: int | None = 100
    """Windows of one recording start on a grid with this spacing in frames; None draws each start independently."""
    clips_per_video: int = 10
    """Windows per recording (or scene) in a batch."""
    scale: Literal["learned", "fixed"] = "learned"
    """Logit scale, the factor of the similarities: learned in the log domain within [1, 100], or fixed."""
    scale_init: float = CLIP_SCALE
    bias: Literal["learned", "none"] = "learned"
    """Added to the scaled similarities in step 2; the printed loss has no bias and therefore a wrong optimum."""
    bias_init: float = -10.0
    """As in SigLIP's code; with step 1's weights and scale 1/0.07, clips of one recording start near the boundary."""
    logits_lr: float = 1.0
    """Learning rate of scale and bias, relative to the encoder's; above 1, they settle before the encoder degrades."""
    auxiliary: float = 0.2
    """Weight of the loss on the class token of each layer except the last; 0 disables these losses."""
    gather: bool = True
    """Step 1's negatives come from all workers, with gradient; step 2's always from the worker's own batch."""

    def __post_init__(self) -> None:
        for name in ("feature_width", "ego_views", "exo_views", "frames", "clips_per_video"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.base_grid is not None and self.base_grid < 1:
            raise UserError(f"base_grid is {self.base_grid}; it must be at least 1, or None for the pooled output")
        if self.auxiliary < 0:
            raise UserError(f"auxiliary is {self.auxiliary}; it must be 0 or more")
        if self.logits_lr <= 0:
            raise UserError(f"logits_lr is {self.logits_lr}; it must be above 0, or set scale='fixed', bias='none'")
        low = 1.0 if self.scale == "learned" else 0.0
        if not (low <= self.scale_init <= MAX_SCALE and self.scale_init > 0):
            raise UserError(
                f"scale_init is {self.scale_init} with scale {self.scale!r}; a learned one must lie in [1, 100], a "
                "fixed one in (0, 100]"
            )
        self.sampling()  # raises ValueError for invalid windows

    def sampling(self) -> Sampling:
        """`clips_per_video` synchronised windows of one ego and one exo camera of a scene, or of all its cameras."""

        def view(perspective: Literal["ego", "exo"], count: int) -> View:
            size_px, groups = self.base.size_px, self.step == "groups"
            return View(
                perspective=perspective,
                frames=self.frames,
                fps=self.fps,
                size_px=size_px,
                geometry=self.geometry,
                count=count if groups else 1,
            )

        return Sampling(
            views={"ego": view("ego", self.ego_views), "exo": view("exo", self.exo_views)},
            pairing="group" if self.step == "groups" else "synchronized",
            windows=self.clips_per_video,
            window_scale=self.window_scale,
            window_scale_spread="log",
            window_length=self.window_length,
            window_stride=self.window_stride,
        )

    def without_pretrained(self) -> Config:
        """The same network with a randomly initialised base, whose weights are then loaded from a checkpoint."""
        return replace(self, base=replace(self.base, weights="random"))

    def features_key(self) -> dict[str, Any]:
        """Cache key of the frozen features: runs that differ in other options share the cache."""
        return {"grid": self.base_grid} | {k: v for k, v in asdict(self.base).items() if k != "chunk"}


def presets() -> dict[str, Callable[[], Recipe]]:
    """The paper's two steps, step 2 with the printed loss at four readings of its temperature, and a small preset."""
    return {
        "paper_step1": _step1,
        "paper_step2": _step2,
        "paper_literal_raw": lambda: _literal(TEXT),
        "paper_literal_exp": lambda: _literal(math.exp(TEXT)),
        "paper_literal_ten": lambda: _literal(10**TEXT),
        "paper_literal_clip": lambda: _literal(CLIP_SCALE),
        "debug": _debug,
    }


def _step1() -> Recipe:
    """200 pairs: 20 recordings x 10 windows. The paper states only Adam, its learning rate and the batch size."""
    return Recipe(
        method=Config(step="pairs"),
        optim=Optim(optimizer="adam", lr=5e-4, weight_decay=0.0, warmup_share=0.05, batch=20, epochs=50),
    )


def _step2(method: Config | None = None) -> Recipe:
    """60 groups: 6 recordings x 10 windows (the paper's 64 is not a multiple of 10); starts from step 1's weights."""
    return Recipe(
        method=method or Config(step="groups"),
        optim=Optim(optimizer="adamw", lr=1e-4, weight_decay=0.05, warmup_share=0.05, batch=6, epochs=30),
    )


def _literal(scale: float) -> Recipe:
    """Equation 2 as printed: no bias, and the scale fixed at one reading of "log10(1/0.7)"."""
    return _step2(Config(step="groups", scale="fixed", scale_init=scale, bias="none"))


def _debug() -> Recipe:
    """Trains on a laptop CPU in about a minute, with a random base that needs no download."""
    base = Base(model="vit_tiny_patch16_224", weights="random", size_px=96, width=96, depth=2, heads=3)
    method = Config(
        input="video",
        base=base,
        base_grid=3,
        encoder=Encoder(width=64, depth=3, heads=4, hidden=128, dropout=0.0),
        ego_views=1,
        exo_views=4,
        frames=8,
        fps=15.0,
        window_stride=8,
        clips_per_video=4,
    )
    return Recipe(method=method, optim=Optim(lr=1e-3, warmup_steps=10, clip_norm=1.0, batch=4, steps=60))
