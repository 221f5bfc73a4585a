"""Frames by number with decord, from the files that it numbers rightly."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossview.datasets.video.conversion import Pixels, of_rgb
from crossview.datasets.video.frames import UnreadableVideo, as_unreadable, on_this_node, opened, printable
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.orientation import Orientation, orientation
from crossview.datasets.video.source import Source, Wanted, frames_in_file
from crossview.errors import UserError


class Decord:
    """decord in a child process, since it can hang; RGB only, and only files whose frames it numbers rightly.

    It returns wrong frames where frames are reordered over an open GOP or cut by an edit list, so it reads H.264
    without B-frames that starts at zero, such as `prepare` writes.
    """

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`; a file that decord would misnumber raises ValueError."""
        frames = frames_in_file(source, wanted)
        framings = {w.framing for w in wanted}
        out: list[np.ndarray] = [np.empty(0, np.uint8)] * len(wanted)
        for framing in framings:
            whole = framing != Framing(size=framing.size)  # then pictures are cut out of the displayed ones
            size_px = framing.size[0] if framing.size and not whole else None
            pictures = self._decode(source.path, frames, size_px=size_px, pixels=pixels, time_limit_s=time_limit_s)
            if whole:
                pictures = np.stack([of_rgb(picture, framing, "rgb") for picture in pictures])
            for k, w in enumerate(wanted):
                if w.framing == framing:
                    out[k] = pictures[np.searchsorted(frames, w.frames + source.first_frame)]
        return out

    def _decode(
        self, path: Path, frames: np.ndarray, *, size_px: int | None, pixels: Pixels, time_limit_s: float
    ) -> np.ndarray:
        if pixels != "rgb":
            raise UserError(f"decoder 'decord' yields 'rgb', not {pixels!r}; take decoder 'pyav'")
        _check_decord_can(path, time_limit_s)
        file = on_this_node(path).absolute()  # no option and no URL, whatever its name
        command = [sys.executable, "-m", "crossview.datasets.video.decord_reader", str(file), str(size_px or 0)]
        try:
            child = subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=time_limit_s)
        except subprocess.TimeoutExpired as error:  # run() has killed the child
            raise UnreadableVideo(f"{path}: decord took longer than the limit of {time_limit_s:g} s") from error
        if child.returncode < 0:
            raise UnreadableVideo(f"{path}: decord crashed ({signal.Signals(-child.returncode).name})")
        if child.returncode:
            lines = child.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {child.returncode}"]
            raise UnreadableVideo(f"{path}: decord: {lines[-1]}")
        with as_unreadable(path):
            shape = np.frombuffer(child.stdout[:32], np.int64)
            return np.frombuffer(child.stdout, np.uint8, offset=32).reshape(shape)


def _check_decord_can(path: Path, time_limit_s: float) -> None:
    with opened(path, time_limit_s) as (container, stream):
        first = next(container.decode(stream), None)
        trouble = {
            f"codec {stream.codec_context.name}": stream.codec_context.name != "h264",
            "B-frames": stream.codec_context.has_b_frames,
            f"start at {stream.start_time} ticks": bool(stream.start_time),
            "a rotation or mirroring": first is not None and orientation(first) != Orientation(),
            "an edit list that cuts frames": any(entry.is_discard for entry in stream.index_entries),
            "several video streams": len(container.streams.video) > 1,
            "a name that is not UTF-8": printable(str(path)) != str(path),
        }
    if any(trouble.values()):
        found = ", ".join(what for what, there in trouble.items() if there)
        raise UserError(
            f"{path}: decoder 'decord' may return wrong frames here ({found}); it reads H.264 without B-frames that "
            "starts at 0: make a copy with `crossview prepare`, or take decoder 'pyav'"
        )
