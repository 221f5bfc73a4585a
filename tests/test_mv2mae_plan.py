"""MV2MAE's sampling as the plan carries it out, and the protocols of its benchmarks as far as they concern pairs."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.plan import Plan
from crossview.methods.mv2mae.config import Config

CONFIG = Config()


def recording(scene: str, camera: int, frames: int = 103, **changed: object) -> Recording:
    """A file of NTU RGB+D: 30 Hz, cameras 1 to 3 at once."""
    plain = Recording(
        dataset="ntu", scene=scene, view=f"C{camera:03d}", perspective="exo", subject=scene[:4],
        action=scene[-4:], path=f"{scene}C{camera:03d}.avi", kind="video", fps=30.0, num_frames=frames, height_px=1080,
        width_px=1920,
    )  # fmt: skip
    return replace(plain, **changed)  # type: ignore[arg-type]


def plan(recordings: list[Recording], config: Config = CONFIG, seed: int = 0) -> Plan:
    return Plan(Catalog(Path("root"), tuple(recordings)), config.sampling(), seed)


def pairs(plan: Plan, epochs: int = 1) -> list[tuple[Recording, Recording]]:
    found = []
    for i in range(epochs * plan.rows_per_epoch):
        source, target = plan.row(i).clips[0]
        assert source is not None
        assert target is not None
        assert (source.view, target.view) == ("source", "target")
        found.append((plan.catalog.recordings[source.recording], plan.catalog.recordings[target.recording]))
    return found


def groups(count: int, cameras: tuple[int, ...] = (1, 2, 3)) -> list[Recording]:
    return [recording(f"S001P{g:03d}R001A{g % 60 + 1:03d}", c) for g in range(count) for c in cameras]


def test_a_pair_is_two_cameras_of_one_scene_and_all_ordered_pairs_come() -> None:
    found = pairs(plan(groups(4)), epochs=60)
    assert all(s.scene == t.scene and s.view != t.view for s, t in found)
    for scene in {s.scene for s, _ in found}:
        cameras = {(s.view, t.view) for s, t in found if s.scene == scene}
        assert cameras == set(permutations(("C001", "C002", "C003"), 2))
    counts = [sum((s.view, t.view) == p for s, t in found) for p in permutations(("C001", "C002", "C003"), 2)]
    assert min(counts) > 0.7 * max(counts)


def test_an_epoch_has_a_pair_per_file_of_ntus_size() -> None:
    """Cross-view 60 trains on cameras 2 and 3: of 24 scenes as of 18,960, two ordered pairs each and never camera 1."""
    whole = groups(24)
    two = plan([r for r in whole if r.view != "C001"])
    assert plan(whole).rows_per_epoch == 72
    assert two.rows_per_epoch == 48
    assert {r.view for pair in pairs(two, 5) for r in pair} == {"C002", "C003"}


def test_scenes_of_2_to_8_cameras_pair_and_single_ones_stay_out() -> None:
    """ETRI-Activity3D: some groups lack cameras."""
    recordings = [recording(f"A001P{g:03d}", c) for g, n in enumerate((8, 5, 2, 1)) for c in range(1, n + 1)]
    etri = plan(recordings)
    assert etri.rows_per_epoch == 8 + 5 + 2
    found = pairs(etri, 30)
    assert {s.scene for s, _ in found} == {"A001P000", "A001P001", "A001P002"}
    assert all(s.scene == t.scene and s.view != t.view for s, t in found)


def test_clips_are_16_common_instants_at_every_fourth_frame() -> None:
    ntu = plan(groups(3))
    for i in range(30):
        source, target = ntu.row(i).clips[0]
        assert source is not None
        assert target is not None
        assert np.array_equal(source.frames, target.frames)
        assert source.frames.shape == (16,)
        assert set(np.diff(source.frames)) == {4}
        assert source.frames[-1] < 103
    starts = {int(ntu.row(i).clips[0][0].frames[0]) for i in range(200)}  # type: ignore[union-attr]
    assert starts == set(range(103 - 60))


def test_short_and_unequal_files_end_at_the_last_common_frame() -> None:
    short = plan([recording("a", 1, 40), recording("a", 2, 55)])
    for i in range(10):
        source, target = short.row(i).clips[0]
        assert source is not None
        assert target is not None
        assert np.array_equal(source.frames, target.frames)
        assert np.array_equal(source.frames, np.minimum(np.arange(16) * 4, 39))


def test_the_same_seed_gives_the_same_pairs() -> None:
    first, again, other = plan(groups(6), seed=3), plan(groups(6), seed=3), plan(groups(6), seed=4)
    rows = range(2 * first.rows_per_epoch)
    assert [first.row(i) for i in rows] == [again.row(i) for i in reversed(rows)][::-1]
    assert [first.row(i) for i in rows] != [other.row(i) for i in rows]
