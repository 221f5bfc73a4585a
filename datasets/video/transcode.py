"""The copy of one video: small, quick to decode and to seek, every frame at the time that the source shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.conversion import yuv420
from crossview.datasets.video.frame_index import FrameIndex
from crossview.datasets.video.frames import UnreadableVideo, as_unreadable, sequential
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.image_folder import images
from crossview.datasets.video.indexing import clock_start, scan
from crossview.datasets.video.orientation import displayed_size
from crossview.datasets.video.source import Source
from crossview.errors import UserError

_MICROSECOND = Fraction(1, 1_000_000)
"""Tick of a copy whose source has a finer one: of those that mp4 can hold, with gaps of half an hour, the finest."""


@dataclass(frozen=True)
class Encoding:
    """H.264 with closed groups of pictures, no B-frames, tuned for fast decoding. Raises UserError for bad values."""

    size_px: int = 256
    """Short side; a smaller source keeps its size."""
    gop: int = 8
    """Frames from one key frame to the next."""
    crf: int = 20
    """x264's constant quality."""

    def __post_init__(self) -> None:
        if self.size_px < 16 or self.size_px % 2:
            raise UserError(
                f"size_px is {self.size_px}; the short side of a copy must be even and at least 16: pass for example "
                f"{max(16, self.size_px // 2 * 2)}"
            )
        if self.gop < 1:
            raise UserError(f"gop is {self.gop}; a key frame comes every 1 or more frames: pass for example 8")
        if not 0 <= self.crf <= 51:
            raise UserError(
                f"crf is {self.crf}; x264's constant quality is in 0..51, from lossless to worst: pass for example 20"
            )


@dataclass(frozen=True, eq=False)
class _Written:
    """What the encoder was given."""

    ticks: np.ndarray
    """int64 (n,), the time of each frame after the first."""
    tick: Fraction
    """Seconds."""
    first_s: float
    """Time of the source's first frame from the start of its clock."""
    size: tuple[int, int]
    """Height and width."""


class _NoTimes(Exception):  # noqa: N818 - it says what the file has
    """The source's time stamps are missing or do not rise."""


def transcode(
    source: Source, copy: Path, encoding: Encoding, *, frames: int, fps: float, time_limit_s: float
) -> FrameIndex:
    """Encode a video or folder of images to `copy`, decode that once more, and return its index if it is as it must be.

    Frame k of the copy is frame k of the source, with the source's rotation applied, at the source's presentation time.
    The copy's own time stamps begin with 0; its index says when the source's first frame is shown. Times are exact if
    the source's tick is 1 us or longer, else within 0.5 us; where they are missing or do not rise, frame k is shown at
    k / `fps`. Sound is left out. facts: height_px, width_px. Raises UnreadableVideo if the source is damaged or does
    not have `frames` frames, OSError if the disk is full.
    """
    file = source.path
    try:
        written = _encode(source, copy, encoding, frames, fps, time_limit_s, own_times=True)
    except _NoTimes:
        written = _encode(source, copy, encoding, frames, fps, time_limit_s, own_times=False)
    if len(written.ticks) != frames:
        raise UnreadableVideo(f"{file}: {len(written.ticks)} frames, but the catalog says {frames}; catalog it again")
    _, index = scan(copy, time_limit_s=time_limit_s)
    _check(file, index, written, encoding)
    height, width = written.size
    start_s = float(index.pts[0] * index.time_base) - written.first_s
    return replace(index, clock_start_s=start_s, facts={"height_px": height, "width_px": width})


def _check(file: Path, index: FrameIndex, written: _Written, encoding: Encoding) -> None:
    """Raise UnreadableVideo if the copy has other frames, times or key frames than it was given."""
    if len(index.pts) != len(written.ticks):
        raise UnreadableVideo(f"{file}: its copy has {len(index.pts)} frames instead of {len(written.ticks)}")
    scale = index.time_base / written.tick
    wrong = np.flatnonzero((index.pts - index.pts[0]) * scale.numerator != written.ticks * scale.denominator)
    if len(wrong):
        raise UnreadableVideo(f"{file}: its copy shows frame {wrong[0]} at another time than the source")
    if not np.array_equal(index.entry_frames, np.arange(0, len(index.pts), encoding.gop)):
        raise UnreadableVideo(f"{file}: its copy cannot be sought at every {encoding.gop} frames")


def _encode(
    source: Source, copy: Path, encoding: Encoding, frames: int, fps: float, time_limit_s: float, *, own_times: bool
) -> _Written:
    """Encode at the source's own times, or at `fps`; raises _NoTimes if its own cannot be used."""
    file = source.path
    ticks: list[int] = []
    size, tick, first_s, first_pts = (0, 0), _MICROSECOND, 0.0, 0
    options = {"movflags": "faststart"}
    with _encoding_of(file), av.open(str(copy.absolute()), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.codec_context.thread_count = 1
        stream.options = {
            "preset": "veryfast", "tune": "fastdecode", "crf": str(encoding.crf),
            "x264-params": f"keyint={encoding.gop}:min-keyint={encoding.gop}:scenecut=0:bframes=0:open-gop=0",
        }  # fmt: skip
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1  # BT.601 (SMPTE 170M), limited
        for frame, time_base, clock_start_s in _shown(source, frames, time_limit_s):
            if own_times and frame.pts is None:
                raise _NoTimes
            with as_unreadable(file):
                if not ticks:
                    size = _small(displayed_size(frame), encoding.size_px)
                    stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
                    if own_times:
                        first_pts = frame.pts or 0
                        tick = max(Fraction(1, time_base.denominator), _MICROSECOND)
                        first_s = max(0.0, float(first_pts * time_base) - clock_start_s)
                    stream.codec_context.time_base = stream.time_base = tick
                picture = av.VideoFrame.from_ndarray(yuv420(frame, Framing(size=size)), format="yuv420p")
            after_s = ((frame.pts or 0) - first_pts) * time_base if own_times else len(ticks) / Fraction(fps)
            ticks.append(round(after_s / tick))
            if len(ticks) > 1 and ticks[-1] <= ticks[-2]:
                raise _NoTimes
            picture.pts, picture.time_base = ticks[-1], tick
            picture.colorspace, picture.color_range = 6, 1
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return _Written(np.array(ticks, np.int64), tick, first_s, size)


def _shown(source: Source, frames: int, time_limit_s: float) -> Iterator[tuple[VideoFrame, Fraction, float]]:
    """Every frame of a source, with the unit of its time stamp and the start of the source's clock, both in s."""
    if source.kind == "frames":
        for _, image in images(source, np.arange(frames), time_limit_s):
            yield image, Fraction(image.time_base or 1), 0.0
        return
    start_s: float | None = None
    for frame, stream in sequential(source.path, time_limit_s):
        time_base = Fraction(frame.time_base or stream.time_base or 1)
        if start_s is None:
            start_s = clock_start(stream, float((frame.pts or 0) * time_base))
        yield frame, time_base, start_s


@contextmanager
def _encoding_of(file: Path) -> Iterator[None]:
    """Name the file whose frames the encoder refuses, for their shape say; a full disk stays an OSError."""
    try:
        yield
    except OSError:
        raise
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{file}: its copy cannot be encoded: {error.strerror}") from error


def _small(size: tuple[int, int], short_px: int) -> tuple[int, int]:
    """Even height and width with the short side at most `short_px`, the aspect kept."""
    scale = min(1.0, short_px / min(size))
    return max(2, round(size[0] * scale / 2) * 2), max(2, round(size[1] * scale / 2) * 2)
