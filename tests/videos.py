"""Small video files for tests; every frame shows its number as a barcode along the top."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8
TICKS = 600  # time base of the frames' times, 1 / TICKS s


def picture(k: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frame `k`, uint8 (H, W, 3): barcode, coloured ramp, and a box that moves."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, (k * 37) % 256)], axis=-1).astype(np.uint8)
    left = (k * 5) % (width - 12)
    image[height // 2 : height // 2 + 12, left : left + 12] = (250, 240, 10)
    for bit in range(BITS):
        image[: height // 4, bit * width // BITS : (bit + 1) * width // BITS] = 255 if k >> bit & 1 else 0
    return image


def barcode(image: np.ndarray) -> int:
    """The number that a frame shows: uint8 (H, W, 3) or one plane (H, W)."""
    plane = image if image.ndim == 2 else image.mean(axis=-1)
    row = plane[plane.shape[0] // 8]
    width = len(row)
    return sum((int(row[(2 * bit + 1) * width // (2 * BITS)]) > 127) << bit for bit in range(BITS))


def write(
    path: Path,
    *,
    frames: int = 30,
    height: int = 64,
    width: int = 96,
    fps: int = 30,
    b_frames: int = 0,
    gop: int = 12,
    start_s: float = 0.0,
    variable: bool = False,
    rotation: int = 0,
    x264: str = "",
    bt709: bool = False,
) -> Path:
    """Encode H.264; `variable` doubles every third frame's duration, `rotation` turns the display matrix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", gop
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.thread_count = 1
        stream.options = {"bf": str(b_frames), "crf": "12", "preset": "veryfast", "x264-params": x264}
        if rotation:
            stream.set_display_rotation(rotation)
        if bt709:
            stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        tick = round(start_s * TICKS)
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(k, height, width), format="rgb24")
            if bt709:
                frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
            frame.pts, frame.time_base = tick, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
            tick += TICKS // fps * (2 if variable and k % 3 == 0 else 1)
        container.mux(stream.encode(None))
    return path


def truncate(path: Path, share: float = 0.6) -> Path:
    """Cut the file's end off."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def corrupt(path: Path) -> Path:
    """Overwrite the middle of the file with noise."""
    data = bytearray(path.read_bytes())
    middle, length = len(data) // 2, len(data) // 5
    data[middle : middle + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(bytes(data))
    return path
