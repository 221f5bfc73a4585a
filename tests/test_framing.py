"""Cut, scaled and padded pictures against plain references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import videos

from crossview.datasets.video.conversion import rgb, yuv420
from crossview.datasets.video.cubic import cubic
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.framing import Framing, region_px
from crossview.datasets.video.orientation import Orientation
from crossview.datasets.video.source import Source, Wanted
from crossview.platform.data.color import yuv420_to_rgb

TOLERANCE, YUV_TOLERANCE = 1.5, 4.0
"""Largest mean difference in levels of 255 from an area average in floating point; planes have half the colours."""


def waves(height: int, width: int) -> np.ndarray:
    """Smooth colours that differ everywhere: uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    turns = np.stack([x + y / 2, y - x / 2, x - y], axis=-1)
    return np.rint(127.5 + 100 * np.sin(2 * np.pi * turns)).astype(np.uint8)


def stored(height: int = 180, width: int = 320, pixel_format: str = "yuv420p") -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(waves(height, width), format="rgb24").reformat(format=pixel_format)


def in_rgb(planes: np.ndarray) -> np.ndarray:
    return yuv420_to_rgb(torch.from_numpy(planes)).permute(1, 2, 0).numpy()


def area(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mean over the exact area of each new pixel: uint8 (H, W, 3) -> float (*size, 3)."""

    def weights(old: int, new: int) -> np.ndarray:
        edges = np.arange(new + 1) * old / new
        low, high = np.maximum(np.arange(old), edges[:-1, None]), np.minimum(np.arange(1, old + 1), edges[1:, None])
        return (high - low).clip(0) * new / old

    rows = np.einsum("yh,hwc->ywc", weights(picture.shape[0], size[0]), picture.astype(float))
    return np.einsum("xw,ywc->yxc", weights(picture.shape[1], size[1]), rows)


REGIONS = [None, (0.0, 0.0, 1.0, 1.0), (0.1, 0.25, 0.5, 0.4), (0.5, 0.5, 0.5, 0.5), (0.0, 0.21875, 1.0, 0.5625)]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "nv12", "rgb24", "yuv420p10le", "yuvj420p"])
def test_a_region_is_cut_and_averaged(region: tuple[float, float, float, float] | None, pixel_format: str) -> None:
    framing = Framing(region, (56, 48))
    top, left, height, width = region_px(region or (0, 0, 1, 1), 180, 320)
    frame = stored(pixel_format=pixel_format)
    whole = rgb(frame, Framing())
    right = area(whole[top : top + height, left : left + width], (56, 48))
    found = rgb(frame, framing)
    assert found.shape == (56, 48, 3)
    assert np.abs(found - right).mean() < TOLERANCE
    assert np.abs(in_rgb(yuv420(frame, framing)) - right).mean() < YUV_TOLERANCE


def test_an_unscaled_region_has_the_very_bytes_of_the_planes() -> None:
    frame = stored()
    whole = yuv420(frame, Framing())
    cut = yuv420(frame, Framing((0.1, 0.25, 0.5, 0.4)))
    top, left, height, width = region_px((0.1, 0.25, 0.5, 0.4), 180, 320)
    assert (top, left, height, width) == (18, 80, 90, 128)
    assert np.array_equal(cut[:height], whole[top : top + height, left : left + width])
    for k in range(2):
        plane = whole[180 + 45 * k :][:45].reshape(90, 160)
        small = cut[height:].reshape(2, height // 2, width // 2)[k]
        assert np.array_equal(small, plane[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_region_of_a_turned_picture_is_where_it_is_seen(
    turns: int, mirrored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossview.datasets.video.conversion.orientation", lambda frame: Orientation(mirrored, turns))
    frame, region = stored(), (0.1, 0.3, 0.4, 0.6)
    whole = rgb(frame, Framing())
    top, left, height, width = region_px(region, *whole.shape[:2])
    right = whole[top : top + height, left : left + width]
    assert np.array_equal(rgb(frame, Framing(region)), right)
    small = area(right, (40, 32))
    assert np.abs(rgb(frame, Framing(region, (40, 32))) - small).mean() < TOLERANCE
    assert np.abs(in_rgb(yuv420(frame, Framing(region, (40, 32)))) - small).mean() < YUV_TOLERANCE


def test_a_padded_picture_is_centred_between_black_bars() -> None:
    frame, framing = stored(), Framing(None, (64, 64), (36, 64))
    for found in (rgb(frame, framing), in_rgb(yuv420(frame, framing))):
        assert found.shape == (64, 64, 3)
        assert found[:14].max() == 0
        assert found[50:].max() == 0
        assert np.abs(found[14:50] - area(rgb(frame, Framing()), (36, 64))).mean() < YUV_TOLERANCE


def test_two_steps_are_an_area_average_and_a_cubic_convolution() -> None:
    frame = stored(360, 640)
    found = rgb(frame, Framing(None, (56, 56), via=(64, 64)))
    first = torch.from_numpy(area(rgb(frame, Framing()), (64, 64))).round().permute(2, 0, 1)[None]
    right = torch.nn.functional.interpolate(first, (56, 56), mode="bicubic", antialias=False)[0].permute(1, 2, 0)
    assert np.abs(found - right.clamp(0, 255).numpy()).mean() < TOLERANCE
    with pytest.raises(ValueError, match="'rgb'"):
        yuv420(frame, Framing(None, (56, 56), via=(64, 64)))


@pytest.mark.parametrize("size", [(56, 40), (80, 96), (64, 64)])
def test_the_cubic_convolution_is_torchs(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    x = torch.from_numpy(picture).double().permute(2, 0, 1)[None]
    right = torch.nn.functional.interpolate(x, size, mode="bicubic", antialias=False)[0].permute(1, 2, 0)
    assert np.abs(cubic(picture, size) - right.clamp(0, 255).numpy()).max() <= 0.51


@pytest.mark.parametrize("scaling", ["area", "bilinear", "bicubic"])
def test_ways_to_scale_agree_on_smooth_pictures(scaling: str) -> None:
    found = rgb(stored(), replace(Framing(None, (90, 160)), scaling=scaling))  # type: ignore[arg-type]
    assert np.abs(found - area(rgb(stored(), Framing()), (90, 160))).mean() < TOLERANCE


def test_clips_of_one_file_have_framings_of_their_own(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "a.mp4", frames=6, height=64, width=96)
    left, right = Framing((0, 0, 1, 0.5), (32, 24)), Framing((0, 0.5, 1, 0.5), (32, 24))
    frames = np.array([1, 3, 3, 4])
    whole, one, other = read_clips(Source(path), [Wanted(frames), Wanted(frames, left), Wanted(frames, right)])
    assert whole.shape == (4, 64, 96, 3)
    for k in range(4):
        assert np.abs(one[k] - area(whole[k][:, :48], (32, 24))).mean() < 4
        assert np.abs(other[k] - area(whole[k][:, 48:], (32, 24))).mean() < 4


@pytest.mark.parametrize("side", [2, 3, 5, 64, 65])
def test_regions_in_pixels_are_even_and_within_the_picture(side: int) -> None:
    rng = np.random.default_rng(side)
    for _ in range(50):
        h, w = rng.uniform(0.01, 1, 2)
        top, left, height, width = region_px((rng.uniform(0, 1 - h), rng.uniform(0, 1 - w), h, w), side, side)
        assert not any(value % 2 for value in (top, left, height, width))
        for start, length in ((top, height), (left, width)):
            assert length >= 2
            assert 0 <= start <= side - length
