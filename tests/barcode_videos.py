"""Small videos in which every frame shows its own instant, in 1/100 s of the scene's clock, as a barcode."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12
TICKS = 90_000  # time base of the frames' times, 1 / TICKS s


def picture(value: int, height: int = 96, width: int = 144) -> np.ndarray:
    """The number as bright and dark columns over the upper half, grey below: uint8 (H, W, 3)."""
    image = np.full((height, width, 3), 110, np.uint8)
    for bit in range(BITS):
        image[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 235 if value >> bit & 1 else 16
    return image


def read(plane: np.ndarray) -> int:
    """The number that a frame shows: uint8 (H, W, 3) or one plane (H, W)."""
    plane = plane if plane.ndim == 2 else plane.mean(axis=-1)
    row = plane[len(plane) // 4]
    return sum((int(row[(2 * bit + 1) * len(row) // (2 * BITS)]) > 120) << bit for bit in range(BITS))


def write(
    path: Path,
    times_s: Sequence[float] | np.ndarray,
    *,
    scene_start_s: float = 0.0,
    rate: Fraction | int = 30,
    height: int = 96,
    width: int = 144,
) -> Path:
    """Encode one frame of H.264 for each of the file's times, which shows scene_start_s + the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "14", "preset": "veryfast", "bf": "0", "g": "12"}
        for time_s in times_s:
            shown = picture(round((scene_start_s + time_s) * 100), height, width)
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time_s * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
