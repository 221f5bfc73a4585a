"""Options of MV2MAE and the recipes behind its tables. Imports no torch, so that `--help` stays fast."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.spec import Sampling, View
from crossview.errors import UserError
from crossview.methods.recipe import LossWeights, Optim, Recipe, values_of


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A stack of Transformer blocks."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


VIT_T = Transformer(width=192, depth=12, heads=3)
VIT_S = Transformer(width=384, depth=12, heads=6)
VIT_B = Transformer(width=768, depth=12, heads=12)
DECODERS = {192: (96, 3), 384: (192, 3), 768: (384, 6)}
"""Width and heads of VideoMAE's decoder by encoder width; it has none for ViT-T, whose decoder is half as wide too."""


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Which tokens are masked."""

    ratio: float = 0.7
    kind: Literal["random", "tube"] = "random"
    """random masks tokens anywhere in space and time; tube masks the same locations at all times, as in VideoMAE."""

    def count(self, times: int, places: int) -> int:
        """Number of masked tokens in a clip, rounded down: 358 of 8 x 64 at 0.7, or 352 with tubes."""
        if self.kind == "tube":
            return times * math.floor(self.ratio * places + 1e-9)
        return math.floor(self.ratio * times * places + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Weight of each token's error: a softmax over the frame differences of the clip's tokens (equation 2).

    The paper leaves the scale, the norm, the set of tokens in the softmax and the rescaling open. Its literal formula,
    on 0-255 pixels, is ``norm="l2", rescale=False``; a temperature of 60 then puts nearly all weight on one token.
    """

    temperature: float | None = 60.0
    """None weights all tokens equally."""
    norm: Literal["rms", "l2"] = "rms"
    """Norm of a token's differences: root mean square, or L2 (39 times as large for 2 x 16 x 16 x 3 values)."""
    scale: Literal["0-255", "0-1", "standardised"] = "0-255"
    """Pixel range of the differences; standardised is 0-1 divided by ImageNet's standard deviation."""
    over: Literal["all", "masked"] = "all"
    """Tokens in the softmax."""
    rescale: bool = True
    """Multiply the weights by the number of tokens in the softmax, so that their mean is 1."""
    first_frame: Literal["copy", "zero"] = "copy"
    """Difference of the first frame, which has no predecessor: a copy of the second frame's, or zero."""

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature <= 0:
            raise UserError(
                f"motion.temperature is {self.temperature}; it must be above 0, or None to weight all tokens equally"
            )


