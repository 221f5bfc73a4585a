"""Clips from decoded frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.conversion import CONVERT, Pixels
from crossview.datasets.video.frames import UnreadableVideo, as_unreadable
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.source import Source, Wanted


def placed(
    source: Source, wanted: Sequence[Wanted], pixels: Pixels, found: Iterator[tuple[int, VideoFrame]]
) -> list[np.ndarray]:
    """The clips, filled from frames as they come: file's frame numbers, sorted, with the decoded pictures."""
    places: dict[int, dict[Framing, list[tuple[int, int, int]]]] = {}  # clip, and from where to where in it
    for clip, w in enumerate(wanted):
        numbers, first, count = np.unique(w.frames + source.first_frame, return_index=True, return_counts=True)
        for number, start, times in zip(numbers.tolist(), first.tolist(), count.tolist(), strict=True):
            places.setdefault(number, {}).setdefault(w.framing, []).append((clip, start, start + times))
    convert = CONVERT[pixels]
    clips: list[np.ndarray | None] = [None] * len(wanted)
    for number, frame in found:
        for framing, users in places[number].items():
            earliest, at, _ = users[0]
            begun = clips[earliest]
            with as_unreadable(source.path):
                picture = convert(frame, framing, None if begun is None else begun[at])
            for clip, start, stop in users:
                out = clips[clip]
                if out is None:
                    out = clips[clip] = np.empty((len(wanted[clip].frames), *picture.shape), np.uint8)
                if picture.shape != out.shape[1:]:
                    raise UnreadableVideo(
                        f"{source.path}: the picture's size changes at frame {number}; give size_px or prepare it"
                    )
                out[start + (out is begun and start == at) : stop] = picture  # where it is not yet
    return [clip for clip in clips if clip is not None]
