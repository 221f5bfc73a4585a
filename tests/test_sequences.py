"""Which frames make the steps of a sequence, and what they are labelled with; the past of segments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording, Segment
from crossview.datasets.sampling.past_plan import PastPlan
from crossview.datasets.sampling.sequence_plan import SequencePlan
from crossview.datasets.sampling.sequences import Past, Sequences
from crossview.datasets.sampling.step_targets import majority
from crossview.errors import UserError

FPS = 30.0


def recording(view: str = "v1", frames: int = 100, scene: str = "toy", **changes: object) -> Recording:
    made = Recording(
        dataset="d",
        scene=scene,
        view=view,
        perspective="ego" if view.startswith("e") else "exo",
        subject="s",
        action="a",
        path=f"{scene}-{view}.npy",
        kind="features",
        fps=FPS,
        num_frames=frames,
        height_px=1,
        width_px=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def catalog(recordings: list[Recording], spans: list[tuple[int, int, str]], kind: str = "coarse") -> Catalog:
    """Each recording with segments from frame to frame, cut at its end."""
    segments = [
        Segment(r.id, start / FPS, min(stop, r.num_frames) / FPS, kind, label)
        for r in recordings
        for start, stop, label in spans
        if start < r.num_frames
    ]
    names = tuple(sorted({label for *_, label in spans}))
    return Catalog(Path("files"), tuple(recordings), tuple(segments), classes={kind: names})


def spec(**changes: object) -> Sequences:
    return Sequences(**({"kind": "coarse", "classes": 3, "chunk": 10} | changes))  # type: ignore[arg-type]


SPANS = [(10, 35, "a"), (35, 60, "b"), (60, 90, "c")]


def test_majority_ties_go_to_the_smallest_class_and_unlabelled_frames_do_not_count() -> None:
    assert majority(np.array([5, 5, 2, 2]), 4, 6).tolist() == [2]
    assert majority(np.array([5, 5, 2, 2, -100, -100, -100, -100, -100, 3]), 4, 6).tolist() == [2, -100, 3]


def test_a_sequence_is_the_labelled_span_and_segments_are_half_open() -> None:
    plan = SequencePlan(catalog([recording()], SPANS), spec(chunk=1), seed=0, test=True)
    row = plan.row(0)
    assert row.span == (10, 90)
    assert row.frames[0, :, 0].tolist() == list(range(10, 90))
    assert row.targets["coarse"].tolist() == [0] * 25 + [1] * 25 + [2] * 30
    assert np.array_equal(plan.frame_labels(row), row.targets["coarse"])


def test_the_last_step_may_be_shorter_and_repeats_its_last_frame() -> None:
    row = SequencePlan(catalog([recording(frames=85)], SPANS), spec(), seed=0, test=True).row(0)
    assert row.span == (10, 85)
    assert row.count.tolist() == [10] * 7 + [5]
    assert row.frames[0, -1].tolist() == [80, 81, 82, 83, 84, 84, 84, 84, 84, 84]


def test_a_truncated_view_has_its_labels_cut_and_changes_no_other() -> None:
    whole = [recording("v1"), recording("v2")]
    for order in (lambda r: r, reversed):
        cameras = [recording("v1"), recording("v2", frames=45)]
        plan = SequencePlan(catalog(list(order(cameras)), SPANS), spec(), seed=0, test=True)
        rows = {plan.catalog.recordings[plan.row(i).recordings[0]].view: plan.row(i) for i in range(2)}
        assert rows["v2"].targets["coarse"].tolist() == [0, 0, 0, 1]  # frames 30 to 39 are half a, half b: the smaller
        alone = SequencePlan(catalog(whole, SPANS), spec(), seed=0, test=True)
        assert rows["v1"].targets["coarse"].tolist() == alone.row(0).targets["coarse"].tolist()


def test_one_truncated_view_shortens_none_that_follow_it() -> None:
    """The benchmark's code cuts every later view of the list to the same end: 990, 390 and 390 frames."""
    views = [recording("e1", 1000), recording("e2", 400), recording("v1", 1000)]
    plan = SequencePlan(catalog(views, [(10, 1000, "a")]), spec(classes=1), seed=0, test=True)
    assert [plan.row(i).span for i in range(3)] == [(10, 1000), (10, 400), (10, 1000)]


