"""Which frames of a recording are observed before an action, in whole frames throughout."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from crossview.downstream.anticipation.options import Past
from crossview.errors import UserError

Range: TypeAlias = tuple[int, int]
"""First and last frame of a snippet, both part of it, counted from 0 in the T observed ones."""


def spanning_ranges(past: Past) -> list[list[Range]]:
    """The snippets of each scale of the spanning past; two neighbours share the frame between them."""
    return [_parts(past.frames - 1, past.spanning_frames, count) for count in past.spanning_snippets]


def recent_ranges(past: Past) -> list[list[Range]]:
    """The snippets of each recent window; two neighbours share the frame between them."""
    return [_parts(past.frames - 1, length, past.recent_snippets) for length in past.recent_frames]


def _parts(last: int, length: int, count: int) -> list[Range]:
    edges = [last - length + length * k // count for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def observed_frames(
    past: Past, starts: np.ndarray, *, fps: Fraction | float, count: int | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frames to read before actions that start at frames (n,) of recordings of `count` frames: int64 and bool (n, T).

    In order of time; the last one lies exactly `alpha_frames` before the start if the recording has `past.fps`. Frames
    outside the recording are False in the mask, and their number is that of its first or last frame, so that reading
    them is harmless. Starts and results count from 0: a source that counts from 1 shifts both.

    At another rate each instant is that of the nearest frame, of two equally near ones the earlier. The last observed
    frame is then nearer than `alpha_frames` by half a frame of the recording at most, and where the rate is below
    `past.fps`, frames occur several times: read each once.
    """
    rate = _exact(fps)
    back = np.arange(past.frames - 1, -1, -1, dtype=np.int64) + past.alpha_frames  # (T,), before the start
    grid = past.fps * rate.denominator
    frames = np.asarray(starts, np.int64)[:, None] - (2 * back * rate.numerator + grid) // (2 * grid)  # (n, T)
    last = _last(count, len(frames))[:, None]
    return np.clip(frames, 0, last), (frames >= 0) & (frames <= last)


def kept_segments(past: Past, starts: np.ndarray, *, fps: Fraction | float, count: int | np.ndarray) -> np.ndarray:
    """Whether an action that starts at frames (n,) is anticipated at all: bool (n,).

    It is where at least `min_past_frames` lie before the last observed frame and the recording, which may end before
    the action, has one of the observed frames. What is dropped gets no score and is left out of every metric.
    """
    rate = _exact(fps)
    starts = np.asarray(starts, np.int64)
    early = starts * past.fps * rate.denominator < (past.alpha_frames + past.min_past_frames) * rate.numerator
    _, observed = observed_frames(past, starts, fps=fps, count=count)
    return ~early & observed.any(1)


def _exact(fps: Fraction | float) -> Fraction:
    """The rate as a ratio of whole numbers, such as 30000/1001 of 29.97003."""
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"the recording's rate is {fps} frames per second; it must be above 0: catalog it anew")
    return Fraction(fps).limit_denominator(1001)


def _last(count: int | np.ndarray, n: int) -> np.ndarray:
    counts = np.broadcast_to(np.asarray(count, np.int64), (n,))
    if n and counts.min() < 1:
        raise UserError(f"a recording has {counts.min()} frames; it must have at least 1: leave it out")
    return counts - 1
