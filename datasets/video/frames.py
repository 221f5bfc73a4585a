"""Opening a video file and reading its frames in presentation order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from crossview import storage
from crossview.errors import UserError


class UnreadableVideo(UserError):  # noqa: N818 - it says what the file is
    """The file cannot give the frames that were asked for; the message names the file and the reason."""


def file_state(file: Path) -> list[Any]:
    """`storage.state`: other values once the file is another; empty where there is none."""
    try:
        return storage.state(file)
    except OSError as error:
        if storage.is_local(file) or isinstance(error, FileNotFoundError):
            return []  # decoding will name the missing file
        raise


def sequential(path: Path, time_limit_s: float) -> Iterator[tuple[VideoFrame, VideoStream]]:
    """Every frame in presentation order, on one thread; damage and delay raise UnreadableVideo.

    `time_limit_s` counts the time spent here, not what the caller does with a frame.
    """
    file = on_this_node(path)  # takes none of the time that is limited
    left_s, resumed_s = time_limit_s, time.monotonic()
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise UnreadableVideo(f"{path}: it holds no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # two threads gain nothing per CPU second
            packets = 0
            for packet in container.demux(stream):
                packets += packet.size > 0
                if packet.is_corrupt:
                    raise UnreadableVideo(f"{path}: it is cut off or damaged in packet {packets - 1}")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise UnreadableVideo(f"{path}: the picture at {frame.time} s is damaged")
                    left_s -= time.monotonic() - resumed_s
                    if left_s < 0:
                        raise UnreadableVideo(f"{path}: decoding took longer than the limit of {time_limit_s:g} s")
                    yield frame, stream
                    resumed_s = time.monotonic()
            if packets < len(stream.index_entries):  # an index may list key frames only, so never demand equality
                raise UnreadableVideo(
                    f"{path}: its index lists {len(stream.index_entries)} packets, {packets} are there"
                )
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: {error.strerror or error}") from error


def on_this_node(path: Path) -> Path:
    """The file, or this node's copy of it; raises UnreadableVideo if there is none."""
    try:
        return storage.local(path, settled=True)
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{path}: {error.strerror or error}") from error
