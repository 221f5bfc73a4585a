"""BYOV's options and the recipes of its tables. No torch: `--help` stays fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.spec import Sampling, View
from crossview.errors import UserError
from crossview.methods.base_config import Base
from crossview.methods.recipe import LossWeights, Optim, Recipe, values_of

TimeCode = Literal["continuous", "index", "none"]


RELEASED = Geometry(fit="squash", via_px=256)
"""As the released code prepares frames: the aspect is not kept."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The trained encoder, shared by both views; its width is the embedding's."""

    width: int = 256
    depth: int = 12
    heads: int = 16
    mlp_ratio: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The decoder of the masked tokens, used in training only."""

    width: int = 256
    depth: int = 4
    heads: int = 16
    mlp_ratio: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Weights(LossWeights):
    """Weights of the four losses; a task whose weights are both 0 is skipped."""

    msm_ego: float = 1.0
    msm_exo: float = 1.0
    mcm_ego: float = 1.0
    mcm_exo: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of BYOV; the defaults are the paper's."""

    base: Base = field(default_factory=Base)
    encoder: Encoder = field(default_factory=Encoder)
    decoder: Decoder = field(default_factory=Decoder)
    frames: int = 32
    """Frames of a training clip (T), and the span of the continuous time code."""
    geometry: Geometry = field(default_factory=lambda: RELEASED)
    """How frames become squares of `base.size_px`."""
    stm_ratio: float | None = 0.3
    """Share of patches that selective token merging keeps; None averages all of them."""
    stm_evaluation_gap: Literal["adjacent", "training"] = "adjacent"
    """Which later frame ranks a complete recording's patches: the next one, or one as far away as in training."""
    msm_ratio: float = 0.4
    """Share of frames that are masked in self-view modelling (MSM)."""
    mcm_ratio: float = 0.8
    """Share of frames that are masked in cross-view modelling (MCM)."""
    weights: Weights = field(default_factory=Weights)
    loss_on: Literal["masked", "all"] = "masked"
    """Positions over which the losses are averaged."""
    input_norm: Literal["none", "clip"] = "none"
    """clip subtracts each channel's mean over the clip (the complete recording when embedding), and with it what never
    changes in the clip; the targets are then centred too."""
    target_norm: Literal["none", "token", "clip"] = "none"
    """token standardises every target over its channels, so that a few large channels do not dominate the loss; clip
    subtracts each channel's mean over the clip and scales the result to unit variance, so that what never changes in
    the clip (room, clothes, view) does not dominate the loss."""
    pairs: Literal["ego-exo", "merged"] = "ego-exo"
    """merged draws both videos of a sample from one pool of both views, as the released code does."""
    final_norm: bool = True
    """LayerNorm after the encoder's blocks; False places it before them, as the released code does."""
    causal_msm: bool = True
    """A position of the self-view decoder attends only to itself and to earlier positions."""
    causal_encoder: bool = False
    """In self-view modelling the encoder is causal too: no later visible frame affects an earlier prediction."""
    segment_embedding: bool = False
    """Learned vectors distinguish target and context in the cross-view decoder."""
    time_code: TimeCode = "continuous"
    """continuous encodes the elapsed share of the recording, index the position in the clip."""

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise UserError(f"frames is {self.frames}; it must be at least 2: one masked and one visible")
        if self.stm_ratio is not None and not 0 < self.stm_ratio <= 1:
            raise UserError(f"stm_ratio is {self.stm_ratio}; it must lie in (0, 1], or be None for all patches")
        for name in ("msm_ratio", "mcm_ratio"):
            ratio = getattr(self, name)
            if not 0 < ratio < 1 or not 1 <= round(ratio * self.frames) < self.frames:
                raise UserError(
                    f"{name} is {ratio} with {self.frames} frames; it must lie between 0 and 1 and leave at least one "
                    "frame masked and one visible"
                )
        for part, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            if min(stack.width, stack.depth, stack.heads, stack.mlp_ratio) <= 0 or stack.width % stack.heads:
                raise UserError(f"{part} has {values_of(stack)}; all must be above 0 and heads must divide the width")
        if self.segment_embedding and not (self.weights.mcm_ego or self.weights.mcm_exo):
            raise UserError("segment_embedding is on, but both MCM weights are 0 and only MCM uses it: turn it off")

    def sampling(self) -> Sampling:
        """Two videos of one action, never the same file, and T random frames of each."""
        merged = self.pairs == "merged"

        def view(perspective: Literal["ego", "exo"]) -> View:
            kind: Literal["ego", "exo", "any"] = "any" if merged else perspective
            size_px, geometry = self.base.size_px, self.geometry
            return View(perspective=kind, frames=self.frames, spread="random", size_px=size_px, geometry=geometry)

        return Sampling(views={"ego": view("ego"), "exo": view("exo")}, pairing="unpaired")

    def without_pretrained(self) -> Config:
        """The same network with a random base, whose weights a checkpoint then replaces."""
        return replace(self, base=replace(self.base, weights="random"))

    def features_key(self) -> dict[str, Any]:
        """What determines the base's patch tokens: runs that differ only elsewhere share one cache of them."""
        return {name: value for name, value in asdict(self.base).items() if name != "chunk"}


def presets() -> dict[str, Callable[[], Recipe]]:
    """One preset for each of the four AE2 datasets, and a small one for a laptop."""
    return {
        "break_eggs": lambda: _paper(steps=9_000, batch=4),
        "pour_milk": lambda: _paper(steps=23_100),
        "pour_liquid": lambda: _paper(steps=41_100),
        "tennis_forehand": lambda: _paper(steps=51_900, frames=20),
        "debug": _debug,
    }


def _paper(*, steps: int, frames: int = 32, batch: int = 1) -> Recipe:
    """The released scripts' optimiser (the paper states none): Adam, coupled weight decay, constant learning rate.

    steps: as many as their 300 epochs have, with one row per training video, ego or exo; an epoch here has only one row
    per video of the larger view.
    """
    return Recipe(
        method=Config(frames=frames),
        optim=Optim(optimizer="adam", lr=1e-5, weight_decay=5e-6, schedule="constant", batch=batch, steps=steps),
    )


def _debug() -> Recipe:
    """Small enough to train on a laptop's CPU in about a minute, with a random base that needs no download."""
    base = Base(model="vit_tiny_patch16_224", weights="random", size_px=112, width=96, depth=2, heads=3)
    return Recipe(
        method=Config(
            base=base,
            encoder=Encoder(width=64, depth=4, heads=4),
            decoder=Decoder(width=64, depth=2, heads=4),
            frames=16,
            geometry=Geometry(),
        ),
        optim=Optim(lr=1e-3, weight_decay=1e-4, warmup_steps=10, clip_norm=1.0, batch=8, steps=150),
    )
