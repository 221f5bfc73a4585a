"""Which clips and crops of a recording are tested, and their scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.downstream.test_views import (
    Views,
    clip_frames,
    clip_starts,
    crop_places,
    scaled_px,
    to_read,
)
from crossview.downstream.view_scores import scale, view_scores


def test_starts_of_the_released_test() -> None:
    """Ego-Exo's ten clips of 63 frames from 300."""
    assert clip_starts(300, 63, 10).tolist() == [0, 26, 53, 79, 105, 132, 158, 184, 211, 237]
    assert clip_starts(62, 63, 10).tolist() == [0] * 10
    assert clip_starts(63, 63, 3).tolist() == [0, 0, 0]
    assert clip_starts(64, 63, 2).tolist() == [0, 1]


def test_a_single_clip_is_in_the_middle() -> None:
    assert clip_starts(300, 63, 1).tolist() == [118]
    assert clip_starts(10, 63, 1).tolist() == [0]


def test_frames_of_a_clip_stay_inside() -> None:
    frames = clip_frames(300, 32, 2, 10)
    assert frames.shape == (10, 32)
    assert frames[0].tolist() == list(range(0, 63, 2))
    assert frames[-1, -1] == 299
    short = clip_frames(5, 4, 2, 3)
    assert short.tolist() == [[0, 2, 4, 4]] * 3


def test_a_step_need_not_be_whole() -> None:
    """16 frames at 7.5 Hz of 29.97: the step is 3.996, the last frame 60 after the first."""
    frames = clip_frames(1000, 16, 29.97 / 7.5, 2)
    assert (frames - frames[:, :1]).tolist() == [np.rint(np.arange(16) * 3.996).tolist()] * 2
    assert frames[1, -1] == 999


def test_each_frame_is_read_once_and_in_order() -> None:
    frames = clip_frames(100, 16, 4, 5)
    needed, places = to_read(frames)
    assert len(needed) < frames.size
    assert np.all(np.diff(needed) > 0)
    assert np.array_equal(needed[places], frames)
    assert places.shape == frames.shape


def test_crops_lie_evenly_along_the_longer_side() -> None:
    assert crop_places(224, 398, 224, 3) == [(0, 0), (0, 87), (0, 174)]
    assert crop_places(398, 224, 224, 3) == [(0, 0), (87, 0), (174, 0)]
    assert crop_places(224, 224, 224, 3) == [(0, 0)]
    assert crop_places(224, 398, 224, 1) == [(0, 87)]
    assert scaled_px(480, 854, 224) == (224, 399)
    assert scaled_px(854, 480, 224) == (399, 224)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 crops of 224 px from 225 x 398"):
        crop_places(225, 398, 224, 3)
    with pytest.raises(ValueError, match=r"0 crops of 224 px"):
        crop_places(224, 398, 224, 0)
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="all must be at least 1"):
            clip_starts(*wrong)
    with pytest.raises(ValueError, match=r"clips is 0 and crops 3; both must be at least 1"):
        Views(clips=0)
    with pytest.raises(ValueError, match=r"clips is 5 and crops 0; both must be at least 1"):
        Views(crops=0)


def test_views_are_the_clips_and_crops_that_the_arithmetic_names() -> None:
    video = torch.randint(0, 256, (2, 23, 3, 16, 24), dtype=torch.uint8)
    seen: list[Tensor] = []

    def classify(clip: Tensor) -> dict[str, Tensor]:
        seen.append(clip)
        pooled = clip.float().mean((1, 3, 4))
        return {"verb": pooled, "noun": pooled[:, :2]}

    frames = clip_frames(23, 4, 2, 3)
    needed, places = to_read(frames)
    out = view_scores(classify, video[:, needed], places, size_px=16, crops=3, together=1)
    assert out["verb"].shape == (2, 9, 3)
    assert out["noun"].shape == (2, 9, 2)
    expected = [video[:, f, ..., left : left + 16] for f in frames for left in (0, 4, 8)]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    for v, clip in enumerate(expected):
        torch.testing.assert_close(out["verb"][:, v], clip.float().mean((1, 3, 4)))
    for together in (2, 4, 99):
        seen.clear()
        at_once = view_scores(classify, video[:, needed], places, size_px=16, crops=3, together=together)
        assert all(torch.equal(at_once[name], out[name]) for name in out)
        assert [len(clips) for clips in seen] == [2 * min(together, 9 - k) for k in range(0, 9, together)]


def test_a_clip_that_is_wanted_twice_is_classified_once() -> None:
    video, seen = torch.randint(0, 256, (1, 6, 3, 8, 8), dtype=torch.uint8), []

    def classify(clip: Tensor) -> dict[str, Tensor]:
        seen.append(clip)
        return {"action": clip.float().mean((1, 3, 4))}

    places = np.array([[3, 4], [0, 1], [3, 4]])
    out = view_scores(classify, video, places, size_px=8, crops=3)["action"]
    assert [len(clip) for clip in seen] == [2]
    expected = torch.stack([video[:, p].float().mean((1, 3, 4)) for p in places], dim=1)
    torch.testing.assert_close(out, expected)


def test_features_have_clips_and_no_crops() -> None:
    features = torch.randn(2, 5, 7, 4)
    places = np.array([[0, 1], [3, 4]])
    out = view_scores(lambda clip: {"action": clip.mean((1, 2))}, features, places, size_px=8, crops=3)["action"]
    torch.testing.assert_close(out, torch.stack([features[:, p].mean((1, 2)) for p in places], dim=1))


def test_frames_are_scaled_by_their_shorter_side() -> None:
    video = torch.randint(0, 256, (1, 70, 3, 20, 30), dtype=torch.uint8)
    out = scale(video, 10)
    assert out.shape == (1, 70, 3, 10, 15)
    assert out.dtype == torch.uint8
    alone = scale(video[:, 66:67], 10)
    assert torch.equal(out[:, 66:67], alone)
    assert scale(video, 20) is video
    exact = F.interpolate(video[0].float(), (10, 15), mode="bilinear", antialias=True)
    assert torch.equal(out[0].float(), exact.round())
