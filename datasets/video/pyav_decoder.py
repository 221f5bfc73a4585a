"""Frames by number with PyAV."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.conversion import CONVERT, Pixels
from crossview.datasets.video.frame_index import FrameIndex
from crossview.datasets.video.frames import TooSlow, UnreadableVideo, as_unreadable, sequential
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.seeking import passes, pictures
from crossview.datasets.video.source import Source, Wanted, frames_in_file


class PyAV:
    """One thread; decodes from the nearest entry point of the frame index, or forward from the first frame without one.

    It decodes up to the last frame asked for and converts only the frames asked for.
    """

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`."""
        frames = frames_in_file(source, wanted)
        index = _index(source)
        if index is not None:
            index.check_current(source.path)
            if frames[-1] >= len(index.pts):
                raise _too_few(source.path, int(frames[-1]), len(index.pts))
            parts = passes(frames, index)
            if any(part.entry_pts is not None for part in parts):
                try:
                    return _placed(source, wanted, pixels, pictures(source, parts, index, time_limit_s))
                except TooSlow:
                    raise
                except UnreadableVideo as error:
                    warnings.warn(f"{error}; the file is read from its start", stacklevel=2)
        return _placed(source, wanted, pixels, _forward(source.path, frames, time_limit_s))


def _index(source: Source) -> FrameIndex | None:
    return None if source.index is None else _cached(source.index)


@lru_cache(maxsize=64)
def _cached(file: Path) -> FrameIndex:
    """An index is never rewritten: its file's name holds the video's fingerprint."""
    return FrameIndex.read(file)


def _forward(path: Path, frames: np.ndarray, time_limit_s: float) -> Iterator[tuple[int, VideoFrame]]:
    """The frames, sorted and unique, by a decode of everything up to the last of them."""
    n = count = 0
    for frame, _ in sequential(path, time_limit_s):
        if count == frames[n]:
            yield count, frame
            n += 1
            if n == len(frames):
                return
        count += 1
    raise _too_few(path, int(frames[n]), count)


def _too_few(path: Path, frame: int, count: int) -> UnreadableVideo:
    return UnreadableVideo(f"{path}: frame {frame} was asked for, but a sequential decode finds {count} frames")


def _placed(
    source: Source, wanted: Sequence[Wanted], pixels: Pixels, found: Iterator[tuple[int, VideoFrame]]
) -> list[np.ndarray]:
    """The clips, filled from frames as they come."""
    places: dict[int, dict[Framing, list[tuple[int, int, int]]]] = {}  # clip, and from where to where in it
    for clip, w in enumerate(wanted):
        numbers, first, count = np.unique(w.frames + source.first_frame, return_index=True, return_counts=True)
        for number, start, times in zip(numbers.tolist(), first.tolist(), count.tolist(), strict=True):
            places.setdefault(number, {}).setdefault(w.framing, []).append((clip, start, start + times))
    convert = CONVERT[pixels]
    clips: list[np.ndarray | None] = [None] * len(wanted)
    for number, frame in found:
        for framing, users in places[number].items():
            with as_unreadable(source.path):
                picture = convert(frame, framing)
            for clip, start, stop in users:
                out = clips[clip]
                if out is None:
                    out = clips[clip] = np.empty((len(wanted[clip].frames), *picture.shape), np.uint8)
                if picture.shape != out.shape[1:]:
                    raise UnreadableVideo(
                        f"{source.path}: the picture's size changes at frame {number}; give size_px or prepare it"
                    )
                out[start:stop] = picture
    return [clip for clip in clips if clip is not None]
