"""All frames of a recording one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.image_folder import images
from crossview.datasets.video.seeking import numbered
from crossview.datasets.video.source import Source


def consecutive(source: Source, num_frames: int, time_limit_s: float) -> Iterator[VideoFrame]:
    """The first `num_frames` frames, of a span by seeking to it; raises UnreadableVideo if there are fewer.

    `time_limit_s` as in `read_clips`.
    """
    frames = np.arange(source.first_frame, source.first_frame + num_frames)
    read = images if source.kind == "frames" else numbered
    yield from (frame for _, frame in read(source, frames, time_limit_s))