def test_what_is_annotated_after_the_end_of_a_truncated_view_is_counted() -> None:
    views = [recording("e1", 45), recording("e2", 22, fps=15.0), recording("v1"), recording("v2", 300, own_clock=True)]
    made = catalog(views, [])
    spans = {"e1": (10, 45, 30), "e2": (5, 22, 15), "v1": (10, 90, 30), "v2": (10, 40, 30)}
    segments = tuple(Segment(r.id, a / f, b / f, "coarse", "a") for r in views for a, b, f in [spans[r.view]])
    made = replace(made, segments=segments, classes={"coarse": ("a",)})
    plan = SequencePlan(made, spec(classes=1), seed=0, test=True)
    rows = {made.recordings[row.recordings[0]].view: row for row in map(plan.row, range(4))}
    assert {view: plan.annotated(row) for view, row in rows.items()} == {"e1": 80, "e2": 40, "v1": 80, "v2": 30}
    own = replace(made, segments=(*segments[1:], Segment("d/toy/e1", 10 / FPS, 30 / FPS, "coarse", "a")))
    plan = SequencePlan(own, spec(classes=1), seed=0, test=True)  # a view with labels of its own, and not cut
    assert sorted(plan.annotated(plan.row(i)) for i in range(4)) == [20, 30, 40, 80]


def test_labels_of_a_truncated_view_are_cut_and_not_stretched() -> None:
    """LTContext's code resizes ten labels to five features: 0, 2, 4, 6, 8."""
    made = catalog([recording(frames=5)], [(k, k + 1, str(k)) for k in range(10)])
    made = replace(made, classes={"coarse": tuple(map(str, range(10)))})
    row = SequencePlan(made, spec(chunk=1, classes=10), seed=0, test=True).row(0)
    assert row.targets["coarse"].tolist() == [0, 1, 2, 3, 4]


def test_long_videos_are_cut_into_parts_that_cover_them() -> None:
    made = catalog([recording(frames=24_001)], [(0, 24_001, "a")])
    plan = SequencePlan(made, spec(chunk=20, classes=1), seed=0, test=True)
    spans = [plan.row(i).span for i in range(plan.rows_per_epoch)]
    assert spans == [(0, 24_000), (24_000, 24_001)]


def test_every_number_of_frames_per_step_is_evaluated() -> None:
    plan = SequencePlan(catalog([recording()], SPANS), spec(test_chunks=(5, 8)), seed=0, test=True)
    assert [plan.row(i).frames.shape[2] for i in range(plan.rows_per_epoch)] == [5, 8]


def test_drawn_chunks_stay_in_their_range_and_rows_are_pure() -> None:
    made = catalog([recording(scene=f"toy{k}") for k in range(6)], SPANS)
    plan = SequencePlan(made, spec(chunk_range=(5, 20), chunk_drawn=1.0), seed=3)
    again = SequencePlan(made, spec(chunk_range=(5, 20), chunk_drawn=1.0), seed=3)
    sizes = [plan.row(i).frames.shape[2] for i in range(60)]
    assert 5 <= min(sizes) < 8
    assert 14 < max(sizes) <= 20
    for i in (41, 7, 29):
        assert np.array_equal(plan.row(i).frames, again.row(i).frames)
    epoch = [plan.row(i).recordings for i in range(6)]
    assert sorted(epoch) == [(k,) for k in range(6)]
    assert epoch != [plan.row(i).recordings for i in range(6, 12)]


def test_draws_repeat_over_neither_epochs_nor_workers() -> None:
    """The benchmark's workers start every epoch with one seed, so each draws the same sizes in each."""
    made = catalog([recording(scene=f"toy{k}", frames=400) for k in range(8)], [(0, 400, "a")])
    plan = SequencePlan(made, spec(classes=1, chunk_range=(10, 40), chunk_drawn=1.0), seed=0)
    rows = [plan.row(i) for i in range(8 * 12)]
    of_recording = [[row.frames.shape[2] for row in rows if row.recordings == (k,)] for k in range(8)]
    assert {len(sizes) for sizes in of_recording} == {12}
    assert min(len(set(sizes)) for sizes in of_recording) > 6
    of_worker = [[row.frames.shape[2] for row in rows[rank::2]] for rank in range(2)]
    assert sum(a == b for a, b in zip(*of_worker, strict=True)) < 12


def test_epochs_have_more_than_101_orders() -> None:
    """ASFormer's code shuffles with one of 101 seeds."""
    made = catalog([recording(scene=f"toy{k}", frames=20) for k in range(6)], [(0, 20, "a")])
    plan = SequencePlan(made, spec(classes=1), seed=0)
    orders = {tuple(plan.row(6 * epoch + k).recordings for k in range(6)) for epoch in range(300)}
    assert len(orders) > 200


