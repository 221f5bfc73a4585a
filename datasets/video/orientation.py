"""How a file says that its pictures are to be turned and mirrored for display."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.framing import Region


@dataclass(frozen=True)
class Orientation:
    """What is done to a stored picture to display it: first mirrored, then turned."""

    mirrored: bool = False
    """Left and right are exchanged."""
    turns: int = 0
    """Counter-clockwise quarter turns, 0 to 3."""

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """A stored picture, or a plane of one, as displayed: (H, W, ...) -> (H, W, ...) or (W, H, ...)."""
        shown = picture[:, ::-1] if self.mirrored else picture
        return np.rot90(shown, self.turns) if self.turns else shown

    def stored(self, region: Region) -> Region:
        """Where a region of the displayed picture is in the stored one."""
        top, left, height, width = region
        for _ in range(self.turns):
            top, left, height, width = left, 1 - top - height, width, height
        return (top, 1 - left - width if self.mirrored else left, height, width)


def orientation(frame: VideoFrame) -> Orientation:
    """The orientation in the frame's display matrix, to the nearest quarter turn; upright without a valid one.

    The matrix maps the stored x axis to (a, b) and the y axis to (c, d), with y pointing down. It mirrors if its
    determinant is negative; the angle alone, which PyAV's `rotation` gives, does not show that.
    """
    try:
        stored: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside a kind of side data that PyAV does not know, it gives nothing but the angle
        return Orientation(turns=round(frame.rotation / 90) % 4)
    if stored is None:
        return Orientation()
    a, b, _, c, d = (int(value) for value in np.frombuffer(stored, np.int32)[:5])
    determinant = a * d - b * c
    if not determinant:
        return Orientation()
    sign = -1 if determinant < 0 else 1
    return Orientation(determinant < 0, round(-math.atan2(sign * b, sign * a) / (math.pi / 2)) % 4)


def displayed_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width as displayed."""
    size = (frame.height, frame.width)
    return size if orientation(frame).turns % 2 == 0 else size[::-1]
