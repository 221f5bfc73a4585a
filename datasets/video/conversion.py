"""Decoded frames as arrays: part, size, colour matrix and range, orientation."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from crossview.datasets.video.cubic import cubic
from crossview.datasets.video.framing import Framing, Scaling, Size, region_px
from crossview.datasets.video.orientation import Orientation, orientation

Pixels = Literal["rgb", "yuv420"]

_BT709, _BT2020 = 1, (9, 10)  # AVCOL_SPC_BT709, _BT2020_NCL, _BT2020_CL
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_FULL_CHROMA = 0x2000  # SWS_FULL_CHR_H_INT: without it, scaled RGB has the colours of every second column
_BLACK = {"rgb": (0,), "yuv420": (16, 128, 128)}
_METHODS: dict[Scaling, Interpolation] = {
    "area": Interpolation.AREA,
    "bilinear": Interpolation.BILINEAR,
    "bicubic": Interpolation.BICUBIC,
}


def rgb(frame: VideoFrame, framing: Framing, into: np.ndarray | None = None) -> np.ndarray:
    """One frame as displayed: uint8 (H, W, 3), `into` an array of this shape if one is given."""
    shown = orientation(frame)
    first = framing.via or framing.scaled
    scaling: Scaling = "area" if framing.via else framing.scaling
    picture = shown.apply(_part(frame, shown, framing, first, scaling, "rgb24").to_ndarray())
    if framing.via and framing.scaled:
        picture = cubic(picture, framing.scaled)
    picture = _padded(picture, framing, _BLACK["rgb"][0])
    if into is None or into.shape != picture.shape:
        return picture
    into[:] = picture
    return into


def yuv420(frame: VideoFrame, framing: Framing, into: np.ndarray | None = None) -> np.ndarray:
    """I420 planes of one frame as displayed, BT.601 limited range: uint8 (H * 3 // 2, W), H and W cut to even.

    They are written `into` a contiguous array of this shape if one is given; an array of another shape is left as it
    is.
    """
    if framing.via:
        raise ValueError(f"{framing}: scaling in two steps is for pixels 'rgb'")
    shown = orientation(frame)
    picture = _part(frame, shown, framing, framing.scaled, framing.scaling, "yuv420p")
    height, width = picture.height // 2 * 2, picture.width // 2 * 2
    planes = []
    for plane, halve, black in zip(picture.planes, (1, 2, 2), _BLACK["yuv420"], strict=True):
        stored = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(_padded(shown.apply(stored[: height // halve, : width // halve]), framing, black, halve))
    height, width = planes[0].shape
    out = into if into is not None and into.shape == (height * 3 // 2, width) else None
    if out is None:
        out = np.empty((height * 3 // 2, width), np.uint8)
    flat, first = out.reshape(-1), 0
    for shown_plane in planes:
        flat[first : first + shown_plane.size].reshape(shown_plane.shape)[:] = shown_plane
        first += shown_plane.size
    return out


CONVERT: dict[Pixels, Callable[[VideoFrame, Framing, np.ndarray | None], np.ndarray]] = {"rgb": rgb, "yuv420": yuv420}


def of_rgb(picture: np.ndarray, framing: Framing, pixels: Pixels) -> np.ndarray:
    """What a file gives whose displayed frame this is: uint8 RGB (H, W, 3) -> (H', W', 3), or planes of "yuv420"."""
    return CONVERT[pixels](VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"), framing, None)


def _padded(picture: np.ndarray, framing: Framing, black: int, halve: int = 1) -> np.ndarray:
    """Centred in `framing.size` between bars: (H, W, ...); `halve` is 2 for a chroma plane."""
    if framing.content is None or framing.size is None:
        return picture
    bars = [(side - inner) // 4 * 2 // halve for side, inner in zip(framing.size, framing.content, strict=True)]
    out = np.full((*(side // halve for side in framing.size), *picture.shape[2:]), black, np.uint8)
    out[bars[0] : bars[0] + picture.shape[0], bars[1] : bars[1] + picture.shape[1]] = picture
    return out


def _part(
    frame: VideoFrame, shown: Orientation, framing: Framing, size: Size | None, scaling: Scaling, pixel_format: str
) -> VideoFrame:
    """The region, as stored, at a displayed `size`: the frame is cut, without a copy, before it is scaled."""
    space, full = int(frame.colorspace), int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
    if framing.region is not None:
        frame = _cut(frame, region_px(shown.stored(framing.region), frame.height, frame.width))
    height, width = (frame.height, frame.width) if size is None else size[:: -1 if shown.turns % 2 else 1]
    return _reformat(frame, height, width, scaling, pixel_format, space, full)


def _reformat(
    frame: VideoFrame, height: int, width: int, scaling: Scaling, pixel_format: str, space: int, full: bool
) -> VideoFrame:
    """Resize and convert in one pass of swscale, with the matrix and range that the file states.

    A file that states none is taken for BT.601 limited, as swscale and OpenCV do. Where nothing changes, swscale is
    left out.
    """
    matrix = Colorspace.ITU709 if space == _BT709 else Colorspace.BT2020 if space in _BT2020 else Colorspace.ITU601
    shrinks = height <= frame.height and width <= frame.width
    method = int(_METHODS.get(scaling, Interpolation.AREA if shrinks else Interpolation.BILINEAR))
    if pixel_format == "rgb24" and (height, width) != (frame.height, frame.width):
        method |= _FULL_CHROMA
    return frame.reformat(
        width=width,
        height=height,
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG if pixel_format == "rgb24" else ColorRange.MPEG,
        interpolation=method,
        threads=1,
    )


def _cut(frame: VideoFrame, pixels: tuple[int, int, int, int]) -> VideoFrame:
    """A frame that shares the memory of a part of `frame`: top, left, height and width, all even."""
    top, left, height, width = pixels
    if (height, width) == (frame.height, frame.width):
        return frame
    graph = _graph(frame, f"{width}:{height}:{left}:{top}")
    graph.push(frame)
    part: VideoFrame = graph.pull()  # type: ignore[assignment]
    return part


_MAX_GRAPHS = 8
_threads = threading.local()


def _graph(frame: VideoFrame, crop: str) -> Graph:
    """FFmpeg's crop filter for frames like this one; a few per thread are kept, as a clip's frames share one.

    Making one costs as much as half a scaling; a frame through it costs microseconds.
    """
    kept: OrderedDict[tuple[int, int, str, str], Graph] = _threads.__dict__.setdefault("graphs", OrderedDict())
    key = (frame.width, frame.height, frame.format.name, crop)
    if key not in kept:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        graph.link_nodes(source, graph.add("crop", crop), graph.add("buffersink")).configure()
        kept[key] = graph
        while len(kept) > _MAX_GRAPHS:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
