"""How a displayed picture becomes one of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Region = tuple[float, float, float, float]
"""Top, left, height and width of a part of a picture, as shares of the displayed picture's height and width."""
Size = tuple[int, int]
"""Height and width in pixels."""
Scaling = Literal["auto", "area", "bilinear", "bicubic"]
"""auto averages areas where a picture shrinks on both sides, else interpolates bilinearly."""


@dataclass(frozen=True)
class Framing:
    """Cutting, scaling and padding; `Framing()` keeps a picture as it is displayed (cut to even for "yuv420")."""

    region: Region | None = None
    """The part that is kept, to the nearest even pixel; None is all of it."""
    size: Size | None = None
    """Size that the region is scaled to, whatever its aspect; None keeps its own."""
    content: Size | None = None
    """Scale to this even size instead, and centre the result between black bars in `size`."""
    via: Size | None = None
    """Size that "rgb" pictures are scaled to first, by area, and rounded; the second step is the cubic convolution of
    OpenCV, without a filter against aliasing."""
    scaling: Scaling = "auto"
    """Interpolation of a scaling in one step."""

    @property
    def scaled(self) -> Size | None:
        """Size that the picture is scaled to last, before padding."""
        return self.content or self.size


def region_px(region: Region, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a picture of height x width: even, at least 2, within the picture."""
    top, left, tall, wide = region

    def span(start: float, length: float, side: int) -> tuple[int, int]:
        pixels = min(max(2, 2 * round(length * side / 2)), max(side // 2 * 2, 1))
        return min(max(0, 2 * round(start * side / 2)), max(0, (side - pixels) // 2 * 2)), pixels

    (y, h), (x, w) = span(top, tall, height), span(left, wide, width)
    return y, x, h, w
