"""How a displayed picture becomes one of a clip."""

from __future__ import annotations

from dataclasses import dataclass

Region = tuple[float, float, float, float]
"""Top, left, height and width of a part of a picture, as shares of the displayed picture's height and width."""


@dataclass(frozen=True)
class Framing:
    """Cutting and scaling; `Framing()` keeps a picture as it is displayed (cut to even for "yuv420")."""

    region: Region | None = None
    """The part that is kept; None is all of it."""
    size: tuple[int, int] | None = None
    """Height and width that the region is scaled to, whatever its aspect; None keeps its own."""
