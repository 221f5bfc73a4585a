"""Which clips of a split are evaluated: the same instants from every camera of a scene, without a random number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossview.datasets.catalog import Catalog, Perspective, Recording
from crossview.datasets.sampling.spec import View
from crossview.datasets.sampling.windows import overlap, run_together
from crossview.errors import UserError


@dataclass(frozen=True, eq=False)
class Windows:
    """The clips of one recording; those of a scene with equal `instant` show the same time from other cameras."""

    frames: np.ndarray
    """int64 (K, T), indices in the recording, rising; the last is repeated where the recording is short."""
    instant: np.ndarray
    """int64 (K,), number of the clip within its scene."""
    start_s: np.ndarray
    """float64 (K,), on the scene's clock."""


def evaluation_clips(catalog: Catalog, views: Mapping[Perspective, View], per_scene: int) -> list[Windows]:
    """Windows of one split's recordings: up to `per_scene` with evenly spaced starts over the span that a scene shows.

    `views` gives the T frames and the rate of each perspective's clips. A view without a rate takes T frames evenly
    from one of `per_scene` equal parts of the span. Cameras of a scene that never run together, and recordings without
    a partner, have instants of their own. A scene too short for different windows has fewer. The order of the
    recordings changes nothing.
    """
    if per_scene < 1:
        raise UserError(f"clips per scene is {per_scene}; it must be at least 1")
    recordings = catalog.recordings
    scenes: dict[tuple[str, bool, str], list[int]] = {}
    for i, r in enumerate(recordings):
        scenes.setdefault(r.take, []).append(i)
    found: dict[int, Windows] = {}
    for cameras in scenes.values():
        first = 0
        for together in _contemporaries(sorted(cameras, key=lambda i: recordings[i].view), recordings):
            windows = _windows(catalog, [recordings[i] for i in together], views, per_scene, first)
            found |= dict(zip(together, windows, strict=True))
            first += len(windows[0].instant)
    return [found[i] for i in range(len(recordings))]


def _contemporaries(cameras: list[int], recordings: Sequence[Recording]) -> list[list[int]]:
    """Parts of a scene whose cameras share an instant; each camera joins the first part that it can."""
    parts: list[list[int]] = []
    for i in cameras:
        for part in parts:
            if run_together([recordings[j] for j in (*part, i)]):
                part.append(i)
                break
        else:
            parts.append([i])
    return parts


def _windows(
    catalog: Catalog, recordings: list[Recording], views: Mapping[Perspective, View], per_scene: int, first: int
) -> list[Windows]:
    """The windows of cameras that run together, at instants numbered from `first`."""
    start_s, end_s = overlap(recordings)
    part_s = (end_s - start_s) / per_scene
    longest_s = max(_steps_s(views[r.perspective], part_s)[-1] for r in recordings)
    fps = min(r.fps for r in recordings)  # starts are frames of the slowest camera
    slack = max(0.0, end_s - start_s - longest_s)
    starts_s = start_s + np.rint(np.linspace(0, slack, per_scene) * fps) / fps  # (K,)
    frames = []
    for r in recordings:
        instants = starts_s[:, None] + _steps_s(views[r.perspective], part_s)  # (K, T)
        frames.append(catalog.frames_at(r, np.minimum(instants, end_s).ravel()).reshape(instants.shape))
    _, kept = np.unique(np.concatenate(frames, axis=1), axis=0, return_index=True)  # equal windows add nothing
    kept = np.sort(kept)
    instants = first + np.arange(len(kept))
    return [Windows(f[kept], instants, starts_s[kept]) for f in frames]


def _steps_s(view: View, part_s: float) -> np.ndarray:
    """Times of the frames after the clip's start: float64 (T,)."""
    if view.fps is None:
        return np.linspace(0, part_s, view.frames)
    return np.arange(view.frames) / view.fps
