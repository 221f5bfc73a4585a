from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import videos

from crossview.datasets.video.decode import decode
from crossview.platform.data.color import yuv420_to_rgb


def by_the_formula(planes: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 in floating point, chroma repeated: (B, H * 3 // 2, W) -> (B, 3, H, W)."""
    B, rows, W = planes.shape
    H = rows * 2 // 3
    luma = 255 / 219 * (planes[:, :H].astype(float) - 16)
    chroma = planes[:, H:].reshape(B, 2, H // 2, W // 2).repeat(2, axis=2).repeat(2, axis=3).astype(float) - 128
    blue, red = chroma[:, 0] * 255 / 224, chroma[:, 1] * 255 / 224
    green = (0.299 * 1.402 * red + 0.114 * 1.772 * blue) / 0.587
    return np.stack([luma + 1.402 * red, luma - green, luma + 1.772 * blue], axis=1).round().clip(0, 255)


@pytest.mark.parametrize(("height", "width"), [(64, 48), (6, 10), (2, 2)])
def test_every_byte_is_within_one_level_of_the_formula(height: int, width: int) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (11, height * 3 // 2, width), dtype=np.uint8)
    rgb = yuv420_to_rgb(torch.from_numpy(planes).view(11, 1, height * 3 // 2, width))
    assert rgb.shape == (11, 1, 3, height, width)
    assert np.abs(rgb[:, 0].numpy() - by_the_formula(planes)).max() <= 1


def test_pictures_look_like_those_of_swscale(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "a.mp4", frames=5, height=96, width=128)
    frames = np.arange(5)
    ours = yuv420_to_rgb(torch.from_numpy(decode(path, frames, pixels="yuv420"))).permute(0, 2, 3, 1).numpy()
    theirs = decode(path, frames, pixels="rgb")
    assert np.abs(ours.astype(int) - theirs).mean() < 2


def test_odd_planes_are_refused() -> None:
    with pytest.raises(ValueError, match="7 x 4"):
        yuv420_to_rgb(torch.zeros(7, 4, dtype=torch.uint8))
