"""Which clips and crops of a recording are tested. Imports no torch, so that options and plans may use it.

The frames of all clips are known before anything is read: `to_read` lists each once, in order, and the clips are cut
from what was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crossview.downstream.task import PredictionOptions
from crossview.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Views:
    """How many views of a recording are scored; the defaults are VideoMAE's on Kinetics."""

    clips: int = 5
    """Clips at evenly spaced starts."""
    crops: int = 3
    """Square crops along the longer side; a square frame has one."""

    def __post_init__(self) -> None:
        if self.clips < 1 or self.crops < 1:
            raise UserError(f"clips is {self.clips} and crops {self.crops}; both must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(PredictionOptions):
    """Base for tasks that score classifiers of clips: trainers, and methods that have one of their own.

    Without `views` the cameras of the perspective that is trained on are scored.
    """

    test: Views = field(default_factory=Views)
    """Clips and crops of each recording, or of each labelled segment, that are classified."""


def clip_starts(length: int, span: int, clips: int) -> np.ndarray:
    """First frames of clips that reach over `span` of `length` frames: int64 (K,), evenly from the first to the last.

    A single clip is in the middle. Clips of a recording shorter than the span all start at 0.
    """
    if length < 1 or span < 1 or clips < 1:
        raise ValueError(f"{clips} clips of {span} frames from {length}; all must be at least 1")
    room = max(0, length - span)
    places = np.arange(clips) / (clips - 1) if clips > 1 else np.array([0.5])
    return np.rint(places * room).astype(np.int64)


def clip_frames(length: int, frames: int, step: float, clips: int) -> np.ndarray:
    """Frames of each clip, T of them `step` apart: int64 (K, T); past the recording's end its last is repeated."""
    steps = np.rint(np.arange(frames) * step).astype(np.int64)
    starts = clip_starts(length, int(steps[-1]) + 1, clips)
    return np.minimum(starts[:, None] + steps, length - 1)


def to_read(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames that any clip needs, once and rising, and each clip's places among them: (K, T) -> (M,) and (K, T)."""
    needed, places = np.unique(frames, return_inverse=True)
    return needed, places.reshape(frames.shape)


def scaled_px(height: int, width: int, size_px: int) -> tuple[int, int]:
    """Height and width of a picture whose shorter side becomes `size_px`."""
    scale = size_px / min(height, width)
    return max(size_px, round(height * scale)), max(size_px, round(width * scale))


def crop_places(height: int, width: int, size_px: int, crops: int) -> list[tuple[int, int]]:
    """Top and left of square crops, evenly along the longer side, of a picture whose shorter side is `size_px`.

    A square picture has one crop, and a single one is in the middle.
    """
    if min(height, width) != size_px or crops < 1:
        raise ValueError(f"{crops} crops of {size_px} px from {height} x {width}; the shorter side must be as long")
    room_y, room_x = height - size_px, width - size_px
    shares = np.linspace(0, 1, crops).tolist() if crops > 1 and room_y + room_x else [0.5]
    return [(round(share * room_y), round(share * room_x)) for share in shares]
