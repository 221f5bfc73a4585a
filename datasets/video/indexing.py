"""Making a file's frame index, in the one decode pass that cataloguing takes."""

from __future__ import annotations

import contextlib
import hashlib
import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from crossview import storage
from crossview.datasets.video import frames as reading
from crossview.datasets.video.child import call
from crossview.datasets.video.frame_index import FrameIndex, checksum, fingerprint
from crossview.datasets.video.frames import UnreadableVideo, as_unreadable, opened, sequential
from crossview.datasets.video.orientation import displayed_size
from crossview.errors import UserError

MIN_FPS, MAX_FPS = 1e-3, 1e5
"""Frame rates outside are errors of the file: of its time base, mostly."""
_TRIED = 6
"""Entry points at which pictures are compared with those of the sequential decode."""
_COMPARED = 3
"""Pictures that are compared at each."""


_WRAPPING = ("mpegts", "mpeg")
"""Containers whose clock of 33 bits starts anywhere."""


@dataclass(frozen=True)
class VideoInfo:
    """What a full decode finds, as displayed (after the file's rotation)."""

    fps: float
    """Of a constant rate; the average where the rate varies."""
    num_frames: int
    """Frames that a sequential decode yields; never the container's own count."""
    height_px: int
    width_px: int
    first_s: float
    """Presentation time of the first frame from the start of the file's clock, as where the sound starts earlier."""
    constant_rate: bool
    """Whether frame k is shown at ``first_s + k / fps``, to the precision of the file's time stamps."""
    index: str = ""
    """The file of the frame index, where one was written."""

    def columns(self) -> dict[str, Any]:
        """The fields of a `Recording` that is the whole file."""
        return asdict(self)


def index_of(path: Path, folder: Path, time_limit_s: float) -> VideoInfo:
    """`scan` that keeps the frame index in `folder`; a file that is indexed there is not decoded. UnreadableVideo."""
    if known := indexed_in(path, folder):
        return known
    kept = _place(path, folder)
    info, index = scan(path, time_limit_s=time_limit_s)
    facts = {name: value for name, value in asdict(info).items() if name != "index"}
    replace(index, facts=facts).write(kept)
    return replace(info, index=str(kept))


def indexed_in(path: Path, folder: Path) -> VideoInfo | None:
    """What the index in `folder` says of a file as it is now; None where it has none that can be read."""
    kept = _place(path, folder)
    if storage.is_file(kept):
        with contextlib.suppress(UserError):
            return VideoInfo(**FrameIndex.read(kept).facts, index=str(kept))
    return None


def _place(path: Path, folder: Path) -> Path:
    """Where the index of a file in its present state is kept; raises UnreadableVideo if the file is missing."""
    name = hashlib.blake2b(f"{path.absolute()} {fingerprint(path)}".encode(), digest_size=12).hexdigest()
    return folder / f"{name}.npz"


def scan(path: Path, *, time_limit_s: float) -> tuple[VideoInfo, FrameIndex]:
    """Decode the whole file once, in a child process and without keeping pixels; raises UnreadableVideo.

    `time_limit_s` is for 1800 frames, a minute of video; a longer file has more.
    """
    return call(path, [path], time_limit_s, _scan, path, time_limit_s)


def _scan(path: Path, time_limit_s: float) -> tuple[VideoInfo, FrameIndex]:
    before = fingerprint(path)
    keys: dict[int, int | None] = {}
    pts: list[int | None] = []
    checks: list[int] = []
    stated, size, time_base, clock_start_s = 0.0, (0, 0), Fraction(1), 0.0

    def packet_seen(packet: Packet) -> None:
        if packet.is_keyframe and packet.pts is not None:
            keys[packet.pts] = packet.dts

    for frame, stream in sequential(path, time_limit_s, packet_seen):
        with as_unreadable(path):
            if not pts:
                size, time_base = displayed_size(frame), Fraction(frame.time_base or stream.time_base or 1)
                stated = float(stream.average_rate or stream.guessed_rate or 0)
                clock_start_s = clock_start(stream, float((frame.pts or 0) * time_base))
            pts.append(frame.pts)
            checks.append(checksum(frame))
    if not pts:
        raise UnreadableVideo(f"{path}: it holds no frame")
    stamps = _stamps(pts)
    index = FrameIndex(
        stamps if stamps is not None else np.zeros(len(pts), np.int64), time_base, clock_start_s,
        np.array(checks, np.uint32), np.empty(0, np.int64), np.empty(0, np.int64), before,
    )  # fmt: skip
    fps, constant = _rate(path, stamps, time_base, stated)
    first_s = max(0.0, float(index.times_s[0])) if stamps is not None else 0.0
    info = VideoInfo(fps, len(pts), *size, first_s, constant)
    if fingerprint(path) != before:
        raise UnreadableVideo(f"{path}: it changed while it was read; try again once it is written")
    if stamps is None:
        return info, index
    entries = _entries(path, index, keys, time_limit_s)
    return info, FrameIndex(stamps, time_base, clock_start_s, index.checks, *entries, before)


def stated(path: Path, *, time_limit_s: float) -> VideoInfo | None:
    """What the container says of a video at a constant rate, of which the first frame alone is decoded.

    None where it does not list every frame with its time, or the rate varies: such a file has to be scanned. The number
    of frames is the container's, which an edit list or damage may make larger than what a decode yields. Raises
    UnreadableVideo.
    """
    return call(path, [path], time_limit_s, _stated, path, time_limit_s)


