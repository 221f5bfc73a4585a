"""Which frames of its recordings a row takes. All functions are pure in their arguments and the generator's state."""

from __future__ import annotations

import numpy as np

from crossview.datasets.catalog import Recording
from crossview.datasets.sampling import View


def frames_of(recording: Recording, view: View, scale: float, rng: np.random.Generator) -> np.ndarray:
    """One clip of one recording by itself: int64 (T,), sorted; a short recording repeats its last frame."""
    last = recording.num_frames - 1
    if view.fps is not None:
        return _window(0, last, view.frames, recording.fps / view.fps * scale, rng)
    if view.spread == "even":
        return _even(0, last, view.frames)
    if recording.num_frames <= view.frames:
        return np.minimum(np.arange(view.frames), last)
    return np.sort(rng.choice(recording.num_frames, view.frames, replace=False))


def proportional(frames: np.ndarray, source: Recording, target: Recording, count: int) -> np.ndarray:
    """The same share of the way through `target`: int64 (T,) -> (count,)."""
    share = frames / max(source.num_frames - 1, 1)
    if count != len(share):
        share = np.interp(np.linspace(0, len(share) - 1, count), np.arange(len(share)), share)
    return np.rint(share * (target.num_frames - 1)).astype(np.int64)


def common_frames(recordings: list[Recording], view: View, scale: float, rng: np.random.Generator) -> list[np.ndarray]:
    """One clip per recording, all at the same instants of the scene's clock: int64 (T,) each.

    Instants are frames of the slowest recording, drawn where all recordings run. The other recordings' frames lie at
    the very same instants where rates are multiples and offsets whole frames, else within half a frame.
    """
    slowest, first, last = _shared(recordings)
    if view.fps is None:
        frames = _even(first, last, view.frames)
    else:
        frames = _window(first, last, view.frames, slowest.fps / view.fps * scale, rng)
    instants = slowest.start_offset_s + frames / slowest.fps
    return [frames if r is slowest else frames_at(r, instants) for r in recordings]


def common_instants(recordings: list[Recording], count: int) -> np.ndarray:
    """Instants in s, evenly over the span that all recordings show, at frames of the slowest: float (count,)."""
    slowest, first, last = _shared(recordings)
    return slowest.start_offset_s + _even(first, last, count) / slowest.fps


def frames_at(recording: Recording, instants: np.ndarray) -> np.ndarray:
    """Index of the frame nearest to each instant in s: float (n,) -> int64 (n,)."""
    index = np.rint((instants - recording.start_offset_s) * recording.fps).astype(np.int64)
    return np.clip(index, 0, recording.num_frames - 1)


def run_together(recordings: list[Recording]) -> bool:
    """Whether there is an instant that all of them show."""
    start_s, end_s = overlap(recordings)
    return start_s <= end_s + 1e-6


def overlap(recordings: list[Recording]) -> tuple[float, float]:
    """First and last instant, in s on the scene's clock, that every recording shows; reversed where there is none."""
    start_s = max(r.start_offset_s for r in recordings)
    end_s = min(r.start_offset_s + (r.num_frames - 1) / r.fps for r in recordings)
    return start_s, end_s


def _shared(recordings: list[Recording]) -> tuple[Recording, int, int]:
    """The slowest recording, and its first and last frame that all the others show too."""
    start_s, end_s = overlap(recordings)
    slowest = min(recordings, key=lambda r: r.fps)
    first = int(np.ceil((start_s - slowest.start_offset_s) * slowest.fps - 1e-6))
    last = int(np.floor((end_s - slowest.start_offset_s) * slowest.fps + 1e-6))
    first = max(0, min(first, slowest.num_frames - 1))
    return slowest, first, max(first, min(last, slowest.num_frames - 1))  # the overlap may fall between two frames


def _even(first: int, last: int, count: int) -> np.ndarray:
    return np.rint(np.linspace(first, last, count)).astype(np.int64)


def _window(first: int, last: int, count: int, stride: float, rng: np.random.Generator) -> np.ndarray:
    """A window at a stride in frames, its start uniform; the last frame is repeated where there are too few."""
    steps = np.rint(np.arange(count) * stride).astype(np.int64)
    start = first + rng.integers(0, max(0, last - first - steps[-1]) + 1)
    return np.minimum(start + steps, last)
