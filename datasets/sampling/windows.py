"""Which frames of its recordings a row takes. All functions are pure in their arguments and the generator's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.spec import Sampling, View

_GAP = 0.75
"""Of a recording's mean distance between frames: with no frame so near to an instant, it has a gap there."""


class Starts:
    """Where the windows of one row start: each by itself, or at different points of a grid with one jitter."""

    def __init__(self, stride: int | None, rng: np.random.Generator) -> None:
        self._stride, self._rng = stride, rng
        self._points: list[int] = []

    def draw(self, first: int, last: int, extent: int, longest: int) -> int:
        """The start of a window that reaches `extent` frames on, where the row's longest window reaches `longest`.

        A recording with fewer points than windows gives some of them again, and a short one its first frame.
        """
        if self._stride is None:
            return first + int(self._rng.integers(0, max(0, last - first - extent) + 1))
        if not self._points:
            shift = int(self._rng.integers(self._stride))
            points = np.arange(first + shift, last - longest + 1, self._stride)
            if not len(points):  # too short for a jitter: whatever fits
                points = np.arange(first, max(first, last - longest) + 1, self._stride)
            self._points = [int(point) for point in self._rng.permutation(points)]
        return self._points.pop()


@dataclass(frozen=True)
class Cut:
    """How one window is cut."""

    starts: Starts
    stretch: float = 1.0
    """Factor of the distance between frames."""
    length: int | None = None
    """Frames that count; the rest of the clip repeats the last of them. None counts all."""
    longest: float = 1.0
    """Largest factor of a window's extent in the row."""

    @staticmethod
    def draw(sampling: Sampling, view: View, starts: Starts, rng: np.random.Generator) -> Cut:
        """One factor from `sampling.window_scale`, for the distance or the number of frames."""
        low, high = sampling.window_scale
        if sampling.window_scale_spread == "log":
            factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        else:
            factor = float(rng.uniform(low, high))
        if sampling.window_length == "true":
            return Cut(starts, 1.0, max(1, min(round(view.frames * factor), sampling.max_frames(view))), high)
        return Cut(starts, factor, None, high)


def frames_of(
    catalog: Catalog, recording: Recording, view: View, cut: Cut, frames: int, rng: np.random.Generator
) -> np.ndarray:
    """One clip of one recording by itself: int64 (frames,), sorted; a short recording repeats its last frame."""
    last = recording.num_frames - 1
    if view.fps is not None:
        return _window(catalog, recording, (0, last), view, frames, cut)
    if view.spread == "even":
        return _even(0, last, view.frames)
    if recording.num_frames <= view.frames:
        return np.minimum(np.arange(view.frames), last)
    return np.sort(rng.choice(recording.num_frames, view.frames, replace=False))


def proportional(catalog: Catalog, frames: np.ndarray, source: Recording, target: Recording, count: int) -> np.ndarray:
    """The same share of the way through `target`: int64 (T,) -> (count,)."""
    steps = frames
    if not source.constant_rate:
        steps = (catalog.instants(source, frames) - source.start_s) * source.fps
    share = steps / max(source.num_frames - 1, 1)
    if count != len(share):
        share = np.interp(np.linspace(0, len(share) - 1, count), np.arange(len(share)), share)
    return _shown(catalog, target, np.rint(share * (target.num_frames - 1)).astype(np.int64))


def common_frames(catalog: Catalog, recordings: list[Recording], view: View, cut: Cut, count: int) -> list[np.ndarray]:
    """One clip per recording, all at the same instants of the scene's clock: int64 (count,) each.

    Instants are frames of the recording with the fewest (`_anchor`), drawn while all recordings run. The other
    recordings' frames are those shown nearest to them: at the very same instants where rates are multiples and offsets
    whole frames. An instant at which one of them has a gap moves to the nearest at which none has.
    """
    anchor, first, last = _shared(recordings)
    if view.fps is None:
        frames = _shown(catalog, anchor, _even(first, last, view.frames))
    else:
        frames = _window(catalog, anchor, (first, last), view, count, cut)
    frames = _beside_gaps(catalog, recordings, anchor, frames)
    instants = catalog.instants(anchor, frames)
    return [frames if r is anchor else catalog.frames_at(r, instants) for r in recordings]


