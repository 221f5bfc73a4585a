"""Frames by number with PyAV."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.frames import TooSlow, UnreadableVideo, sequential, too_few
from crossview.datasets.video.placing import placed
from crossview.datasets.video.seeking import current_index, passes, pictures
from crossview.datasets.video.source import Source, Wanted, frames_in_file
from crossview.errors import DataWarning


class PyAV:
    """One thread; decodes from the nearest entry point of the frame index, or forward from the first frame without one.

    It decodes up to the last frame asked for and converts only the frames asked for.
    """

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`."""
        frames = frames_in_file(source, wanted)
        index = current_index(source, frames)
        if index is not None:
            parts = passes(frames, index)
            if any(part.entry_stamp is not None for part in parts):
                try:
                    return placed(source, wanted, pixels, pictures(source, parts, index, time_limit_s))
                except TooSlow:
                    raise
                except UnreadableVideo as error:
                    warnings.warn(f"{error}; the file is read from its start", DataWarning, stacklevel=2)
        return placed(source, wanted, pixels, _forward(source.path, frames, time_limit_s))


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
    raise too_few(path, int(frames[n]), count)
