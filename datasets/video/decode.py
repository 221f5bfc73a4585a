"""Exact frames from video files: frame k is the k-th frame, in presentation order, of a sequential decode."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from crossview import storage
from crossview.errors import UserError

Pixels = Literal["rgb", "yuv420"]

_BT709, _BT2020 = 1, (9, 10)  # AVCOL_SPC_BT709, _BT2020_NCL, _BT2020_CL
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


class UnreadableVideo(UserError):  # noqa: N818 - it says what the file is
    """The file cannot give the frames that were asked for; the message names the file and the reason."""


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


class Decoder(Protocol):
    """One way to read frames."""

    def decode(
        self, path: Path, frames: np.ndarray, *, size_px: int | None, pixels: Pixels, time_limit_s: float
    ) -> np.ndarray:
        """The frames `frames`, which are sorted and unique; raises UnreadableVideo."""


def file_state(file: Path) -> list[Any]:
    """`storage.state`: other values once the file is another; empty where there is none."""
    try:
        return storage.state(file)
    except OSError as error:
        if storage.is_local(file) or isinstance(error, FileNotFoundError):
            return []  # decoding will name the missing file
        raise


def probe(path: Path, *, time_limit_s: float = 600.0) -> VideoInfo:
    """Decode the whole file once, without keeping pixels, and count its frames; raises UnreadableVideo."""
    count, start_s, end_s, stated, size = 0, 0.0, 0.0, 0.0, (0, 0)
    for frame, stream in sequential(path, time_limit_s):
        end_s = float(frame.time or 0.0)
        if not count:
            start_s, size = end_s, displayed_size(frame)
            stated = float(stream.average_rate or stream.guessed_rate or 0)
        count += 1
    if not count:
        raise UnreadableVideo(f"{path}: it holds no frame")
    measured = (count - 1) / (end_s - start_s) if end_s > start_s else stated
    # The stated rate is exact where the rate is constant; a container of variable rate may state any.
    fps = stated if abs(measured - stated) < 0.01 * stated else measured
    if fps <= 0:
        raise UnreadableVideo(f"{path}: it states no frame rate; re-encode it with one")
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


class PyAV:
    """One thread, forward only: decodes up to the last frame asked for, converts only the frames asked for.

    It never seeks: no container index is exact for every file, and on a prepared copy skipping saves little.
    """

    def decode(
        self, path: Path, frames: np.ndarray, *, size_px: int | None, pixels: Pixels, time_limit_s: float
    ) -> np.ndarray:
        """See `decode`."""
        out: np.ndarray | None = None
        n = count = 0
        size = (size_px, size_px) if size_px else None
        for frame, _ in sequential(path, time_limit_s):
            if count == frames[n]:
                picture = _rgb(frame, size) if pixels == "rgb" else yuv420(frame, size)
                if out is None:
                    out = np.empty((len(frames), *picture.shape), np.uint8)
                if picture.shape != out.shape[1:]:
                    raise UnreadableVideo(
                        f"{path}: the picture's size changes at frame {count}; give size_px or prepare it"
                    )
                out[n] = picture
                n += 1
                if n == len(frames):
                    assert out is not None
                    return out
            count += 1
        raise UnreadableVideo(f"{path}: frame {frames[n]} was asked for, but a sequential decode finds {count} frames")


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


DECODERS: dict[str, Decoder] = {"pyav": PyAV(), "decord": Decord()}


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


def _quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns of the file's display matrix."""
    return round(frame.rotation / 90) % 4


def displayed_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width after the rotation."""
    size = (frame.height, frame.width)
    return size if _quarter_turns(frame) % 2 == 0 else size[::-1]


def _reformat(frame: VideoFrame, size: tuple[int, int] | None, pixel_format: str) -> VideoFrame:
    """Resize to a displayed `size` and convert in one pass of swscale, with the matrix and range that the file states.

    A file that states none is taken for BT.601 limited, as swscale and OpenCV do.
    """
    space = int(frame.colorspace)
    matrix = Colorspace.ITU709 if space == _BT709 else Colorspace.BT2020 if space in _BT2020 else Colorspace.ITU601
    full = int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
    height, width = size or displayed_size(frame)
    if _quarter_turns(frame) % 2:
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


def _rgb(frame: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    picture = _reformat(frame, size, "rgb24").to_ndarray()
    return np.rot90(picture, _quarter_turns(frame))


def yuv420(frame: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    """I420 planes of one frame as displayed, BT.601 limited range: uint8 (H * 3 // 2, W), H and W cut to even."""
    picture = _reformat(frame, size, "yuv420p")
    height, width = picture.height // 2 * 2, picture.width // 2 * 2
    turns = _quarter_turns(frame)
    planes = []
    for plane, halve in zip(picture.planes, (1, 2, 2), strict=True):
        stored = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(np.rot90(stored[: height // halve, : width // halve], turns).reshape(-1))
    return np.concatenate(planes).reshape(-1, width if turns % 2 == 0 else height)


def yuv420_of_rgb(picture: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """What `yuv420` gives of a file whose displayed frame this is: uint8 RGB (H, W, 3) -> (H * 3 // 2, W)."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return yuv420(frame, size)


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