def common_instants(catalog: Catalog, recordings: list[Recording], count: int) -> np.ndarray:
    """Instants in s, evenly over the span that all recordings show, at frames of their anchor: float (count,)."""
    anchor, first, last = _shared(recordings)
    frames = _shown(catalog, anchor, _even(first, last, count))
    return catalog.instants(anchor, _beside_gaps(catalog, recordings, anchor, frames))


def _beside_gaps(catalog: Catalog, recordings: list[Recording], anchor: Recording, frames: np.ndarray) -> np.ndarray:
    """The anchor's frames int64 (T,), or those nearest to them at whose instants the others have frames too."""
    others = [r for r in recordings if r is not anchor and not r.constant_rate]

    def seen(frames: np.ndarray) -> np.ndarray:
        instants, there = catalog.instants(anchor, frames), np.ones(len(frames), bool)
        for other in others:
            apart_s = catalog.instants(other, catalog.frames_at(other, instants)) - instants
            there &= np.abs(apart_s) <= _GAP / other.fps
        return there

    if seen(frames).all() or not len(good := np.flatnonzero(seen(np.arange(anchor.num_frames)))):
        return frames
    place = np.searchsorted(good, frames)
    after, before = good[np.minimum(place, len(good) - 1)], good[np.maximum(place - 1, 0)]
    return np.where(np.abs(after - frames) <= np.abs(before - frames), after, before)


def _shown(catalog: Catalog, recording: Recording, frames: np.ndarray) -> np.ndarray:
    """Frames counted at the average rate -> the frames shown nearest to their instants: int64 (n,)."""
    if recording.constant_rate:
        return frames
    return catalog.frames_at(recording, recording.start_s + frames / recording.fps)


def clocks_apart(recordings: Sequence[Recording]) -> bool:
    """Whether they are several of a scene and any has a clock of its own, so that they have no instant in common."""
    return len(recordings) > 1 and any(r.own_clock for r in recordings)


def run_together(recordings: list[Recording]) -> bool:
    """Whether there is an instant that all of them show."""
    if clocks_apart(recordings):
        return False
    first_s, last_s = overlap(recordings)
    return first_s <= last_s + 1e-6


def overlap(recordings: list[Recording]) -> tuple[float, float]:
    """First and last instant, in s on the scene's clock, that every recording shows; reversed where there is none."""
    return max(r.start_s for r in recordings), min(r.end_s for r in recordings)


def _shared(recordings: list[Recording]) -> tuple[Recording, int, int]:
    """The anchor, and its first and last frame that all the others show too, counted at its average rate."""
    first_s, last_s = overlap(recordings)
    anchor = _anchor(recordings)
    first = int(np.ceil((first_s - anchor.start_s) * anchor.fps - 1e-6))
    last = int(np.floor((last_s - anchor.start_s) * anchor.fps + 1e-6))
    first = max(0, min(first, anchor.num_frames - 1))
    return anchor, first, max(first, min(last, anchor.num_frames - 1))  # the overlap may fall between two frames


def _anchor(recordings: list[Recording]) -> Recording:
    """Whose frames the instants of a clip are: one with gaps, for which the others have frames, else the slowest."""
    return min(recordings, key=lambda r: (r.constant_rate, r.fps))


def _even(first: int, last: int, count: int) -> np.ndarray:
    return np.rint(np.linspace(first, last, count)).astype(np.int64)


def _window(
    catalog: Catalog, recording: Recording, between: tuple[int, int], view: View, count: int, cut: Cut
) -> np.ndarray:
    """`count` frames at the view's rate, stretched, from a drawn start on, within two frames: int64 (count,).

    At a variable rate those shown nearest to the instants that follow the first.
    """
    assert view.fps is not None
    first, last = between
    distance = recording.fps / view.fps
    steps = np.minimum(np.arange(count), (cut.length or count) - 1) * distance * cut.stretch
    whole = np.rint(steps).astype(np.int64)
    longest = int(np.ceil((view.frames * cut.longest - 1) * distance))
    start = cut.starts.draw(first, last, int(whole[-1]), longest)
    if recording.constant_rate:
        return np.minimum(start + whole, last)
    ends = _shown(catalog, recording, np.array([start, last]))
    start_s, last_s = catalog.instants(recording, ends)
    return catalog.frames_at(recording, np.minimum(start_s + steps / recording.fps, last_s))
