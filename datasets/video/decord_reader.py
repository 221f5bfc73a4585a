"""The child process of `video.Decord`: frame indices on stdin, shape and RGB bytes on stdout.

Its own process, since decord can hang, and keeps memory after a reader is closed.
"""

from __future__ import annotations

import sys

import numpy as np


def main(path: str, size_px: int) -> None:
    """Write int64 (4,), the shape (n, H, W, 3), and then the pixels."""
    import decord

    frames = np.frombuffer(sys.stdin.buffer.read(), np.int64)
    size = {"width": size_px, "height": size_px} if size_px else {}
    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, **size)
    if frames[-1] >= len(reader):
        sys.exit(f"frame {frames[-1]} was asked for, but decord finds {len(reader)} frames")
    pixels = np.stack([_unpadded(reader[int(frame)].asnumpy()) for frame in frames])
    sys.stdout.buffer.write(np.asarray(pixels.shape, np.int64).tobytes())
    sys.stdout.buffer.write(pixels.data)
    sys.stdout.buffer.flush()


def _unpadded(picture: np.ndarray) -> np.ndarray:
    """Where a row's padding makes it 4 bytes per pixel long (as at width 72), decord takes it for 4 channels."""
    height, width, channels = picture.shape
    return picture if channels == 3 else picture.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
