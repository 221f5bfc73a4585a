"""How a file says that its pictures are to be turned for display."""

from __future__ import annotations

from av.video.frame import VideoFrame


def quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns of the file's display matrix."""
    return round(frame.rotation / 90) % 4


def displayed_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width after the rotation."""
    size = (frame.height, frame.width)
    return size if quarter_turns(frame) % 2 == 0 else size[::-1]
