"""Frames by number with decord, from the files that it numbers rightly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.frame_index import FrameIndex, fingerprint
from crossview.datasets.video.frames import Limit, as_unreadable, on_this_node, opened, printable, too_few
from crossview.datasets.video.orientation import Orientation, orientation
from crossview.datasets.video.placing import placed
from crossview.datasets.video.seeking import current_index
from crossview.datasets.video.source import Source, Wanted, frames_in_file
from crossview.errors import UserError


class Decord:
    """RGB only, and only files whose frames decord numbers rightly; to be called in a process that can be killed.

    It returns wrong frames where frames are reordered over an open GOP, cut by an edit list or refreshed gradually, so
    it reads H.264 without B-frames that starts at zero, such as `prepare` writes. It can hang, and decodes ahead
    without bound while a reader is open, so each read opens its own.
    """

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`; a file that decord would misnumber raises UserError."""
        if pixels != "rgb":
            raise UserError(f"decoder 'decord' yields 'rgb', not {pixels!r}; take decoder 'pyav'")
        frames = frames_in_file(source, wanted)
        index = current_index(source, frames)
        _refuse(source.path, _troubles(source.path, fingerprint(source.path), time_limit_s))
        return placed(source, wanted, pixels, _pictures(source.path, frames, index, time_limit_s))


@lru_cache(maxsize=4096)
def _troubles(path: Path, _fingerprint: str, time_limit_s: float) -> tuple[str, ...]:
    """Why decord might misnumber the frames of a file with this fingerprint."""
    with opened(path, time_limit_s) as (container, stream):
        first = next(container.decode(stream), None)
        found = {
            f"codec {stream.codec_context.name}": stream.codec_context.name != "h264",
            "B-frames": stream.codec_context.has_b_frames,
            f"start at {stream.start_time} ticks": bool(stream.start_time),
            "a rotation or mirroring": first is not None and orientation(first) != Orientation(),
            "an edit list that cuts frames": any(entry.is_discard for entry in stream.index_entries),
            "several video streams": len(container.streams.video) > 1,
            "a name that is not UTF-8": printable(str(path)) != str(path),
            "intra refresh": _refreshes(container, stream),
        }
    return tuple(what for what, there in found.items() if there)


def _refreshes(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the second packet that is listed as a key frame holds none: it is where a gradual refresh begins."""
    stamps = [entry.timestamp for entry in stream.index_entries if entry.is_keyframe]
    if len(stamps) < 2:
        return False
    container.seek(stamps[1], stream=stream)
    return not all(frame.key_frame for frame in itertools.islice(container.decode(stream), 1))


def _refuse(path: Path, troubles: Sequence[str]) -> None:
    if troubles:
        raise UserError(
            f"{path}: decoder 'decord' may return wrong frames here ({', '.join(troubles)}); it reads H.264 without "
            "B-frames that starts at 0: make a copy with `crossview prepare`, or take decoder 'pyav'"
        )


def _pictures(
    path: Path, frames: np.ndarray, index: FrameIndex | None, time_limit_s: float
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames int64 (n,), sorted and unique, with their numbers."""
    limit = Limit(path, time_limit_s)
    file = on_this_node(path).absolute()  # no URL, whatever its name
    with as_unreadable(path):
        import decord

        reader = decord.VideoReader(str(file), ctx=decord.cpu(0), num_threads=1)
        if frames[-1] >= len(reader):
            raise too_few(path, int(frames[-1]), len(reader), "decord")
        if index is not None:
            _refuse(path, _disagreements(reader, frames, index))
    for number in frames.tolist():
        with as_unreadable(path):
            picture = _unpadded(reader[number].asnumpy())
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        limit.frame_read()
        yield number, frame
        limit.resume()


def _disagreements(reader: Any, frames: np.ndarray, index: FrameIndex) -> list[str]:
    """What decord says of these frames that a sequential decode did not find."""
    shown_s = reader.get_frame_timestamp(frames.tolist())[:, 0]  # (n,)
    times_s = index.pts[frames] * float(index.time_base)
    found = {
        f"{len(reader)} frames, not {len(index.pts)}": len(reader) != len(index.pts),
        "other time stamps": not np.allclose(shown_s, times_s, rtol=0, atol=max(1e-3, float(index.time_base))),
        "other key frames": not np.array_equal(index.entry_frames, reader.get_key_indices()),
    }
    return [what for what, there in found.items() if there]


def _unpadded(picture: np.ndarray) -> np.ndarray:
    """Where a row's padding makes it 4 bytes per pixel long (as at width 72), decord takes it for 4 channels."""
    height, width, channels = picture.shape
    return picture if channels == 3 else picture.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
