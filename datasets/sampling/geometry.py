"""Which part of a picture a clip shows, and how it becomes a square: declared by a view, drawn by the plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from crossview.datasets.video.framing import Framing, Region, Scaling
from crossview.errors import UserError

_QUARTERS = (
    (0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3),
)  # fmt: skip
"""Places of a multi-scale crop, down and across, in quarters of the margin (Wang et al., TSN, ECCV 2016)."""
_TRIES = 10
"""Draws of a random resized crop that fits, before the largest one in the centre is taken."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How displayed pictures become squares; the crops of a clip's frames are the same."""

    fit: Literal["crop", "squash", "pad"] = "crop"
    """crop keeps the aspect and cuts a square out; squash scales both sides to the square's; pad keeps all of the
    picture, between black bars."""
    crop: Literal["centre", "random", "resized", "corners"] = "centre"
    """Of training clips. random is anywhere; resized has a random area and aspect; corners is at one of 13 places, with
    sides from `scales` (TSN). Evaluations cut the centre."""
    short_px: tuple[int, int] | None = None
    """With centre and random: the picture's short side before the square is cut, drawn from this range; its low end in
    evaluations. None is the square's side, so that a crop has the whole short side."""
    area: tuple[float, float] = (0.08, 1.0)
    """With resized: range of the crop's share of the picture."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """With resized: range of width over height, drawn log-uniformly; the crop is then scaled to a square."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """With corners: sides as shares of the picture's short side; width and height are at most one entry apart."""
    shared: bool = False
    """One draw for all views of a window; else one for each."""
    via_px: int | None = None
    """Scale to a square of this side by area first, and from there by cubic convolution, in RGB, as if pictures were
    kept at that size."""
    scaling: Scaling = "auto"
    """Interpolation of a scaling in one step."""

    def __post_init__(self) -> None:
        if self.fit != "crop" and (self.crop != "centre" or self.short_px is not None):
            raise UserError(
                f"geometry: crop is {self.crop!r} and short_px {self.short_px} with fit {self.fit!r}, which keeps the "
                "whole picture: leave both out, or take fit 'crop'"
            )
        if self.short_px is not None and self.crop not in ("centre", "random"):
            raise UserError(
                f"geometry: short_px is {self.short_px} with crop {self.crop!r}, which is a share of the picture: "
                "leave short_px out, or take crop 'centre' or 'random'"
            )
        for name in ("short_px", "area", "ratio"):
            low, high = getattr(self, name) or (1, 1)
            if not 0 < low <= high:
                raise UserError(f"geometry: {name} is {getattr(self, name)}; it must satisfy 0 < low <= high")
        if self.area[1] > 1:
            raise UserError(f"geometry: area is {self.area}; a crop is at most the whole picture: end the range at 1")
        if not self.scales or not all(0 < s <= 1 for s in self.scales):
            raise UserError(
                f"geometry: scales is {self.scales}; give at least one share of the short side, each in (0, 1]"
            )
        if self.via_px is not None and (self.via_px < 2 or self.fit == "pad" or self.scaling != "auto"):
            raise UserError(
                f"geometry: via_px is {self.via_px} with fit {self.fit!r} and scaling {self.scaling!r}; it must be at "
                "least 2, with fit 'crop' or 'squash', and says how to scale: leave scaling out"
            )

    @property
    def drawn(self) -> bool:
        """Whether clips of one recording have different regions."""
        return self.crop != "centre" or (self.short_px is not None and self.short_px[0] < self.short_px[1])

    def central(self) -> Geometry:
        """The form of embedding and evaluation, without anything drawn."""
        short = self.short_px and (self.short_px[0], self.short_px[0])
        return replace(self, crop="centre", short_px=short)

    def check(self, size_px: int) -> None:
        """Raise ValueError if a square of size_px is larger than the pictures it is cut from."""
        if self.short_px is not None and self.short_px[0] < size_px:
            raise UserError(
                f"geometry: short_px is {self.short_px} for squares of {size_px} px; the short side must be at least "
                "as long: raise it or lower the size"
            )

    def region(self, height: int, width: int, size_px: int, rng: np.random.Generator) -> Region | None:
        """The part of a picture of height x width, displayed, that a clip shows; None is all of it."""
        if self.fit != "crop":
            return None
        if self.crop == "resized":
            return self._resized(height, width, rng)
        if self.crop == "corners":
            return self._corner(height, width, rng)
        low, high = self.short_px or (size_px, size_px)
        side = min(height, width) * size_px / (low if low == high else rng.uniform(low, high))
        down, across = (0.5, 0.5) if self.crop == "centre" else rng.uniform(size=2)
        return _placed(height, width, side, side, down, across)

    def centre(self, height: int, width: int, size_px: int) -> Region | None:
        """The region of `central`."""
        return self.central().region(height, width, size_px, np.random.default_rng(0))  # draws nothing

    def framing(self, region: Region | None, height: int, width: int, size_px: int) -> Framing:
        """A region of a picture of height x width as a square."""
        size, via = (size_px, size_px), self.via_px and (self.via_px, self.via_px)
        if self.fit != "pad" or height == width:
            return Framing(region, size, None, via or None, self.scaling)
        scale = size_px / max(height, width)
        tall, wide = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
        return Framing(None, size, (tall, wide), None, self.scaling)

    def band(self, height: int, width: int, size_px: int) -> Framing:
        """As a `central` square of a picture of height x width, but with all of the longer side.

        Several squares of size_px are cut from it. Pictures that `fit` or `via_px` make squares of stay as they are.
        """
        if self.fit != "crop" or self.via_px or height == width:
            return self.framing(self.centre(height, width, size_px), height, width, size_px)
        low = (self.short_px or (size_px, size_px))[0]
        share = size_px / low
        long_px = max(size_px, 2 * round(max(height, width) * low / min(height, width) / 2))
        tall = height > width
        sides = (1.0, share) if tall else (share, 1.0)
        region = None if share == 1 else ((1 - sides[0]) / 2, (1 - sides[1]) / 2, *sides)
        return Framing(region, (long_px, size_px) if tall else (size_px, long_px), None, None, self.scaling)

    def _resized(self, height: int, width: int, rng: np.random.Generator) -> Region | None:
        low, high = np.log(self.ratio)
        for _ in range(_TRIES):
            share, ratio = rng.uniform(*self.area), math.exp(rng.uniform(low, high))
            wide, tall = math.sqrt(share * height * width * ratio), math.sqrt(share * height * width / ratio)
            down, across = rng.uniform(size=2)
            if wide <= width and tall <= height:
                return _placed(height, width, tall, wide, down, across)
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        tall, wide = min(height, width / ratio), min(width, height * ratio)
        return _placed(height, width, tall, wide, 0.5, 0.5)

    def _corner(self, height: int, width: int, rng: np.random.Generator) -> Region | None:
        n, short = len(self.scales), min(height, width)
        pairs = [(i, j) for i in range(n) for j in range(n) if abs(i - j) <= 1]
        tall, wide = (short * self.scales[k] for k in pairs[rng.integers(len(pairs))])
        down, across = _QUARTERS[rng.integers(len(_QUARTERS))]
        return _placed(height, width, tall, wide, down / 4, across / 4)


