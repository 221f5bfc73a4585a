"""Augmented clips: the same over a clip's frames, drawn from its seed alone, and RandAugment as timm has it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment
from torch import Tensor

from crossview.downstream.recognition.augment import ERASED_AREA, augment, copied_seeds, kept, mix
from crossview.downstream.recognition.augment_config import Augmentation
from crossview.downstream.recognition.rand_augment import OPERATIONS, Operation, drawn, rand_augment

OFF = Augmentation(flip=0.0, operations=0, erase=0.0, mixup=None, cutmix=None, copies=1)
SEEDS = torch.arange(8) * 7919 + 3
EYE = {"action": torch.eye(8)}
MANY = torch.arange(4000) * 104729


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def clips(frames: int = 3, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (8, frames, 3, size, size), dtype=torch.uint8)


def still(size: int = 32) -> Tensor:
    return clips(1, size).repeat(1, 3, 1, 1, 1)


def test_without_options_nothing_happens() -> None:
    video = clips()
    out, targets = augment(video, SEEDS, EYE, OFF)
    assert torch.equal(out, video)
    assert out.dtype == torch.uint8
    assert torch.equal(targets["action"], EYE["action"])


def test_the_input_stays_as_it_is() -> None:
    video = clips()
    before = video.clone()
    augment(video, SEEDS, EYE, Augmentation())
    assert torch.equal(video, before)


@pytest.mark.parametrize("options", [Augmentation(), replace(OFF, operations=4), replace(OFF, erase=1.0)])
def test_all_frames_of_a_clip_undergo_the_same(options: Augmentation) -> None:
    out, _ = augment(still(), SEEDS, EYE, options)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert not torch.equal(out[:8].float(), still().float())


def test_levels_map_alike_in_all_frames() -> None:
    """Also where a frame is dark and the next bright: what is measured, is measured over the clip."""
    clip = torch.stack([torch.full((3, 8, 8), v, dtype=torch.uint8) for v in (40, 90, 200)])
    clip[:, :, 0] = 90
    for name in ("auto_contrast", "equalize", "contrast", "color", "brightness", "solarize", "posterize"):
        out = rand_augment(clip, [Operation(name, 0.7)])
        assert len(out[:, :, 0].unique()) == 1, name
        assert torch.equal(out[1, :, 1:].unique(), out[:, :, 0].unique()), name
    stretched = rand_augment(clip, [Operation("auto_contrast", 1.0)]).unique().tolist()
    assert stretched == pytest.approx([0, 79, 255], abs=1)


def test_a_clip_is_augmented_by_its_seed_alone() -> None:
    options = Augmentation(mixup=None, cutmix=None)
    video = clips()
    whole, _ = augment(video, SEEDS, EYE, options)
    again, _ = augment(video, SEEDS, EYE, options)
    assert torch.equal(whole, again)
    order = torch.tensor([5, 2, 7])
    some, targets = augment(video[order], SEEDS[order], {"action": EYE["action"][order]}, options)
    assert torch.equal(some.unflatten(0, (3, 2)), whole.unflatten(0, (8, 2))[order])
    assert targets["action"].argmax(1).tolist() == [5, 5, 2, 2, 7, 7]
    other, _ = augment(video, SEEDS + 1, EYE, options)
    assert not torch.equal(whole, other)


def test_like_clips_with_other_seeds_differ() -> None:
    same = clips()[:1].expand(8, -1, -1, -1, -1)
    out, _ = augment(same, SEEDS, EYE, Augmentation(erase=1.0, mixup=None, cutmix=None))
    assert len({x.numpy().tobytes() for x in out}) == 16


def test_copies_lie_beside_each_other_and_differ() -> None:
    seeds = copied_seeds(SEEDS, 3)
    assert torch.equal(seeds[::3], SEEDS)
    assert len(seeds.unique()) == 24
    out, targets = augment(clips(), SEEDS, EYE, replace(OFF, copies=3, operations=4))
    assert out.shape[0] == 24
    assert targets["action"].argmax(1).tolist() == [i for i in range(8) for _ in range(3)]


def test_float_clips_are_rounded_to_levels() -> None:
    video = clips()
    noisy = (video.float() + 0.3).clamp(0, 255)
    assert torch.equal(augment(noisy, SEEDS, EYE, Augmentation())[0], augment(video, SEEDS, EYE, Augmentation())[0])


def test_flips_mirror_the_width_of_about_half() -> None:
    video = torch.arange(4, dtype=torch.uint8).expand(4000, 1, 3, 2, 4)
    out, _ = augment(video, MANY, {}, replace(OFF, flip=0.5))
    mirrored = (out == video.flip(-1)).flatten(1).all(1)
    assert bool(((out == video).flatten(1).all(1) ^ mirrored).all())
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert augment(video, MANY, {}, replace(OFF, flip=1.0))[0].equal(video.flip(-1))


# RandAugment

TIMM = {
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize_add": "SolarizeAdd",
    "color": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}


GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
UNSIGNED = ("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add")


def picture() -> np.ndarray:
    """Smooth but for a block, so that a third of a pixel matters little, with all levels and off-centre."""
    y, x = np.mgrid[:64, :64] / 63
    levels = np.stack([x * y, x**2 * 0.7, 0.9 - y * 0.8], axis=-1)
    levels[10:22, 34:50] = (0.9, 0.2, 0.1)
    return (levels * 255).astype(np.uint8)


def test_the_operations_are_those_of_timm() -> None:
    assert [TIMM[name] for name in OPERATIONS] == auto_augment._RAND_INCREASING_TRANSFORMS


@pytest.mark.parametrize("magnitude", [0.0, 3.0, 7.3, 9.9])
@pytest.mark.parametrize("name", TIMM)
def test_an_operation_does_what_timms_does(name: str, magnitude: float, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = []
    clip = torch.from_numpy(picture()).permute(2, 0, 1)[None]
    for sign in (1.0, -1.0):
        out = rand_augment(clip, [Operation(name, sign * magnitude / 10)])
        assert out.dtype == torch.uint8
        ours.append(out[0].permute(1, 2, 0).numpy().astype(float))
    for negated in (0, 1):  # timm negates where its number is above 0.5
        monkeypatch.setattr(auto_augment.random, "random", lambda negated=negated: float(negated))
        op = auto_augment.AugmentOp(
            TIMM[name],
            prob=1.0,
            magnitude=magnitude,
            hparams={"img_mean": (124, 116, 104), "interpolation": Image.Resampling.BILINEAR},
        )
        expected = np.asarray(op(Image.fromarray(picture()))).astype(float)
        same = ours if name in GEOMETRIC else ours[negated : negated + 1]  # the sign of an angle is a convention
        error = min(np.abs(x - expected).mean() for x in same)
        assert error < (1.5 if name in GEOMETRIC else 0.5), (name, magnitude, error)
    assert np.array_equal(*ours) == (magnitude == 0 or name in UNSIGNED)


def test_operations_are_drawn_as_declared() -> None:
    options = Augmentation(operations=4, magnitude=7, magnitude_std=0.5)
    found = drawn(MANY, options)
    counts = np.bincount([len(x) for x in found], minlength=5) / len(found)
    assert counts == pytest.approx([math.comb(4, k) / 16 for k in range(5)], abs=0.03)
    every = [op for x in found for op in x]
    share = {name: sum(op.name == name for op in every) / len(every) for name in OPERATIONS}
    assert list(share.values()) == pytest.approx([1 / 15] * 15, abs=0.012)
    strength = np.array([op.strength for op in every])
    assert np.abs(strength).mean() == pytest.approx(0.7, abs=0.005)
    assert np.abs(strength).std() == pytest.approx(0.05, abs=0.005)
    assert (strength > 0).mean() == pytest.approx(0.5, abs=0.03)
    ends = drawn(MANY, replace(options, magnitude=10, magnitude_std=3))
    assert max(abs(op.strength) for x in ends for op in x) == 1
    fixed = drawn(MANY, replace(options, magnitude_std=0))
    assert {round(abs(op.strength), 9) for x in fixed for op in x} == {0.7}
    assert drawn(SEEDS, replace(options, operations=0)) == [[]] * 8


# Erasing


def test_about_a_quarter_of_the_clips_loses_a_rectangle() -> None:
    video = torch.full((400, 2, 3, 24, 24), 255, dtype=torch.uint8)
    out, _ = augment(video, MANY[:400], {}, replace(OFF, erase=0.25))
    changed = (out != 255).any(2)[:, 0]  # (B, H, W)
    assert float(changed.any((1, 2)).float().mean()) == pytest.approx(0.25, abs=0.06)
    areas = []
    for mask in changed[changed.any((1, 2))]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert bool(box.all())
        areas.append(box.numel() / 24**2)
    assert min(areas) > ERASED_AREA[0] / 2
    assert max(areas) < ERASED_AREA[1] * 1.2
    assert np.mean(areas) == pytest.approx(sum(ERASED_AREA) / 2, abs=0.04)


def test_erased_pixels_are_standard_normal_after_standardising() -> None:
    video = torch.zeros((64, 1, 3, 48, 48), dtype=torch.uint8)
    out, _ = augment(video, MANY[:64], {}, replace(OFF, erase=1.0))
    pixels = torch.cat([x[0][:, (x[0] != 0).all(0)] for x in out], dim=1) / 255  # (3, n)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    standard = (pixels - mean[:, None]) / std[:, None]
    torch.testing.assert_close(standard.mean(1), torch.zeros(3), atol=0.03, rtol=0)
    torch.testing.assert_close(standard.std(1), torch.ones(3), atol=0.03, rtol=0)
    assert abs(float(torch.corrcoef(standard)[0, 1])) < 0.03


# Mixup and cutmix

MIXUP = replace(OFF, mixup=0.8)
CUTMIX = replace(OFF, cutmix=1.0)


def test_mixup_is_a_weighted_sum_of_clips_and_targets() -> None:
    video = clips().float()
    out, targets = mix(video, SEEDS, EYE, MIXUP)
    share = targets["action"].diagonal()
    torch.testing.assert_close(targets["action"].sum(1), torch.ones(8))
    for i in range(8):
        torch.testing.assert_close(out[i], share[i] * video[i] + (1 - share[i]) * video[i - 1], atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(targets["action"][i, i - 1], 1 - share[i])
    assert len(share.unique()) == 8


def test_cutmix_pastes_a_rectangle_of_the_other_clip() -> None:
    video = torch.arange(8.0)[:, None, None, None, None].expand(8, 2, 3, 32, 48)
    out, targets = mix(video, SEEDS, EYE, CUTMIX)
    for i in range(8):
        own = (out[i] == i).float().mean()
        assert bool(((out[i] == i) | (out[i] == (i - 1) % 8)).all())
        torch.testing.assert_close(targets["action"][i, i], own)
        pasted = (out[i, 0, 0] != i).nonzero()
        if len(pasted):
            (top, left), (bottom, right) = pasted.amin(0).tolist(), pasted.amax(0).tolist()
            assert len(pasted) == (bottom - top + 1) * (right - left + 1)


def test_shares_are_beta_distributed() -> None:
    mixed = kept(MANY, 2, 2, MIXUP)[:, 0, 0]
    assert float(mixed.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(mixed.var()) == pytest.approx(0.25 / 2.6, abs=0.005)  # of Beta(0.8, 0.8)
    area = kept(MANY[:1000], 64, 64, CUTMIX).mean((1, 2))
    assert float((area > 0.999).float().mean()) < 0.03
    assert 0.55 < float(area.mean()) < 0.8  # of a uniform share, the more as rectangles are cut off at the border


def test_half_of_the_clips_is_cut_where_both_are_on() -> None:
    weights = kept(MANY[:1000], 16, 16, Augmentation())
    whole = (weights == weights[:, :1, :1]).all((1, 2))
    assert float(whole.float().mean()) == pytest.approx(0.5, abs=0.06)
    for switch, options in ((0.0, MIXUP), (1.0, CUTMIX)):
        both = Augmentation(switch=switch)
        assert torch.equal(kept(SEEDS, 16, 16, both), kept(SEEDS, 16, 16, options))


def test_a_clip_is_mixed_with_another_clip_never_its_own_copy() -> None:
    video = torch.arange(8.0)[:, None, None, None, None].expand(8, 1, 3, 8, 8)
    _, targets = augment(video, SEEDS, EYE, replace(MIXUP, copies=2))
    for i in range(16):
        assert set(targets["action"][i].nonzero().flatten().tolist()) == {i // 2, (i // 2 - 1) % 8}
    alone, target = augment(video[3:4], SEEDS[3:4], {"action": EYE["action"][3:4]}, replace(MIXUP, copies=2))
    torch.testing.assert_close(alone, torch.full_like(alone, 3))
    torch.testing.assert_close(target["action"], EYE["action"][[3, 3]])


def test_all_kinds_of_labels_share_alike() -> None:
    _, targets = mix(clips().float(), SEEDS, {"verb": torch.eye(8), "noun": torch.eye(8).flip(1)}, Augmentation())
    torch.testing.assert_close(targets["verb"], targets["noun"].flip(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, r"augmentation.flip is 1.5; it must lie in \[0, 1\]"),
        ({"erase": -0.1}, r"augmentation.erase is -0.1"),
        ({"switch": 2}, r"augmentation.switch is 2"),
        ({"operations": -1}, r"augmentation.operations is -1 and copies 2"),
        ({"copies": 0}, r"copies 0; operations must be at least 0 and copies at least 1"),
        ({"magnitude": 11}, r"augmentation.magnitude is 11"),
        ({"magnitude_std": -1}, r"magnitude_std -1"),
        ({"mixup": 0.0}, r"augmentation.mixup is 0.0; it must be above 0, or None"),
        ({"cutmix": -1.0}, r"augmentation.cutmix is -1.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)  # type: ignore[arg-type]
