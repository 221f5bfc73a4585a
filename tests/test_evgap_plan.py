"""EVGAP's batches on a catalog of the size of Assembly101's recordings: windows, slots and lengths."""

from __future__ import annotations

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.plan import Plan
from crossview.methods.evgap.config import Config, presets

EGO = ("e1", "e2", "e3", "e4")
EXO = tuple(f"v{n}" for n in range(1, 9))


def catalog_of(scenes: int, without: dict[int, tuple[str, ...]] | None = None) -> Catalog:
    """Scenes of 12 features recordings at 30 fps, whose lengths differ by a few frames."""
    recordings = []
    for scene in range(scenes):
        for k, view in enumerate((*EGO, *EXO)):
            if view in (without or {}).get(scene, ()):
                continue
            recordings.append(
                Recording(
                    dataset="assembly101",
                    scene=f"scene{scene:03d}",
                    view=view,
                    perspective="ego" if view in EGO else "exo",
                    subject=str(scene),
                    action="",
                    path=f"{scene}/{view}.npy",
                    kind="features",
                    fps=30.0,
                    num_frames=4000 + 7 * scene + k % 5,
                    height_px=1,
                    width_px=1,
                )
            )
    return Catalog(root=None, recordings=tuple(recordings), segments=())  # type: ignore[arg-type]


def plan_of(config: Config, catalog: Catalog) -> Plan:
    return Plan(catalog, config.sampling(), seed=3)


def test_a_batch_of_200_pairs_is_20_recordings_of_10_windows_on_a_grid() -> None:
    recipe = presets()["paper_step1"]()
    assert isinstance(recipe.method, Config)
    plan = plan_of(recipe.method, catalog_of(24))
    rows = [plan.row(i) for i in range(recipe.optim.batch)]
    assert sum(len(row.clips) for row in rows) == 200
    assert len({row.clips[0][1].recording for row in rows if row.clips[0][1]}) == 20
    for row in rows:
        starts, lengths = [], []
        assert len(row.clips) == 10
        for ego, exo in row.clips:
            assert ego is not None
            assert exo is not None
            facts = [plan.catalog.recordings[clip.recording] for clip in (ego, exo)]
            assert facts[0].scene == facts[1].scene
            assert [r.perspective for r in facts] == ["ego", "exo"]
            assert np.array_equal(ego.frames, exo.frames)
            assert ego.length == exo.length
            starts.append(int(ego.frames[0]))
            lengths.append(ego.length)
        assert len(set(starts)) == 10
        assert len({start % 100 for start in starts}) == 1
        assert len({clip[0].recording for clip in row.clips if clip[0]}) == 1
        assert all(length is not None and 10 <= length <= 40 for length in lengths)
        assert len(set(lengths)) > 3
    jitter = {int(row.clips[0][0].frames[0]) % 100 for row in rows if row.clips[0][0]}
    assert len(jitter) > 10  # its own in each row
    assert max(jitter) - min(jitter) > 70


def test_lengths_are_log_uniform() -> None:
    plan = plan_of(Config(), catalog_of(24))
    lengths = [clips[0].length for i in range(96) for clips in plan.row(i).clips if clips[0] is not None]
    found = np.array(lengths, dtype=float)
    assert found.min() == 10
    assert found.max() == 40
    assert abs(np.mean(np.log2(found / 20))) < 0.06  # halving and doubling are as likely
    assert 0.4 < np.mean(found <= 20) < 0.6


def test_a_group_is_twelve_cameras_in_one_order_at_the_same_frames() -> None:
    recipe = presets()["paper_step2"]()
    assert isinstance(recipe.method, Config)
    plan = plan_of(recipe.method, catalog_of(9, without={2: ("e2",), 5: EGO[:3]}))
    rows = [plan.row(i) for i in range(9)]
    seen = set()
    for row in rows:
        assert len(row.clips) == 10
        for clips in row.clips:
            assert len(clips) == 12
            there = [c for c in clips if c is not None]
            facts = [plan.catalog.recordings[c.recording] for c in there]
            seen.add(facts[0].scene)
            names = [r.view for r in facts]
            assert names == sorted(names)  # e1..e4, then v1..v8
            assert [c is None for c in clips[4:]] == [False] * 8
            assert len({c.frames.tobytes() for c in there}) == 1
            assert int(there[0].frames[-1]) < min(r.num_frames for r in facts)
            assert int(there[0].frames[0]) >= 0
    assert len(seen) == 9
    missing = {sum(c is None for c in row.clips[0]) for row in rows}
    assert missing == {0, 1, 3}


@pytest.mark.parametrize("name", sorted(presets()))
def test_the_paper_presets_say_how_many_samples_a_step_has(name: str) -> None:
    recipe = presets()[name]()
    assert isinstance(recipe.method, Config)
    samples = recipe.optim.batch * recipe.method.sampling().windows
    assert samples == {"paper_step1": 200, "debug": 16}.get(name, 60)
    assert recipe.method.step == ("pairs" if name in ("paper_step1", "debug") else "groups")