SQUASH = Geometry(fit="squash")
"""Of versions that had no other, and of files and features that were made with them."""


def _placed(height: int, width: int, tall: float, wide: float, down: float, across: float) -> Region | None:
    """A part of tall x wide pixels, at shares of the free margin."""
    h, w = tall / height, wide / width
    return None if h >= 1 and w >= 1 else ((1 - h) * down, (1 - w) * across, h, w)


def boxes_in(boxes: np.ndarray, framing: Framing) -> np.ndarray:
    """Boxes in the unit coordinates of the framed picture: float32 (..., 6) of (kind, x1, y1, x2, y2, score).

    They are clipped to it; one without area there becomes zeros (kind 0: none).
    """
    top, left, tall, wide = framing.region or (0.0, 0.0, 1.0, 1.0)
    corners = (boxes[..., 1:5] - [left, top, left, top]) / [wide, tall, wide, tall]
    if framing.content and framing.size:
        share = np.divide(framing.content, framing.size)[[1, 0, 1, 0]]
        corners = corners * share + (1 - share) / 2
    x1, y1, x2, y2 = np.moveaxis(corners.clip(0, 1), -1, 0)
    out = np.stack([boxes[..., 0], x1, y1, x2, y2, boxes[..., 5]], axis=-1)
    return np.where(((x2 > x1) & (y2 > y1))[..., None], out, 0).astype(np.float32)
