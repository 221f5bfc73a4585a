"""Windows of several lengths on a grid, as EVGAP's batches ask for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.sampling.windows import Starts, proportional

EGO = View(perspective="ego", frames=20, fps=30.0, count=4)
GROUPS = Sampling(
    views={"ego": EGO, "exo": replace(EGO, perspective="exo", count=8)},
    pairing="group",
    windows=10,
    window_scale=(0.5, 2.0),
    window_scale_spread="log",
    window_length="true",
    window_stride=100,
)


def recording(scene: int, view: str, frames: int) -> Recording:
    return Recording(
        dataset="d", scene=f"s{scene}", view=view, perspective="ego" if view[0] == "e" else "exo",
        subject="p", action="a", path=f"{scene}/{view}", kind="features", fps=30.0, num_frames=frames, height_px=1,
        width_px=1,
    )  # fmt: skip


def catalog(scenes: int = 6, frames: int = 3000) -> Catalog:
    names = [*(f"e{k}" for k in range(1, 5)), *(f"v{k}" for k in range(1, 9))]
    cameras = [recording(s, n, frames + 37 * s + 5 * k) for s in range(scenes) for k, n in enumerate(names)]
    return Catalog(Path("root"), tuple(cameras))


def test_a_row_holds_ten_windows_on_the_grid_with_one_jitter() -> None:
    plan = Plan(catalog(), GROUPS, seed=3)
    jitters = set()
    for i in range(12):
        row = plan.row(i)
        assert len(row.clips) == 10
        starts = np.array([int(clips[0].frames[0]) for clips in row.clips if clips[0]])
        assert len(set(starts.tolist())) == 10
        assert len({start % 100 for start in starts.tolist()}) == 1
        jitters.add(int(starts[0]) % 100)
    assert len(jitters) > 8


def test_the_grid_reaches_the_last_start_that_fits_the_longest_window() -> None:
    """The longest window has 40 frames; the shortest camera has 43, so it fits at four places."""
    plan = Plan(catalog(1, 43), replace(GROUPS, window_stride=1, windows=4), seed=0)
    for i in range(4):
        assert sorted(int(clips[0].frames[0]) for clips in plan.row(i).clips if clips[0]) == [0, 1, 2, 3]


def test_proportional_frames_are_the_nearest_ones() -> None:
    source, target = recording(0, "e1", 4), recording(0, "v1", 3)
    assert proportional(Catalog(Path(), (source, target)), np.arange(4), source, target, 4).tolist() == [0, 1, 1, 2]


def test_the_longest_window_counts_its_last_partial_frame() -> None:
    view = replace(EGO, frames=3, count=1)
    sampling = Sampling(views={"ego": view}, pairing="single", window_scale=(0.5, 1.5), window_length="true")
    assert sampling.max_frames(view) == 5


def test_the_seed_draws_the_windows_of_a_single_recording() -> None:
    one = Catalog(Path("root"), (recording(0, "e1", 3000),))
    sampling = Sampling(views={"ego": replace(EGO, count=1)}, pairing="single")
    starts = [[clips[0].frames[0] for clips in Plan(one, sampling, seed).row(0).clips if clips[0]] for seed in (0, 1)]
    assert starts[0] != starts[1]


def test_a_window_starts_anywhere_that_it_fits() -> None:
    starts = Starts(None, np.random.default_rng(0))
    assert {starts.draw(2, 12, 6, 6) for _ in range(100)} == {2, 3, 4, 5, 6}


def test_all_cameras_of_a_window_show_the_same_frames_in_slot_order() -> None:
    found = catalog()
    plan = Plan(found, GROUPS, seed=0)
    shortest = {s: min(r.num_frames for r in found.recordings if r.scene == s) for s in {"s0", "s1", "s2"}}
    for i in range(plan.rows_per_epoch):
        for clips in plan.row(i).clips:
            present = [clip for clip in clips if clip]
            names = [found.recordings[clip.recording].view for clip in present]
            assert names == ["e1", "e2", "e3", "e4", *(f"v{k}" for k in range(1, 9))]
            assert all(np.array_equal(clip.frames, present[0].frames) for clip in present)
            scene = found.recordings[present[0].recording].scene
            assert present[0].frames[0] >= 0
            assert present[0].frames[-1] < shortest.get(scene, 10**9)


def test_true_lengths_lie_between_half_and_double_and_the_rest_repeats_the_last_frame() -> None:
    plan = Plan(catalog(), GROUPS, seed=1)
    lengths = []
    for i in range(30):
        for clips in plan.row(i).clips:
            clip = clips[0]
            assert clip is not None
            assert clip.length is not None
            assert clip.frames.shape == (40,)
            assert np.array_equal(np.diff(clip.frames[: clip.length]), np.ones(clip.length - 1))
            assert (clip.frames[clip.length :] == clip.frames[clip.length - 1]).all()
            lengths.append(clip.length)
    assert min(lengths) >= 10
    assert max(lengths) <= 40
    # Log-uniform between 10 and 40: as many windows below 20 as above.
    assert abs(np.mean(np.array(lengths) < 20) - 0.5) < 0.1


def test_resampled_windows_keep_their_number_of_frames() -> None:
    plan = Plan(catalog(), replace(GROUPS, window_length="resampled"), seed=1)
    clips = [clips[0] for i in range(10) for clips in plan.row(i).clips]
    assert {len(clip.frames) for clip in clips if clip} == {20}
    assert {clip.length for clip in clips if clip} == {None}
    assert len({int(clip.frames[-1] - clip.frames[0]) for clip in clips if clip}) > 5


def test_a_recording_with_fewer_grid_points_than_windows_gives_some_twice() -> None:
    for frames in (25, 130, 450):
        row = Plan(catalog(2, frames), GROUPS, seed=0).row(0)
        starts = [int(clips[0].frames[0]) for clips in row.clips if clips[0]]
        assert len(starts) == 10
        assert max(int(clips[0].frames[-1]) for clips in row.clips if clips[0]) < frames + 37


def test_impossible_windows_are_refused() -> None:
    spread = replace(GROUPS.views["ego"], fps=None, count=1)
    with pytest.raises(ValueError, match=r"give the views an fps"):
        Sampling(views={"a": spread}, pairing="single", window_stride=10)
    with pytest.raises(ValueError, match=r"window_stride is 0"):
        replace(GROUPS, window_stride=0)
    with pytest.raises(ValueError, match=r"not with pairing 'group'"):
        replace(GROUPS, labels={"action": 2})
