"""BYOV's sampling as the plan carries it out: unpaired ego and exo clips."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Perspective, Recording
from crossview.datasets.sampling.plan import Plan
from crossview.methods.byov.config import Config

SHORT, FRAMES = 9, 16
CONFIG = Config(frames=FRAMES)
VIEWS: tuple[tuple[Perspective, int], ...] = (("ego", 3), ("exo", 4))


def catalog() -> Catalog:
    """Two actions with three ego and four exo recordings each, one of each view shorter than a clip."""
    recordings = [
        Recording(
            dataset="d",
            scene=f"{action}-{view}-{i}",
            view=view,
            perspective=view,
            subject=f"s{i}",
            action=action,
            path=f"{action}-{view}-{i}.mp4",
            kind="video",
            fps=30.0,
            num_frames=SHORT if i == 0 else 40 + 7 * i,
            height_px=64,
            width_px=64,
        )
        for action in ("pour", "break")
        for view, count in VIEWS
        for i in range(count)
    ]
    return Catalog(Path(), tuple(recordings))


def test_clips_are_sorted_in_range_and_repeat_a_short_recordings_last_frame() -> None:
    plan = Plan(catalog(), CONFIG.sampling(), seed=0)
    assert plan.slots == ("ego", "exo")
    first_frames, repeated = set(), 0
    for i in range(40 * plan.rows_per_epoch):
        for clip in plan.row(i).clips[0]:
            assert clip is not None
            length = plan.catalog.recordings[clip.recording].num_frames
            assert clip.frames.shape == (FRAMES,)
            assert clip.frames.min() >= 0
            assert clip.frames.max() < length
            if length == SHORT:
                assert clip.frames.tolist() == [*range(SHORT), *[SHORT - 1] * (FRAMES - SHORT)]
                repeated += 1
            else:
                assert (np.diff(clip.frames) > 0).all()
                first_frames.add(int(clip.frames[0]))
    assert repeated > 0
    assert 0 in first_frames  # the released code can never draw frame 0


@pytest.mark.parametrize("pairs", ["ego-exo", "merged"])
def test_the_pairs_policy_is_respected(pairs: str) -> None:
    plan = Plan(catalog(), dataclasses.replace(CONFIG, pairs=pairs).sampling(), seed=1)
    crossed = []
    for i in range(10 * plan.rows_per_epoch):
        ego, exo = (plan.catalog.recordings[c.recording] for c in plan.row(i).clips[0] if c is not None)
        assert ego.path != exo.path
        assert ego.action == exo.action
        crossed.append(ego.perspective != exo.perspective)
        if pairs == "ego-exo":
            assert (ego.perspective, exo.perspective) == ("ego", "exo")
    assert all(crossed) == (pairs == "ego-exo")


def test_the_same_seed_draws_the_same_clips() -> None:
    a, b, c = (Plan(catalog(), CONFIG.sampling(), seed) for seed in (3, 3, 4))
    assert [a.row(i) for i in range(20)] == [b.row(i) for i in range(20)]
    assert [a.row(i) for i in range(20)] != [c.row(i) for i in range(20)]
