"""All frames of a recording one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.frame_index import cached_index
from crossview.datasets.video.frames import TooSlow, UnreadableVideo, sequential
from crossview.datasets.video.image_folder import images
from crossview.datasets.video.seeking import passes, pictures
from crossview.datasets.video.source import Source
from crossview.errors import DataWarning


def consecutive(source: Source, num_frames: int, time_limit_s: float) -> Iterator[VideoFrame]:
    """The first `num_frames` frames, of a span by seeking to it; raises UnreadableVideo if there are fewer.

    `time_limit_s` as in `read_clips`.
    """
    frames = np.arange(source.first_frame, source.first_frame + num_frames)
    if source.kind == "frames":
        yield from (frame for _, frame in images(source, frames, time_limit_s))
        return
    index = None if source.index is None else cached_index(source.index)
    if index is not None:
        index.check_current(source.path)
        parts = passes(frames, index)
        if parts[0].entry_stamp is not None and frames[-1] < len(index.pts):
            try:
                for _, frame in pictures(source, parts, index, time_limit_s):
                    yield frame
                    frames = frames[1:]  # what is left to read if seeking fails on the way
                return
            except TooSlow:
                raise
            except UnreadableVideo as error:
                warnings.warn(f"{error}; the file is read from its start", DataWarning, stacklevel=2)
    count = 0
    for count, (frame, _) in enumerate(sequential(source.path, time_limit_s), 1):
        if count > frames[0]:
            yield frame
        if count > frames[-1]:
            return
    raise UnreadableVideo(f"{source.path}: a sequential decode finds {count} of the {frames[-1] + 1} frames expected")
