"""Frames by number with PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossview.datasets.video.conversion import Pixels, rgb, yuv420
from crossview.datasets.video.frames import UnreadableVideo, as_unreadable, sequential


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
                with as_unreadable(path):
                    picture = rgb(frame, size) if pixels == "rgb" else yuv420(frame, size)
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
