"""Which parts of a file are decoded for the frames that are wanted, and reading these frames exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.frame_index import FrameIndex, cached_index
from crossview.datasets.video.frames import Limit, TooSlow, UnreadableVideo, opened, sequential, too_few
from crossview.datasets.video.source import Source
from crossview.errors import DataWarning

SEEK_FRAMES = 3
"""Frames whose decoding takes as long as a seek."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Frames that are decoded one after the other."""

    entry_stamp: int | None
    """The time stamp that is sought; None starts where the file does."""
    first_frame: int
    """The first frame that is decoded."""
    frames: np.ndarray
    """int64 (n,), those that are wanted, sorted."""


class Misplaced(UnreadableVideo):
    """A seek has not led to the frames that the index promises."""

    def __init__(self, path: Path) -> None:  # without the frame, so that a file's warnings are equal and shown once
        super().__init__(f"{path}: seeking gives other pictures than a sequential decode did")


def current_index(source: Source, frames: np.ndarray) -> FrameIndex | None:
    """A source's frame index, if it has one; raises UnreadableVideo if the file has changed or lacks some of `frames`.

    frames: int64 (n,), sorted.
    """
    if source.index is None:
        return None
    index = cached_index(source.index)
    index.check_current(source.path)
    if frames[-1] >= len(index.pts):
        raise too_few(source.path, int(frames[-1]), len(index.pts))
    return index


def passes(frames: np.ndarray, index: FrameIndex) -> list[Pass]:
    """The cheapest way to frames int64 (n,), sorted and unique: each from its entry, or on from the one before."""
    entry = np.searchsorted(index.entry_frames, frames, side="right") - 1  # (n,), -1: the start of the file
    starts = np.where(entry >= 0, index.entry_frames[entry], 0) if len(index.entry_frames) else np.zeros_like(frames)
    decoded_to = np.concatenate([[0], frames[:-1] + 1])  # where the decoder stands
    seek = starts > decoded_to + SEEK_FRAMES
    seek[0] = starts[0] > SEEK_FRAMES  # a new reader stands at the start
    cuts = np.flatnonzero(seek[1:]) + 1
    out = []
    for part in np.split(np.arange(len(frames)), cuts):
        first = int(part[0])
        pts = int(index.entry_stamps[entry[first]]) if seek[first] else None
        out.append(Pass(pts, int(starts[first]) if seek[first] else 0, frames[part]))
    return out


def numbered(source: Source, frames: np.ndarray, time_limit_s: float) -> Iterator[tuple[int, VideoFrame]]:
    """The file's frames int64 (n,), sorted and unique, with their numbers: by seeking, or forward from the first frame.

    Where seeking fails on the way, what is left is read forward. Raises UnreadableVideo.
    """
    index = current_index(source, frames)
    parts = [] if index is None else passes(frames, index)
    if index is not None and any(part.entry_stamp is not None for part in parts):
        try:
            for found in pictures(source, parts, index, time_limit_s):
                yield found
                frames = frames[1:]
            return
        except TooSlow:
            raise
        except UnreadableVideo as error:
            warnings.warn(f"{error}; the file is read from its start", DataWarning, stacklevel=2)
    yield from _forward(source.path, frames, time_limit_s)


def _forward(path: Path, frames: np.ndarray, time_limit_s: float) -> Iterator[tuple[int, VideoFrame]]:
    """By a decode of everything up to the last of them."""
    n = count = 0
    for frame, _ in sequential(path, time_limit_s):
        if count == frames[n]:
            yield count, frame
            n += 1
            if n == len(frames):
                return
        count += 1
    raise too_few(path, int(frames[n]), count)


def pictures(
    source: Source, parts: list[Pass], index: FrameIndex, time_limit_s: float
) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames with their numbers, each checked against the index.

    Raises Misplaced where a frame is not the one that a sequential decode gives, and UnreadableVideo.
    """
    limit = Limit(source.path, time_limit_s)
    with opened(source.path, time_limit_s) as (container, stream):
        for part in parts:
            if part.entry_stamp is not None:
                container.seek(part.entry_stamp, stream=stream)
            wanted = iter(part.frames.tolist())
            number = next(wanted)
            limit.resume()
            for packet in container.demux(stream):
                limit.check()
                for frame in stream.decode(packet):
                    limit.frame_read()
                    if frame.pts is not None and frame.pts < index.pts[number]:
                        limit.resume()
                        continue
                    if frame.is_corrupt or packet.is_corrupt or not index.shows(number, frame):
                        raise Misplaced(source.path)
                    yield number, frame
                    limit.resume()
                    number = next(wanted, -1)
                    if number < 0:
                        break
                if number < 0:
                    break
            else:
                raise Misplaced(source.path)
