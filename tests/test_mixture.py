from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View

VIEW = View(perspective="ego", frames=4, fps=10.0)
PAIRS = Sampling(views={"ego": VIEW, "exo": replace(VIEW, perspective="exo")}, pairing="synchronized", windows=2)


def catalog(name: str, scenes: int, lengths: tuple[int, int] = (50, 50)) -> Catalog:
    ego = Recording(
        dataset=name, scene="", view="ego", perspective="ego", subject="p", action="a", path="",
        kind="video", fps=10.0, num_frames=lengths[0], height_px=8, width_px=8,
    )  # fmt: skip
    exo = replace(ego, view="exo", perspective="exo", num_frames=lengths[1])
    cameras = [replace(r, scene=f"{name}{k}", path=f"{k}/{r.view}.mp4") for k in range(scenes) for r in (ego, exo)]
    return Catalog(Path("/") / name, tuple(cameras))


def mixture(*shares: float) -> Mixture:
    plans = [Plan(catalog("dense", 7), PAIRS, 0), Plan(catalog("sparse", 3), replace(PAIRS, pairing="paired"), 1)]
    if len(shares) == 3:
        plans.append(Plan(catalog("third", 2), PAIRS, 2))
    return Mixture(plans, shares, seed=5)


@pytest.mark.parametrize("shares", [(0.75, 0.25), (0.9, 0.1), (0.5, 0.3, 0.2)])
def test_every_stretch_has_the_shares(shares: tuple[float, ...]) -> None:
    plan = mixture(*shares)
    for first in (0, 13, 1000):
        count = Counter(plan.source(i)[0] for i in range(first, first + 200))
        for k, share in enumerate(shares):
            assert abs(count[k] - 200 * share) <= len(shares)


def test_each_plans_own_rows_come_one_after_the_other() -> None:
    plan = mixture(0.5, 0.3, 0.2)
    for k in range(3):
        own = [row for source, row in map(plan.source, range(300)) if source == k]
        assert own == list(range(len(own)))


def test_rows_name_the_right_files() -> None:
    plan = mixture(0.75, 0.25)
    for i in range(40):
        source, own = plan.source(i)
        row = plan.row(i)
        assert row.sample == i
        for window in row.clips:
            for clip in window:
                assert clip is not None
                recording = plan.catalog.recordings[clip.recording]
                assert recording.dataset == ("dense", "sparse")[source]
                assert str(plan.catalog.file(recording)).startswith(f"/{recording.dataset}/")
        if source == 0:
            assert row.clips == Plan(catalog("dense", 7), PAIRS, 0).row(own).clips


def test_sparse_pairs_are_proportional_and_dense_ones_simultaneous() -> None:
    dense = Plan(catalog("dense", 7), PAIRS, 0)
    sparse = Plan(catalog("sparse", 3, (50, 99)), replace(PAIRS, pairing="paired"), 1)
    plan = Mixture([dense, sparse], [0.5, 0.5], 0)
    for i in range(20):
        for ego, exo in plan.row(i).clips:
            assert ego is not None
            assert exo is not None
            expected = ego.frames if plan.source(i)[0] == 0 else np.rint(ego.frames / 49 * 98)
            assert np.array_equal(exo.frames, expected)


def test_an_epoch_is_one_pass_over_the_first_plan() -> None:
    plan = mixture(0.75, 0.25)
    assert plan.rows_per_epoch == 9  # 7 of the first
    first = [plan.source(i)[1] for i in range(plan.rows_per_epoch) if plan.source(i)[0] == 0]
    assert first[-1] in (5, 6, 7)


def test_two_recordings_of_one_name_are_refused() -> None:
    twice = Plan(catalog("dense", 2), PAIRS, 0)
    with pytest.raises(ValueError, match=r"recording 'dense/dense0/ego' appears twice"):
        Mixture([twice, twice], [0.5, 0.5], 0)


def test_labels_do_not_mix() -> None:
    labelled = Plan(catalog("dense", 2), replace(PAIRS, labels={"action": 1}), 0)
    with pytest.raises(ValueError, match=r"belong to one catalog"):
        Mixture([labelled, Plan(catalog("sparse", 2), PAIRS, 0)], [0.5, 0.5], 0)
