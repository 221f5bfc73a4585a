"""Crops and flips: clips and boxes share one geometry, which depends on the sample's seed alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossview.methods.augment import Crop, crop_boxes, crop_video, multi_scale_crop, recolour, scale_crop
from crossview.methods.egoexo.losses import paint

SEEDS = torch.arange(64) * 7_919 + 3


def one(left: float, top: float, width: float, height: float, *, flip: bool = False) -> Crop:
    x, y, w, h = torch.tensor([[left], [top], [width], [height]])
    return Crop(x, y, w, h, torch.tensor([flip]))


def box(*values: float) -> Tensor:
    return torch.tensor([1.0, *values]).view(1, 1, 1, 6)


def test_the_whole_frame_is_left_as_it_is_and_a_flip_mirrors_it() -> None:
    video = torch.randint(0, 256, (1, 3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(crop_video(video, one(0, 0, 1, 1), 16), video)
    assert torch.equal(crop_video(video, one(0, 0, 1, 1, flip=True), 16), video.flip(-1))


def test_a_crop_on_pixel_borders_equals_slicing_for_every_frame() -> None:
    video = torch.randint(0, 256, (1, 4, 3, 16, 16), dtype=torch.uint8)
    out = crop_video(video, one(0.25, 0.5, 0.5, 0.5), 8)
    assert torch.equal(out, video[..., 8:16, 4:12])
    assert out.dtype == torch.uint8


def test_enlarging_equals_torch_bilinear_inside_the_crop() -> None:
    video = torch.rand(1, 1, 3, 16, 16)
    whole = torch.nn.functional.interpolate(video[0], size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(crop_video(video, one(0, 0, 1, 1), 32)[0], whole, atol=1e-5, rtol=0)


def test_boxes_follow_the_pixels() -> None:
    """A bright rectangle is found where its transformed box says, whatever the geometry."""
    crops = scale_crop(SEEDS, crop_px=48, short_side_px=(52, 80))
    video = torch.zeros(64, 1, 3, 64, 64)
    video[..., 24:40, 20:44] = 255
    boxes = torch.tensor([2.0, 20 / 64, 24 / 64, 44 / 64, 40 / 64, 0.7]).expand(64, 1, 1, 6)
    pixels, moved = crop_video(video, crops, 64), crop_boxes(boxes, crops)
    for b in range(64):
        bright = (pixels[b, 0, 0] > 127).nonzero()  # rows, columns
        kind, x1, y1, x2, y2, score = moved[b, 0, 0].tolist()
        assert (kind, round(score, 4)) == (2.0, 0.7)
        found = [*(bright.min(0).values.flip(0) / 64).tolist(), *((bright.max(0).values.flip(0) + 1) / 64).tolist()]
        assert found == pytest.approx([x1, y1, x2, y2], abs=1.01 / 64)


def test_flip_of_a_box_of_whole_pixels() -> None:
    """Pixels 2..5 of a width of 10 become 4..7 (inclusive), as unit edges 2/10 and 6/10."""
    moved = crop_boxes(box(0.2, 0.0, 0.6, 0.4, 1.0), one(0, 0, 1, 1, flip=True))[0, 0, 0]
    assert (moved[1] * 10, moved[3] * 10 - 1) == (pytest.approx(4), pytest.approx(7))
    assert moved[[2, 4]].tolist() == pytest.approx([0.0, 0.4])


@pytest.mark.parametrize(
    ("corners", "kept"),
    [((0.1, 0.4, 0.3, 0.6), False), ((0.1, 0.4, 0.5, 0.6), False), ((0.1, 0.4, 0.6, 0.6), True)],
)
def test_a_box_outside_the_crop_is_dropped_and_one_across_its_border_is_clipped(
    corners: tuple[float, ...], kept: bool
) -> None:
    moved = crop_boxes(box(*corners, 0.9), one(0.5, 0.25, 0.5, 0.5))[0, 0, 0]
    expected = [1.0, 0.0, 0.3, 0.2, 0.7, 0.9] if kept else [0.0] * 6
    assert moved.tolist() == pytest.approx(expected)


def test_a_box_left_of_the_crop_paints_no_stripe() -> None:
    """The released code clamps such a box to the border, where filling both of its end cells leaves a column."""
    moved = crop_boxes(box(0.1, 0.2, 0.4, 0.8, 1.0), one(0.5, 0, 0.5, 1))
    assert not paint(moved, 7).any()


def test_an_empty_slot_stays_empty() -> None:
    crops = scale_crop(SEEDS, crop_px=48, short_side_px=(52, 80))
    assert not crop_boxes(torch.zeros(64, 2, 3, 6), crops).any()


def test_the_scaled_crop_covers_its_range_and_stays_inside() -> None:
    crop = scale_crop(torch.arange(4_000), crop_px=224, short_side_px=(256, 320))
    assert 0.7 <= float(crop.width.min()) < 0.703
    assert 0.872 < float(crop.width.max()) <= 0.875
    assert torch.equal(crop.width, crop.height)
    assert float((crop.left + crop.width).max()) <= 1
    assert float(crop.flip.float().mean()) == pytest.approx(0.5, abs=0.03)


def test_the_multi_scale_crop_takes_neighbouring_scales_at_thirteen_places() -> None:
    scales = (1.0, 0.875, 0.75, 0.66)
    crop = multi_scale_crop(torch.arange(4_000))
    sides = {(round(w, 4), round(h, 4)) for w, h in zip(crop.width.tolist(), crop.height.tolist(), strict=True)}
    assert sides == {(scales[i], scales[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    small = (crop.width < 0.7) & (crop.height < 0.7)
    places = {
        (round(x * 4 / 0.34), round(y * 4 / 0.34))
        for x, y in zip(crop.left[small].tolist(), crop.top[small].tolist(), strict=True)
    }
    assert len(places) == 13
    assert not crop.flip.any()


def test_a_sample_keeps_its_geometry_in_any_batch() -> None:
    for make in (lambda s: scale_crop(s, crop_px=48, short_side_px=(52, 80)), multi_scale_crop):
        whole, part = make(SEEDS), make(SEEDS[[5, 2]])
        for name in ("left", "top", "width", "height", "flip"):
            assert torch.equal(getattr(whole, name)[[5, 2]], getattr(part, name))
    a, b = (scale_crop(SEEDS, crop_px=48, short_side_px=(52, 80), stream=s) for s in (0, 1))
    assert not torch.equal(a.left, b.left)


def test_autocast_does_not_blur_the_places() -> None:
    video = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    crops = scale_crop(SEEDS[:2], crop_px=24, short_side_px=(26, 30))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = crop_video(video, crops, 24)
    assert torch.equal(mixed, crop_video(video, crops, 24))


def test_impossible_crops_are_refused() -> None:
    with pytest.raises(ValueError, match=r"crop of 300 px .* lower the crop"):
        scale_crop(SEEDS, crop_px=300, short_side_px=(256, 320))
    with pytest.raises(ValueError, match=r"scales is \(1.2,\)"):
        multi_scale_crop(SEEDS, scales=(1.2,))


def test_colours_change_by_one_line_per_clip_and_channel() -> None:
    video = torch.randint(60, 180, (64, 2, 3, 8, 8), dtype=torch.uint8)
    out = recolour(video, SEEDS, 0.2)
    assert out.dtype == torch.uint8
    assert torch.equal(recolour(video[[5, 2]], SEEDS[[5, 2]], 0.2), out[[5, 2]])
    assert torch.equal(recolour(video, SEEDS, 0.0), video)
    for b in range(64):
        for channel in range(3):
            x, y = (v[b, :, channel].flatten().double() for v in (video, out))
            gain = float(((x - x.mean()) * (y - y.mean())).mean() / x.var(unbiased=False))
            shift = float(y.mean() - gain * x.mean())
            assert 0.78 < gain < 1.22
            assert abs(shift) < 23
            assert float((y - gain * x - shift).abs().max()) < 1.1
    assert float((out.float().mean((1, 3, 4)) - video.float().mean((1, 3, 4))).std()) > 10
