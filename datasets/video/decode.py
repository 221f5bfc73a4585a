"""Exact frames from video files: frame k is the k-th frame, in presentation order, of a sequential decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from crossview import storage
from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.decord_decoder import Decord
from crossview.datasets.video.frames import UnreadableVideo, as_unreadable, sequential
from crossview.datasets.video.orientation import displayed_size
from crossview.datasets.video.pyav_decoder import PyAV
from crossview.errors import UserError

MIN_FPS, MAX_FPS = 1e-3, 1e5
"""Frame rates outside are errors of the file: of its time base, mostly."""


@dataclass(frozen=True)
class VideoInfo:
    """What a full decode finds, as displayed (after the file's rotation)."""

    fps: float
    """The stated rate, or the average of the frames' times where they contradict it."""
    num_frames: int
    """Frames that a sequential decode yields; never the container's own count."""
    height_px: int
    width_px: int
    start_s: float
    """Presentation time of the first frame."""


def probe(path: Path, *, time_limit_s: float = 600.0) -> VideoInfo:
    """Decode the whole file once, without keeping pixels, and count its frames; raises UnreadableVideo."""
    count, start_s, end_s, stated, size = 0, 0.0, 0.0, 0.0, (0, 0)
    for frame, stream in sequential(path, time_limit_s):
        with as_unreadable(path):
            at_s = frame.time
            if not count:
                start_s, size = at_s or 0.0, displayed_size(frame)
                stated = float(stream.average_rate or stream.guessed_rate or 0)
        end_s = start_s if at_s is None else at_s
        count += 1
    if not count:
        raise UnreadableVideo(f"{path}: it holds no frame")
    measured = (count - 1) / (end_s - start_s) if end_s > start_s else stated
    # The stated rate is exact where the rate is constant; a container of variable rate may state any.
    fps = stated if abs(measured - stated) < 0.01 * stated else measured
    if fps <= 0:
        raise UnreadableVideo(f"{path}: it states no frame rate; re-encode it with one")
    if not MIN_FPS <= fps <= MAX_FPS:  # or not a number
        raise UnreadableVideo(
            f"{path}: its frame rate is {fps:g} per s, not {MIN_FPS:g} to {MAX_FPS:g}; re-encode it with its true rate"
        )
    return VideoInfo(fps, count, *size, start_s)


def decode(
    path: Path | str,
    frames: np.ndarray,
    *,
    size_px: int | None = None,
    pixels: Pixels = "rgb",
    decoder: Literal["pyav", "decord"] = "pyav",
    time_limit_s: float = 60.0,
) -> np.ndarray:
    """The frames with the given indices, from one forward pass over the file.

    frames: int64 (n,), sorted and unique. size_px None keeps the displayed size (cut to even for "yuv420"), else frames
    are resized to size_px x size_px whatever their aspect.
    Returns uint8: "rgb" (n, H, W, 3); "yuv420" (n, H * 3 // 2, W), planar I420, always BT.601 limited range.
    Raises UnreadableVideo if the file is damaged, has too few frames, or takes longer than `time_limit_s`.
    """
    if decoder not in DECODERS:
        raise UserError(f"decoder is {decoder!r}; choose from {', '.join(DECODERS)}")
    frames = np.asarray(frames, dtype=np.int64)
    if frames.ndim != 1 or not len(frames) or frames[0] < 0 or bool(np.any(np.diff(frames) <= 0)):
        raise UserError(f"{path}: frames are {frames}; they must be one or more sorted unique indices from 0")
    if size_px is not None and pixels == "yuv420" and size_px % 2:
        raise UserError(f"{path}: size_px is {size_px}; it must be even for yuv420 (4:2:0 chroma)")
    reader = DECODERS[decoder]
    return reader.decode(storage.as_path(path), frames, size_px=size_px, pixels=pixels, time_limit_s=time_limit_s)


class Decoder(Protocol):
    """One way to read frames."""

    def decode(
        self, path: Path, frames: np.ndarray, *, size_px: int | None, pixels: Pixels, time_limit_s: float
    ) -> np.ndarray:
        """The frames `frames`, which are sorted and unique; raises UnreadableVideo."""


DECODERS: dict[str, Decoder] = {"pyav": PyAV(), "decord": Decord()}