def _stated(path: Path, time_limit_s: float) -> VideoInfo | None:
    with opened(path, time_limit_s) as (container, stream), as_unreadable(path):
        listed = [entry.timestamp for entry in stream.index_entries]
        if not listed or len(listed) != stream.frames:
            return None
        time_base = Fraction(stream.time_base or 1)
        fps, constant = _rate(path, np.array(sorted(listed), np.int64), time_base, float(stream.average_rate or 0))
        frame = next(container.decode(stream), None)
        if frame is None or not constant:
            return None
        shown_s = float((frame.pts or 0) * time_base)
        first_s = max(0.0, shown_s - clock_start(stream, shown_s))
        return VideoInfo(fps, len(listed), *displayed_size(frame), first_s, constant)


def clock_start(stream: VideoStream, first_s: float) -> float:
    """Start of the file's clock: the first time stamp of the stream that starts first.

    Sound that starts before 0 beside a picture that does not is what its encoder put before the first sample. Where the
    container's clock has no meaningful 0, FFmpeg gives times before 0 to what comes before the clock wraps.
    """
    container = stream.container
    starts = [float(s.start_time * s.time_base) for s in container.streams.audio
              if s.start_time is not None and s.time_base is not None]  # fmt: skip
    earliest_s = -math.inf if container.format.name in _WRAPPING else min(0.0, first_s)
    return min([first_s, *(max(start, earliest_s) for start in starts)])


def _stamps(pts: list[int | None]) -> np.ndarray | None:
    """Time stamps as int64 (n,), if every frame has one and they increase."""
    if any(stamp is None for stamp in pts):
        return None
    stamps = np.array(pts, np.int64)
    return stamps if bool(np.all(np.diff(stamps) > 0)) else None


def _rate(path: Path, stamps: np.ndarray | None, time_base: Fraction, stated: float) -> tuple[float, bool]:
    """Frames per second, and whether every frame is shown in its multiple; raises UnreadableVideo for no valid rate."""
    fps, constant = stated, True
    if stamps is not None and len(stamps) > 1:
        times_s = (stamps - stamps[0]) * float(time_base)
        measured = float((len(stamps) - 1) / times_s[-1])
        nearby = float(Fraction(measured).limit_denominator(1001))
        precision_s = max(float(time_base), 1e-3)
        for rate in (stated, nearby, measured):
            if rate <= 0:
                continue
            most_s = min(precision_s, 0.25 / rate)  # a tick may be as long as a frame, as in AVI, and drop one
            if np.abs(times_s - np.arange(len(stamps)) / rate).max() <= most_s:
                fps = rate
                break
        else:
            fps, constant = measured, False
    if fps <= 0:
        raise UnreadableVideo(f"{path}: it states no frame rate; re-encode it with one")
    if not MIN_FPS <= fps <= MAX_FPS:  # or not a number
        raise UnreadableVideo(
            f"{path}: its frame rate is {fps:g} per s, not {MIN_FPS:g} to {MAX_FPS:g}; re-encode it with its true rate"
        )
    return fps, constant


def _entries(
    path: Path, index: FrameIndex, keys: dict[int, int | None], time_limit_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Frames that decoding can start from, and the time stamps that lead to them: key frames that a seek leads to.

    keys: presentation and decoding time stamps of the key frames. There is no entry at all where one of those tried
    gives other pictures than a sequential decode.
    """
    frames, stamps = [], []
    try:
        with opened(path, time_limit_s) as (container, stream), as_unreadable(path):
            in_order = sorted(keys.items())
            before_next = [pts - 1 for pts, _ in in_order[1:]] + [int(index.pts[-1])]
            for (pts, dts), late in zip(in_order, before_next, strict=True):
                frame = int(np.searchsorted(index.pts, pts))
                if frame == len(index.pts) or index.pts[frame] != pts:
                    continue  # an edit list hides it
                # What a seek compares with differs from container to container, and where an edit list moves times.
                tried = (stamp for stamp in (pts, dts, late) if stamp is not None)
                stamp = next((stamp for stamp in tried if _leads_to(container, stream, stamp, pts)), None)
                if stamp is not None:
                    frames.append(frame)
                    stamps.append(stamp)
            for k in np.unique(np.linspace(0, len(frames) - 1, _TRIED).astype(int)) if frames else ():
                if not _same_pictures(container, stream, index, frames[k], stamps[k]):
                    return np.empty(0, np.int64), np.empty(0, np.int64)
    except UnreadableVideo:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.array(frames, np.int64), np.array(stamps, np.int64)


def _leads_to(container: InputContainer, stream: VideoStream, stamp: int, pts: int) -> bool:
    """Whether a seek to `stamp` leads to the packet with this presentation time stamp."""
    reading.progressed()
    container.seek(stamp, stream=stream)
    landed = next((packet for packet in container.demux(stream) if packet.size), None)
    return landed is not None and landed.pts == pts


def _same_pictures(container: InputContainer, stream: VideoStream, index: FrameIndex, first: int, stamp: int) -> bool:
    container.seek(stamp, stream=stream)
    number = first
    for frame in container.decode(stream):
        if frame.pts is None or frame.pts < index.pts[first]:
            continue
        if frame.is_corrupt or not index.shows(number, frame):
            return False
        number += 1
        if number == min(first + _COMPARED, len(index.pts)):
            return True
    return False
