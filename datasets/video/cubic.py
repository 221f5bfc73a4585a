"""Cubic convolution of pictures without a filter against aliasing, as OpenCV's INTER_CUBIC and torch's bicubic are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_A = -0.75
"""Parameter of Keys' kernel (1981)."""


def cubic(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resampled with pixel centres aligned and borders repeated: uint8 (H, W, C) -> uint8 (*size, C)."""
    height, width, channels = picture.shape
    down, across = _weights(height, size[0]), _weights(width, size[1])
    rows = down @ picture.reshape(height, -1).astype(np.float32)  # (H', W C)
    out = np.matmul(across, rows.reshape(size[0], width, channels))
    return np.rint(out).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _weights(old: int, new: int) -> np.ndarray:
    """float32 (new, old), each row with weights of four neighbours that sum to 1."""
    at = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(at).astype(int) - 1
    out = np.zeros((new, old), np.float32)
    for tap in range(4):
        d = np.abs(at - (first + tap))
        near = ((_A + 2) * d - (_A + 3)) * d * d + 1
        far = ((_A * d - 5 * _A) * d + 8 * _A) * d - 4 * _A
        np.add.at(out, (np.arange(new), (first + tap).clip(0, old - 1)), np.where(d <= 1, near, far))
    return out
