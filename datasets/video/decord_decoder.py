"""Frames by number with decord, from the files that it numbers rightly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np

from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.frames import UnreadableVideo, on_this_node
from crossview.errors import UserError


class Decord:
    """decord in a child process, since it can hang; RGB only, and only files whose frames it numbers rightly.

    It returns wrong frames where frames are reordered over an open GOP or cut by an edit list, so it reads H.264
    without B-frames that starts at zero, such as `prepare` writes.
    """

    def decode(
        self, path: Path, frames: np.ndarray, *, size_px: int | None, pixels: Pixels, time_limit_s: float
    ) -> np.ndarray:
        """See `decode`; a file that decord would misnumber raises ValueError."""
        if pixels != "rgb":
            raise UserError(f"decoder 'decord' yields 'rgb', not {pixels!r}; take decoder 'pyav'")
        _check_decord_can(path)
        file = on_this_node(path)
        command = [sys.executable, "-m", "crossview.datasets.video.decord_reader", str(file), str(size_px or 0)]
        try:
            child = subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=time_limit_s)
        except subprocess.TimeoutExpired as error:  # run() has killed the child
            raise UnreadableVideo(f"{path}: decord took longer than the limit of {time_limit_s:g} s") from error
        if child.returncode:
            lines = child.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {child.returncode}"]
            raise UnreadableVideo(f"{path}: decord: {lines[-1]}")
        shape = np.frombuffer(child.stdout[:32], np.int64)
        return np.frombuffer(child.stdout, np.uint8, offset=32).reshape(shape)


def _check_decord_can(path: Path) -> None:
    try:
        with av.open(str(on_this_node(path))) as container:
            if not container.streams.video:
                raise UnreadableVideo(f"{path}: it holds no video stream")
            stream = container.streams.video[0]
            first = next(container.decode(stream), None)
            trouble = {
                f"codec {stream.codec_context.name}": stream.codec_context.name != "h264",
                "B-frames": stream.codec_context.has_b_frames,
                f"start at {stream.start_time} ticks": bool(stream.start_time),
                "a rotation": first is not None and first.rotation != 0,
                "an edit list that cuts frames": any(entry.is_discard for entry in stream.index_entries),
            }
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: {error.strerror or error}") from error
    if any(trouble.values()):
        found = ", ".join(what for what, there in trouble.items() if there)
        raise UserError(
            f"{path}: decoder 'decord' may return wrong frames here ({found}); it reads H.264 without B-frames that "
            "starts at 0: make a copy with `crossview prepare`, or take decoder 'pyav'"
        )
