"""Opening a video file and reading its frames in presentation order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from crossview import storage
from crossview.errors import UserError

MAX_PIXELS = 2**27
"""Of one picture, which is more than 16K video has (15360 x 8640): a damaged header may claim any size."""
TIME_LIMIT_S = 60.0
"""Seconds that reading `FRAMES_PER_LIMIT` frames may take, unless the caller says otherwise."""
FRAMES_PER_LIMIT = 1800
"""Frames that a time limit is meant for: about a minute of video. Reading more may take longer in proportion."""
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails


def progressed() -> None:
    """Called again and again while reading advances; a process that is watched puts another function in its place."""


class UnreadableVideo(UserError):  # noqa: N818 - it says what the file is
    """The file cannot give the frames that were asked for; the message names the file and the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class TooSlow(UnreadableVideo):
    """Reading took longer than its limit."""


def too_few(path: Path, frame: int, count: int, reader: str = "a sequential decode") -> UnreadableVideo:
    """The error of a file that has `count` frames where `frame` was asked for."""
    return UnreadableVideo(f"{path}: frame {frame} was asked for, but {reader} finds {count} frames")


def printable(text: str) -> str:
    """`text` as UTF-8 can hold it, which terminals and tables need: the name of a file may be any bytes."""
    return text.encode(errors="backslashreplace").decode()


_BROKEN = (av.error.InvalidDataError, av.error.EOFError)
"""What the library raises where bytes are none of the format's, or too few."""


@contextmanager
def as_unreadable(path: Path) -> Iterator[None]:
    """Raise what a codec library raises as UnreadableVideo.

    For damaged files that is not only its own error: ValueError, AttributeError, UnicodeDecodeError and others occur.
    """
    try:
        yield
    except UserError:
        raise
    except _BROKEN as error:
        raise _damaged(path) from error
    except Exception as error:
        said = getattr(error, "strerror", None) or str(error)
        kind = "" if said and isinstance(error, av.FFmpegError | OSError) else f"{type(error).__name__}: "
        raise UnreadableVideo(f"{path}: {kind}{said}") from error


def file_state(file: Path) -> list[Any]:
    """`storage.state`: other values once the file is another; empty where there is none."""
    try:
        return storage.state(file)
    except OSError as error:
        if storage.is_local(file) or isinstance(error, FileNotFoundError):
            return []  # decoding will name the missing file
        raise


@contextmanager
def opened(path: Path, time_limit_s: float) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its video stream, which a cover picture is not taken for; raises UnreadableVideo.

    `time_limit_s` ends a call that keeps reading the file. What the library does without reading, such as decoding one
    picture, and a read that the operating system does not return from cannot be interrupted in this process.
    """
    file = on_this_node(path)  # takes none of the time that is limited
    with as_unreadable(path):
        try:
            # An absolute path is never read as a URL, whatever the file's name contains.
            with _container(path, file.absolute(), time_limit_s) as container:
                yield container, _video_stream(path, container)
        except av.error.ExitError as error:
            raise _too_slow(path, time_limit_s) from error


def _container(path: Path, file: Path, time_limit_s: float) -> InputContainer:
    began_s = time.monotonic()
    try:
        return av.open(str(file), metadata_errors="replace", timeout=time_limit_s)
    except _BROKEN as error:
        if time.monotonic() - began_s >= time_limit_s:  # what the limit has cut off looks damaged
            raise _too_slow(path, time_limit_s) from error
        what = "empty" if file.stat().st_size == 0 else "no video file, or cut off or damaged"
        raise UnreadableVideo(f"{path}: it is {what}; copy it again") from error


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & _PICTURES]
    if not streams:
        raise UnreadableVideo(f"{path}: it holds no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise UnreadableVideo(f"{path}: there is no decoder for its codec; re-encode it, for example as H.264")
    size = stream.codec_context.width, stream.codec_context.height
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadableVideo(f"{path}: its pictures have {size[0]} x {size[1]} pixels; at most {MAX_PIXELS} are read")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.codec_context.thread_count = 1  # two threads gain nothing per CPU second
    return stream


def _damaged(path: Path, where: str = "") -> UnreadableVideo:
    return UnreadableVideo(f"{path}: it is cut off or damaged{where}; copy it again")


def _too_slow(path: Path, time_limit_s: float) -> TooSlow:
    return TooSlow(f"{path}: decoding took longer than the limit of {time_limit_s:g} s per {FRAMES_PER_LIMIT} frames")


class Limit:
    """Seconds that reading up to `FRAMES_PER_LIMIT` frames may take, and in proportion for more; it can be paused."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._left_s, self._resumed_s = seconds, time.monotonic()
        self._frames = 0

    def check(self) -> None:
        """Raise UnreadableVideo once the time is used up."""
        progressed()
        if time.monotonic() - self._resumed_s > self._left_s:
            raise _too_slow(self.path, self.seconds)

    def frame_read(self) -> None:
        """Count a frame, and pause."""
        self.check()
        self._left_s -= time.monotonic() - self._resumed_s
        self._frames += 1
        if self._frames > FRAMES_PER_LIMIT:
            self._left_s += self.seconds / FRAMES_PER_LIMIT

    def resume(self) -> None:
        """Reading goes on."""
        self._resumed_s = time.monotonic()


def sequential(
    path: Path, time_limit_s: float, packet_seen: Callable[[Packet], None] | None = None
) -> Iterator[tuple[VideoFrame, VideoStream]]:
    """Every frame in presentation order, on one thread; damage and delay raise UnreadableVideo.

    `time_limit_s` is a `Limit` on the time spent here, not on what the caller does with a frame. It is checked at every
    packet of any stream, with frames or without; see `opened` for what it cannot interrupt. `packet_seen` gets the
    packets of the video that are not empty.
    """
    limit = Limit(path, time_limit_s)
    with opened(path, time_limit_s) as (container, stream):
        packets = 0
        for packet in container.demux():
            limit.check()
            if packet.stream is not stream:
                continue
            if packet.size:
                packets += 1
                if packet_seen:
                    packet_seen(packet)
            if packet.is_corrupt:
                raise _damaged(path, f" in packet {packets - 1}")
            for frame in stream.decode(packet):
                if frame.is_corrupt:
                    raise _damaged(path, "" if frame.time is None else f" at {frame.time:.2f} s")
                limit.frame_read()
                yield frame, stream
                limit.resume()
        if packets < len(stream.index_entries):  # an index may list key frames only, so never demand equality
            listed = len(stream.index_entries)
            raise _damaged(path, f": its index lists {listed} packets, {packets} are there")


def on_this_node(path: Path) -> Path:
    """The file, or this node's copy of it; raises UnreadableVideo if there is none."""
    try:
        return storage.local(path, settled=True)
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{path}: {error.strerror or error}") from error