@dataclass(frozen=True, kw_only=True)
class Weights(LossWeights):
    """Weights of the three reconstruction losses; a decoder is not built if all its losses have weight 0."""

    same_source: float = 1.0
    same_target: float = 1.0
    cross: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of MV2MAE; defaults are from the paper where it states them, otherwise from VideoMAE."""

    unit: str = "recording"
    """What one sample of an epoch is: a whole recording (of one scene), or a labelled segment of this kind, such as
    "action"."""
    frames: int = 16
    """Frames per clip (T)."""
    fps: float = 7.5
    """Every fourth frame at 30 Hz."""
    size_px: int = 128
    patch_px: int = 16
    """Side length of a token in pixels."""
    tubelet: int = 2
    """Frames per token."""
    encoder: Transformer = VIT_S
    same_decoder: Transformer = field(default_factory=lambda: Transformer(width=192, depth=4, heads=3))
    cross_decoder: Transformer = field(default_factory=lambda: Transformer(width=192, depth=4, heads=3))
    positions: Literal["index", "grid"] = "index"
    """Fixed sin-cos code: of the token index, as in VideoMAE, or of its time, row and column, a third of the width
    each, with wavelengths matched to the grid, which a small model can learn from within few steps."""
    masking: Masking = field(default_factory=Masking)
    motion: Motion = field(default_factory=Motion)
    weights: Weights = field(default_factory=Weights)
    swap_roles: bool = False
    """Also reconstruct the source from the target, with the same cross-view decoder; the two errors are averaged."""
    target_norm: Literal["none", "token", "channel"] = "none"
    """none predicts standardised pixels; token normalises each token to mean 0 and variance 1; channel does so for each
    colour of a token, as in VideoMAE."""
    geometry: Geometry = field(default_factory=lambda: Geometry(crop="corners"))
    """How frames become squares of `size_px`; by default multi-scale crops, drawn for each view."""
    crop_scales: tuple[float, ...] = ()
    """With a geometry that draws nothing: sides of random crops of the squares, as fractions of theirs, on the device
    and for each view, for frames that are cached. () turns them off."""
    flip: float = 0.0
    """Probability that a training clip is mirrored; both views of a pair are mirrored together."""
    embed_stride: int = 4
    """Temporal stride for embedding whole recordings; at 30 Hz, 4 gives the training rate of 7.5 Hz."""

    def __post_init__(self) -> None:
        for name in ("frames", "size_px", "patch_px", "tubelet", "embed_stride"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.frames % self.tubelet:
            raise UserError(
                f"frames is {self.frames} and tubelet {self.tubelet}; a clip must consist of whole tubelets: make "
                "frames a multiple of tubelet"
            )
        if self.frames < 2:
            raise UserError(f"frames is {self.frames}; it must be at least 2 to have frame differences")
        if self.size_px % self.patch_px:
            raise UserError(
                f"size_px is {self.size_px} and patch_px {self.patch_px}; a frame must consist of whole patches: make "
                "size_px a multiple of patch_px"
            )
        self._check_masking()
        for name in ("encoder", "same_decoder", "cross_decoder"):
            stack = getattr(self, name)
            if min(stack.width, stack.depth, stack.heads, stack.mlp_ratio) <= 0 or stack.width % stack.heads:
                raise UserError(
                    f"{name} has {values_of(stack)}; all values must be above 0 and heads must divide the width"
                )
            if stack.width % 2 or stack.width < 6:
                raise UserError(f"{name}.width is {stack.width}; it must be even, and at least 6 for its positions")
        if not 0 <= self.flip <= 1 or not all(0 < s <= 1 for s in self.crop_scales):
            raise UserError(
                f"flip is {self.flip} and crop_scales {self.crop_scales}; flip must be in [0, 1] and scales in (0, 1]"
            )
        if self.crop_scales and self.geometry.drawn:
            raise UserError(
                f"crop_scales is {self.crop_scales} with geometry.crop {self.geometry.crop!r}, which crops already: "
                "pass --method.crop-scales without values, or --method.geometry.crop centre --method.geometry.short-px "
                "None"
            )

    def _check_masking(self) -> None:
        hidden, tokens = self.masking.count(*self.grid[:2]), self.tokens
        if not 0 < self.masking.ratio < 1 or not 0 < hidden < tokens:
            raise UserError(
                f"masking.ratio is {self.masking.ratio}, which masks {hidden} of {tokens} tokens; it must be between 0 "
                "and 1, with at least one token masked and one visible: change the ratio or use more tokens"
            )

    @staticmethod
    def upgraded(options: dict[str, Any]) -> dict[str, Any]:
        """Options that a version with fine-tuning wrote, without its own; raises ValueError for a fine-tuned run."""
        if options.get("stage", "pretrain") != "pretrain":
            raise UserError(
                "method.stage is 'finetune', which MV2MAE no longer has; fine-tune its pre-training run with "
                "`crossview train recognition --encoder.run RUN`"
            )
        return {name: value for name, value in options.items() if name not in ("stage", "finetuning")}

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tokens in time and in space: 8 and 64."""
        return self.frames // self.tubelet, (self.size_px // self.patch_px) ** 2

    @property
    def tokens(self) -> int:
        """Number of tokens in a clip (N)."""
        return self.grid[0] * self.grid[1]

    @property
    def token_values(self) -> int:
        """Number of colour values in a token: 1536 for 2 x 16 x 16 pixels."""
        return self.tubelet * self.patch_px**2 * 3

    def sampling(self) -> Sampling:
        """Two cameras of one scene at the same T instants."""
        view = View(perspective="any", frames=self.frames, fps=self.fps, size_px=self.size_px, geometry=self.geometry)
        return Sampling(views={"source": view, "target": view}, pairing="synchronized", unit=self.unit)


def presets() -> dict[str, Callable[[], Recipe]]:
    """Pre-training per benchmark, encoder sizes, and a debug preset."""
    return {
        "ntu60": _pretraining,
        "ntu120": _pretraining,
        "etri": _pretraining,
        "ntu120-vit-t": lambda: _pretraining(VIT_T),
        "ntu120-vit-b": lambda: _pretraining(VIT_B),
        "debug": _debug,
    }


def _sized(encoder: Transformer) -> Config:
    width, heads = DECODERS[encoder.width]
    decoder = Transformer(width=width, depth=4, heads=heads)
    return Config(encoder=encoder, same_decoder=decoder, cross_decoder=decoder)


def _pretraining(encoder: Transformer = VIT_S) -> Recipe:
    """AdamW and 1600 epochs are from the paper; it leaves out the rest, which is from VideoMAE's ViT-S on Kinetics."""
    optim = Optim(
        lr=1.5e-4 * 1024 / 256,
        min_lr=1e-5 * 1024 / 256,
        betas=(0.9, 0.95),
        warmup_share=40 / 1600,
        warmup_lr=0.0,
        batch=1024,
        epochs=1600,
    )
    return Recipe(method=_sized(encoder), optim=optim)


def _debug() -> Recipe:
    """Small enough to train on a laptop CPU in about a minute."""
    decoder = Transformer(width=48, depth=2, heads=4)
    return Recipe(
        method=Config(
            frames=8,
            size_px=64,
            encoder=Transformer(width=96, depth=4, heads=4),
            same_decoder=decoder,
            cross_decoder=decoder,
            positions="grid",
            geometry=Geometry(),
            crop_scales=(1.0, 0.875, 0.75, 0.66),
            embed_stride=2,
        ),
        optim=Optim(lr=2e-3, betas=(0.9, 0.95), warmup_steps=10, clip_norm=1.0, batch=16, steps=150),
    )
