"""The plan's promises, for arbitrary catalogs and samplings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets.catalog import Catalog, Perspective, Recording
from crossview.datasets.sampling.pairing import fits
from crossview.datasets.sampling.plan import Plan, Row
from crossview.datasets.sampling.spec import Pairing, Sampling, View

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def recording(scene: int, view: str, perspective: Perspective, **changed: object) -> Recording:
    plain = Recording(
        dataset="d", scene=f"s{scene}", view=view, perspective=perspective, subject="p",
        action=f"a{scene % 2}", path=f"s{scene}/{view}.mp4", kind="video", fps=30.0, num_frames=40, height_px=64,
        width_px=64,
    )  # fmt: skip
    return replace(plain, **changed)  # type: ignore[arg-type]


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """Two to five scenes with at least one camera of each perspective; rates are multiples, offsets whole frames."""
    recordings = []
    for scene in range(draw(st.integers(2, 5))):
        for perspective, largest in (("ego", 2), ("exo", 5)):
            for camera in range(draw(st.integers(1, largest))):
                changed = {
                    "num_frames": draw(st.integers(25, 90)),
                    "fps": draw(st.sampled_from([30.0, 60.0])),
                    "start_offset_s": draw(st.integers(0, 9)) / 30,
                }
                recordings.append(recording(scene, f"{perspective}{camera}", perspective, **changed))  # type: ignore[arg-type]
    return Catalog(Path("root"), tuple(recordings))


@st.composite
def samplings(draw: st.DrawFn, pairings: tuple[Pairing, ...]) -> Sampling:
    pairing = draw(st.sampled_from(pairings))
    windows = draw(st.integers(1, 3))
    even_allowed = windows == 1
    clocked = pairing in ("synchronized", "group")
    spread = "even" if even_allowed and (clocked or draw(st.booleans())) else "random"
    fps = draw(st.sampled_from([5.0, 10.0, 45.0])) if spread == "random" and (clocked or draw(st.booleans())) else None
    first = View(perspective="ego", frames=draw(st.integers(1, 12)), fps=fps, spread="even" if clocked else spread)
    second = replace(first, perspective="exo")
    if pairing == "unpaired" and draw(st.booleans()):
        first, second = replace(first, perspective="any"), replace(second, perspective="any")
    if pairing == "group":
        first, second = replace(first, count=draw(st.integers(1, 2))), replace(second, count=draw(st.integers(1, 3)))
    views = {"a": first} if pairing == "single" else {"a": first, "b": second}
    return Sampling(
        views=views, pairing=pairing, windows=windows, window_scale=draw(st.sampled_from([(1.0, 1.0), (0.5, 2.0)]))
    )


ALL: tuple[Pairing, ...] = ("single", "synchronized", "paired", "unpaired", "group")


def epoch(plan: Plan, number: int) -> list[Row]:
    return [plan.row(number * plan.rows_per_epoch + i) for i in range(plan.rows_per_epoch)]


def visited(rows: list[Row]) -> set[int]:
    return {clip.recording for row in rows for window in row.clips for clip in window if clip}


@QUICK
@given(catalogs(), samplings(ALL), st.integers(0, 2**40))
def test_frames_in_range_sorted_and_as_many_as_asked(catalog: Catalog, sampling: Sampling, seed: int) -> None:
    plan = Plan(catalog, sampling, seed)
    for row in epoch(plan, 0):
        assert len(row.clips) == sampling.windows
        for window in row.clips:
            assert len(window) == len(plan.slots)
            for slot, clip in zip(plan.slots, window, strict=True):
                if clip is None:
                    continue
                assert clip.view == slot
                assert clip.frames.shape == (sampling.views[slot].frames,)
                assert clip.frames.dtype == np.int64
                assert (np.diff(clip.frames) >= 0).all()
                assert clip.frames[0] >= 0
                assert clip.frames[-1] < catalog.recordings[clip.recording].num_frames
                assert fits(catalog.recordings[clip.recording], sampling.views[slot])


@QUICK
@given(catalogs(), samplings(ALL), st.integers(0, 99), st.integers(0, 2))
def test_every_epoch_visits_every_recording(catalog: Catalog, sampling: Sampling, seed: int, number: int) -> None:
    usable = {i for i, r in enumerate(catalog.recordings) if any(fits(r, v) for v in sampling.views.values())}
    assert visited(epoch(Plan(catalog, sampling, seed), number)) == usable


@QUICK
@given(catalogs(), samplings(("unpaired",)), st.integers(0, 99))
def test_unpaired_never_pairs_a_file_with_itself(catalog: Catalog, sampling: Sampling, seed: int) -> None:
    # Two recordings of one file count as that file.
    twin = replace(catalog.recordings[0], view="twin")
    plan = Plan(Catalog(catalog.root, (*catalog.recordings, twin)), sampling, seed)
    for row in epoch(plan, 0) + epoch(plan, 1):
        for first, second in row.clips:
            assert first is not None
            assert second is not None
            a, b = (plan.catalog.recordings[clip.recording] for clip in (first, second))
            assert a.path != b.path
            assert a.action == b.action


@QUICK
@given(catalogs(), samplings(("synchronized", "group")), st.integers(0, 99))
def test_common_instants_are_exact(catalog: Catalog, sampling: Sampling, seed: int) -> None:
    for row in epoch(Plan(catalog, sampling, seed), 0):
        for window in row.clips:
            clips = [clip for clip in window if clip]
            found = [catalog.recordings[clip.recording] for clip in clips]
            assert len({r.scene for r in found}) == 1
            assert len({r.path for r in found}) == len(found)
            instants = [r.start_offset_s + clip.frames / r.fps for r, clip in zip(found, clips, strict=True)]
            for other in instants[1:]:
                np.testing.assert_allclose(other, instants[0], atol=1e-9)


@QUICK
@given(catalogs(), samplings(ALL), st.integers(0, 99), st.integers(0, 30))
def test_resume_equals_the_tail(catalog: Catalog, sampling: Sampling, seed: int, start: int) -> None:
    whole = Plan(catalog, sampling, seed)
    rows = [whole.row(i) for i in range(40)]
    resumed = Plan(catalog, sampling, seed)
    assert [resumed.row(i) for i in range(start, 40)] == rows[start:]


@QUICK
@given(catalogs(), samplings(ALL), st.integers(0, 99), st.permutations(range(30)))
def test_a_row_does_not_depend_on_what_was_asked_before(
    catalog: Catalog, sampling: Sampling, seed: int, order: list[int]
) -> None:
    straight, shuffled = Plan(catalog, sampling, seed), Plan(catalog, sampling, seed)
    rows = [straight.row(i) for i in range(30)]
    assert {i: shuffled.row(i) for i in order} == dict(enumerate(rows))
    assert len({row.seed for row in rows}) == 30
    assert all(row.sample == i and 0 <= row.seed < 2**63 for i, row in enumerate(rows))


def many() -> Catalog:
    found = [recording(s, f"{p}{k}", p) for s in range(6) for p, n in (("ego", 1), ("exo", 4)) for k in range(n)]  # type: ignore[arg-type]
    return Catalog(Path("root"), tuple(found))


def two_views(pairing: Pairing, **changed: object) -> Sampling:
    view = View(perspective="ego", frames=4, fps=10)
    return Sampling(views={"a": view, "b": replace(view, perspective="exo")}, pairing=pairing, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("pairing", ["synchronized", "paired", "unpaired"])
def test_order_partners_and_frames_differ_each_epoch_and_with_the_seed(pairing: Pairing) -> None:
    plan = Plan(many(), two_views(pairing), 0)
    keys = [[tuple(c.recording for c in row.clips[0] if c) for row in epoch(plan, e)] for e in range(4)]
    keys.append(
        [tuple(c.recording for c in row.clips[0] if c) for row in epoch(Plan(many(), two_views(pairing), 1), 0)]
    )
    assert len({tuple(k) for k in keys}) == 5
    if pairing == "unpaired":
        assert len({frozenset(k) for k in keys}) == 5


def test_memory_is_flat_in_the_number_of_epochs() -> None:
    plan = Plan(many(), two_views("unpaired"), 0)

    def held(value: object) -> int:
        if isinstance(value, np.ndarray):
            return value.size
        if isinstance(value, dict):
            return sum(held(v) for v in value.values())
        if isinstance(value, list | tuple):
            return 1 + sum(held(v) for v in value)
        return held(vars(value)) if hasattr(value, "__dict__") and not isinstance(value, type) else 1

    plan.row(0)
    before = held(vars(plan))
    for number in range(0, 3000, 50):
        plan.row(number * plan.rows_per_epoch)
    assert held(vars(plan)) == before


def test_random_spread_reaches_the_first_and_last_frame_and_repeats_the_last() -> None:
    catalog = Catalog(
        Path("root"), (recording(0, "ego0", "ego", num_frames=6), recording(1, "ego0", "ego", num_frames=3))
    )
    plan = Plan(catalog, Sampling(views={"a": View(perspective="any", frames=4, spread="random")}, pairing="single"), 0)
    long, short = set(), []
    for i in range(60):
        clip = plan.row(i).clips[0][0]
        assert clip is not None
        if clip.recording == 0:
            assert len(set(clip.frames.tolist())) == 4
            long |= set(clip.frames.tolist())
        else:
            short.append(clip.frames.tolist())
    assert long == set(range(6))
    assert short == [[0, 1, 2, 2]] * 30


def test_paired_maps_time_proportionally() -> None:
    found = (recording(0, "ego0", "ego", num_frames=41), recording(0, "exo0", "exo", num_frames=81))
    view = View(perspective="ego", frames=9)
    sampling = Sampling(views={"a": view, "b": replace(view, perspective="exo", frames=5)}, pairing="paired")
    first, second = Plan(Catalog(Path("root"), found), sampling, 0).row(0).clips[0]
    assert first is not None
    assert second is not None
    assert first.frames.tolist() == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    assert second.frames.tolist() == [0, 20, 40, 60, 80]


def test_group_masks_missing_cameras_and_deals_out_surplus_ones() -> None:
    cameras = [recording(0, f"exo{k}", "exo") for k in range(5)] + [
        recording(1, "exo0", "exo"),
        recording(1, "e", "ego"),
    ]
    view = View(perspective="ego", frames=4, fps=10)
    sampling = Sampling(
        views={"ego": view, "exo": replace(view, perspective="exo", count=2)}, pairing="group", windows=2
    )
    plan = Plan(Catalog(Path("root"), tuple(cameras)), sampling, 0)
    assert plan.slots == ("ego", "exo", "exo")
    assert plan.rows_per_epoch == 3 + 1
    filled = sorted(tuple(clip is not None for clip in row.clips[0]) for row in epoch(plan, 0))
    assert filled == [(False, True, True)] * 3 + [(True, True, False)]
    shown = {clip.recording for row in epoch(plan, 0) for clip in row.clips[0] if clip}
    assert shown == set(range(len(cameras)))
    strides = {int(s) for row in epoch(plan, 0) for w in row.clips for clip in w if clip for s in np.diff(clip.frames)}
    assert strides == {3}


def test_window_scale_is_shared_by_the_views_of_a_group() -> None:
    view = View(perspective="exo", frames=3, fps=10)
    sampling = Sampling(views={"v": replace(view, count=4)}, pairing="group", windows=3, window_scale=(0.4, 2.5))
    strides = set()
    for row in epoch(Plan(many(), sampling, 0), 0):
        for window in row.clips:
            found = {tuple(np.diff(clip.frames)) for clip in window if clip}
            assert len(found) == 1
            strides |= found
    assert len(strides) > 3


def catalog_of(*recordings: Recording) -> Catalog:
    return Catalog(Path("some/root"), recordings)


EGO, EXO = recording(0, "e", "ego"), recording(0, "x", "exo")


@pytest.mark.parametrize(
    ("catalog", "sampling", "message"),
    [
        (
            catalog_of(EXO),
            two_views("unpaired"),
            r"some/root: view 'a' asks for 'ego' recordings.* holds exo; add such",
        ),
        (catalog_of(), two_views("group"), r"some/root: view 'a' asks for 'ego'.*no recording at all"),
        (
            catalog_of(EGO, recording(1, "x", "exo")),
            two_views("unpaired"),
            r"some/root: action 'a0' has 1 for a and 0 for b, so no two different files.*add a recording",
        ),
        (
            catalog_of(EGO, recording(1, "x", "exo")),
            two_views("synchronized"),
            r"no scene has two cameras.*give the cameras",
        ),
        (catalog_of(EGO, recording(1, "x", "exo")), two_views("paired"), r"no scene has two cameras.*give the cameras"),
        (
            catalog_of(EGO, replace(EXO, start_offset_s=9.0)),
            two_views("group"),
            r"cameras e, x of scene 's0' have no common instant.*correct start_offset_s",
        ),
        (
            catalog_of(replace(EGO, num_frames=0), EXO),
            two_views("paired"),
            r"s0/e\.mp4: 0 frames.*catalog the file again",
        ),
    ],
)
def test_what_a_catalog_cannot_give(catalog: Catalog, sampling: Sampling, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(catalog, sampling, 0)


def test_synchronized_pairs_need_only_their_own_two_cameras_at_one_time() -> None:
    """Cameras that never run together stay out of pairs; a camera that no view uses does not matter."""
    early, late = (recording(0, f"ego{k}", "ego", start_offset_s=9.0 * k) for k in (0, 1))
    exo = [recording(0, f"exo{k}", "exo", start_offset_s=t) for k, t in enumerate((0.0, 9.0, 9.5, 50.0))]
    plan = Plan(catalog_of(early, late, *exo), two_views("synchronized"), 0)
    for number in range(5):
        pairs = [tuple(c.recording for c in row.clips[0] if c) for row in epoch(plan, number)]
        assert sorted(pairs) == [(0, 2), (1, 3), (1, 4)]
    view = View(perspective="exo", frames=4, fps=10)
    together = Sampling(views={"a": view, "b": view}, pairing="synchronized")
    pairs = [
        tuple(c.recording for c in row.clips[0] if c) for row in epoch(Plan(catalog_of(late, *exo), together, 0), 0)
    ]
    assert sorted(pairs) == [(2, 3), (3, 2)]
    group = Sampling(views={"a": replace(view, count=2)}, pairing="group")
    assert Plan(catalog_of(early, *exo[1:3]), group, 0).rows_per_epoch == 1
    with pytest.raises(
        ValueError, match=r"no scene has two cameras .* at one time.*camera exo\d .* from.*one clock by"
    ):
        Plan(catalog_of(early, *exo[1:]), two_views("synchronized"), 0)


@pytest.mark.parametrize("pairing", ["synchronized", "group"])
def test_scenes_of_one_name_in_two_datasets_share_no_row(pairing: Pairing) -> None:
    cameras = [recording(k, view, view) for k in range(2) for view in ("ego", "exo")]  # type: ignore[arg-type]
    other = [replace(r, dataset="other", path=f"other/{r.path}") for r in cameras]
    view = View(perspective="ego", frames=4, fps=10.0)
    sampling = Sampling(views={"a": view, "b": replace(view, perspective="exo")}, pairing=pairing)
    plan = Plan(Catalog(Path("root"), (*cameras, *other)), sampling, 0)
    assert plan.rows_per_epoch == 4
    for row in epoch(plan, 0):
        found = [plan.catalog.recordings[clip.recording] for clip in row.clips[0] if clip]
        assert len(found) == 2
        assert len({(r.dataset, r.scene) for r in found}) == 1


def test_one_recording_is_no_pair() -> None:
    both = {name: View(perspective="any", frames=4) for name in ("a", "b")}
    with pytest.raises(ValueError, match=r"action 'a0' has 1 for a and 1 for b, so no two different files"):
        Plan(catalog_of(EGO), Sampling(views=both, pairing="unpaired"), 0)


ANY, TWO, THREE = (
    View(perspective="any", frames=2),
    View(perspective="ego", frames=2),
    View(perspective="exo", frames=3),
)
SMALL = View(perspective="exo", frames=2, size_px=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairing": "group", "views": {"a": TWO, "b": THREE}}, "same frames"),
        ({"pairing": "synchronized", "windows": 2, "views": {"a": ANY, "b": ANY}}, "all equal"),
        ({"pairing": "group", "views": {"a": TWO, "b": SMALL}}, "size_px"),
        ({"pairing": "single", "views": {}}, "no view"),
        ({"pairing": "single", "views": {"a": ANY, "b": ANY}}, "takes one view"),
        ({"pairing": "unpaired", "views": {"a": ANY}}, "takes two views"),
        ({"pairing": "single", "views": {"a": ANY}, "window_scale": (2.0, 1.0)}, "window_scale"),
    ],
)
def test_impossible_samplings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**changes)  # type: ignore[arg-type]