def test_two_cameras_show_the_same_instants() -> None:
    late = recording("e1", start_offset_s=0.5)  # 15 frames later
    plan = SequencePlan(catalog([recording("v1"), late], SPANS), spec(views=("ego", "exo")), seed=0, test=True)
    row = plan.row(0)
    assert [plan.catalog.recordings[i].view for i in row.recordings] == ["e1", "v1"]
    assert row.frames[1, 0, 0] - row.frames[0, 0, 0] == 15
    assert row.span == (10, 85)  # of e1's frames, up to the last that v1 shows
    trained = SequencePlan(catalog([recording("v1"), late], SPANS), spec(views=("ego", "exo")), seed=0)
    assert np.array_equal(trained.row(0).frames, row.frames)


def test_units_are_sequences_of_their_own() -> None:
    made = catalog([recording()], SPANS)
    parts = (Segment("d/toy/v1", 10 / FPS, 60 / FPS, "sequence", "one"), Segment("d/toy/v1", 2, 3, "sequence", "two"))
    made = replace(made, segments=(*made.segments, *parts))
    plan = SequencePlan(made, spec(unit="sequence"), seed=0, test=True)
    assert [plan.row(i).span for i in range(2)] == [(10, 60), (60, 90)]


def test_overlapping_segments_give_a_frame_the_later_label() -> None:
    plan = SequencePlan(catalog([recording()], [(0, 50, "a"), (20, 60, "b")]), spec(classes=2, chunk=1), 0, test=True)
    assert plan.row(0).targets["coarse"].tolist() == [0] * 20 + [1] * 40


def test_frame_labels_are_checked_against_the_number_of_classes() -> None:
    made = Catalog(Path("files"), (recording(),), frame_labels={"phase": {"d/toy/v1": np.full(100, 4, np.int32)}})
    with pytest.raises(UserError, match=r"label 4, but --method.classes is 4; .* pass --method.classes 5"):
        SequencePlan(made, spec(kind="phase", classes=4, option="method.classes"), seed=0)


def test_background_of_minus_one_is_no_label() -> None:
    labels = np.repeat(np.int32([-1, 0, -1, 1, -1]), 20)
    made = Catalog(Path("files"), (recording(),), frame_labels={"phase": {"d/toy/v1": labels}})
    plan = SequencePlan(made, spec(kind="phase", classes=2), seed=0, test=True)
    row = plan.row(0)
    assert row.span == (20, 80)
    assert row.targets["phase"].tolist() == [0, 0, -100, -100, 1, 1]
    assert set(plan.frame_labels(row).tolist()) == {0, 1, -100}
    silent = Catalog(Path("files"), (recording(),), frame_labels={"phase": {"d/toy/v1": np.full(100, -1, np.int32)}})
    with pytest.raises(UserError, match="none of its 1 recordings here has labels of kind 'phase'"):
        SequencePlan(silent, spec(kind="phase", classes=2), seed=0)


def test_videos_and_unlabelled_splits_are_refused() -> None:
    with pytest.raises(UserError, match="is a video; this trainer reads features"):
        SequencePlan(catalog([recording(kind="video")], SPANS), spec(), seed=0)
    with pytest.raises(UserError, match="no segments of kind"):
        PastPlan(catalog([recording()], SPANS), Past(labels={"coarse": 3}, unit="fine"), seed=0)
    cameras = [recording("v1"), recording("e1")]
    with pytest.raises(UserError, match="test_views"):
        SequencePlan(catalog(cameras, SPANS), spec(views=("ego", "exo"), test_views=("e2", "v1")), 0, test=True)


def test_the_past_ends_a_whole_horizon_before_the_segment() -> None:
    made = catalog([recording(frames=400)], [(89, 95, "a"), (90, 99, "b"), (300, 330, "c")])
    plan = PastPlan(made, Past(labels={"coarse": 3}, unit="coarse"), seed=0, test=True)
    assert plan.rows_per_epoch == 2  # the first begins before 3 s
    early, late = plan.row(0), plan.row(1)
    assert (early.frames[0, -1, 0], late.frames[0, -1, 0]) == (60, 270)
    assert len(late.count) == 181
    assert late.frames[0, 0, 0] == 90
    assert (early.count.sum(), late.count.sum()) == (61, 181)
    assert (int(early.targets["coarse"]), int(late.targets["coarse"])) == (1, 2)


def test_segments_of_one_span_share_its_labels_out() -> None:
    made = catalog([recording(frames=400)], [(200, 230, "a"), (200, 230, "b")])
    plan = PastPlan(made, Past(labels={"coarse": 2}, unit="coarse"), seed=0, test=True)
    assert sorted(int(plan.row(i).targets["coarse"]) for i in range(2)) == [0, 1]
