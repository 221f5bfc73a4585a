"""Decoded frames as arrays: size, colour matrix and range, orientation."""

from __future__ import annotations

from typing import Literal

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from crossview.datasets.video.framing import Framing
from crossview.datasets.video.orientation import displayed_size, orientation

Pixels = Literal["rgb", "yuv420"]

_BT709, _BT2020 = 1, (9, 10)  # AVCOL_SPC_BT709, _BT2020_NCL, _BT2020_CL
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def rgb(frame: VideoFrame, framing: Framing) -> np.ndarray:
    """One frame as displayed: uint8 (H, W, 3)."""
    return orientation(frame).apply(_reformat(frame, framing.size, "rgb24").to_ndarray())


def yuv420(frame: VideoFrame, framing: Framing) -> np.ndarray:
    """I420 planes of one frame as displayed, BT.601 limited range: uint8 (H * 3 // 2, W), H and W cut to even."""
    picture = _reformat(frame, framing.size, "yuv420p")
    height, width = picture.height // 2 * 2, picture.width // 2 * 2
    shown = orientation(frame)
    planes = []
    for plane, halve in zip(picture.planes, (1, 2, 2), strict=True):
        stored = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(shown.apply(stored[: height // halve, : width // halve]).reshape(-1))
    return np.concatenate(planes).reshape(-1, width if shown.turns % 2 == 0 else height)


def yuv420_of_rgb(picture: np.ndarray, framing: Framing) -> np.ndarray:
    """What `yuv420` gives of a file whose displayed frame this is: uint8 RGB (H, W, 3) -> (H * 3 // 2, W)."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return yuv420(frame, framing)


def _reformat(frame: VideoFrame, size: tuple[int, int] | None, pixel_format: str) -> VideoFrame:
    """Resize to a displayed `size` and convert in one pass of swscale, with the matrix and range that the file states.

    A file that states none is taken for BT.601 limited, as swscale and OpenCV do.
    """
    space = int(frame.colorspace)
    matrix = Colorspace.ITU709 if space == _BT709 else Colorspace.BT2020 if space in _BT2020 else Colorspace.ITU601
    full = int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
    height, width = size or displayed_size(frame)
    if orientation(frame).turns % 2:
        height, width = width, height
    shrinks = height <= frame.height and width <= frame.width
    return frame.reformat(
        width=width,
        height=height,
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG if pixel_format == "rgb24" else ColorRange.MPEG,
        interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR,
        threads=1,
    )
