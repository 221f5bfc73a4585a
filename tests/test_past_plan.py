"""The frames before segments: how far back, of which rate, what is left out, and what a sample is labelled with."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording, Segment
from crossview.datasets.sampling.past_plan import PastPlan
from crossview.datasets.sampling.sequence_plan import SequencePlan
from crossview.datasets.sampling.sequences import UNLABELLED, Past, Sequences
from crossview.errors import UserError
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.sequence_reader import SequenceReader

CLASSES = {"action": ("wave", "nod"), "verb": ("z", "a")}


def recording(view: str = "v1", *, frames: int = 3000, fps: float = 30.0, **facts: object) -> Recording:
    return Recording(
        dataset="d", scene="s", view=view, perspective="exo", subject="", action="", path=f"{view}.npy",
        kind="features", fps=fps, num_frames=frames, height_px=1, width_px=1, **facts,  # type: ignore[arg-type]
    )  # fmt: skip


def segment(of: Recording, first: int, label: str = "wave", name: str = "action", frames: int = 10) -> Segment:
    return Segment(of.id, first / of.fps, (first + frames) / of.fps, name, label)


def catalog(recordings: list[Recording], segments: list[Segment], root: Path = Path()) -> Catalog:
    return Catalog(root, tuple(recordings), tuple(segments), classes=CLASSES)


def plan(made: Catalog, *, seed: int = 0, test: bool = True, **changes: object) -> PastPlan:
    spec = replace(Past(labels={"action": 2}, fps=30.0), **changes)  # type: ignore[arg-type]
    return PastPlan(made, spec, seed, test=test)


def test_the_last_observed_frame_is_exactly_30_before_the_action_and_181_are_observed() -> None:
    one = recording()
    firsts = range(90, 2900, 7)
    made = plan(catalog([one], [segment(one, first) for first in firsts]))
    rows = [made.row(i) for i in range(made.rows_per_epoch)]
    assert [row.frames.shape for row in rows] == [(1, 181, 1)] * len(firsts)
    for row, first in zip(rows, firsts, strict=True):
        there = row.count == 1
        assert row.frames[0, :, 0].tolist() == [max(0, first - 30 - k) for k in range(180, -1, -1)]
        assert there.tolist() == [first - 30 - k >= 0 for k in range(180, -1, -1)]
        assert row.span == (max(0, first - 210), first - 29)


def test_no_start_loses_a_frame_to_rounding() -> None:
    """TempAgg's code floors (start / 30 - 1) * 30, which is a frame too early for 452 of these starts."""
    one = recording(frames=30_010)
    lost = [start for start in range(90, 30_000) if math.floor((start / 30 - 1) * 30) != start - 30]
    assert (lost[:3], len(lost)) == ([123, 130, 131], 452)
    made = plan(catalog([one], [segment(one, start) for start in lost]))
    assert [made.row(i).span[1] - 1 for i in range(made.rows_per_epoch)] == [start - 30 for start in lost]


def test_what_begins_too_early_or_after_its_recording_gives_no_sample() -> None:
    whole, short, silent = recording("v1"), recording("v2", frames=150), recording("v3")
    found = [segment(r, first) for r in (whole, short) for first in (89, 90, 149, 151)] + [segment(silent, 3)]
    made = plan(catalog([whole, short, silent], found))
    shown = [(row.recordings[0], row.span[1] + 29) for row in map(made.row, range(made.rows_per_epoch))]
    assert shown == [(0, 90), (0, 149), (0, 151), (1, 90), (1, 149)]
    assert made.undrawn == {"v1": 1, "v2": 2, "v3": 1}
    assert made.drawn == {0, 1}
    with pytest.raises(UserError, match=r"none of its 9 segments of kind 'action' begins 101 s after"):
        plan(catalog([whole, short, silent], found), least_s=100.0)


@pytest.mark.parametrize(
    ("fps", "first", "last", "oldest"),
    [
        (60.0, 600, 540, 180),
        (15.0, 150, 135, 45),
        (30000 / 1001, 300, 270, 90),
        (25.0, 300, 275, 125),
        (10.0, 300, 290, 230),
    ],
)
def test_recordings_of_other_rates_are_seen_at_the_asked_one(fps: float, first: int, last: int, oldest: int) -> None:
    one = recording(fps=fps)
    row = plan(catalog([one], [segment(one, first)])).row(0)
    frames = row.frames[0, :, 0]
    assert frames.shape == (181,)
    assert (frames[-1], frames[0]) == (last, oldest)
    ideal = first - (np.arange(180, -1, -1) + 30) * fps / 30
    assert np.abs(frames - ideal).max() <= 0.5 + 1e-6
    assert (np.diff(frames) >= 0).all()


def test_of_two_equally_near_frames_the_earlier_is_seen() -> None:
    one = recording(fps=15.0)
    frames = plan(catalog([one], [segment(one, 150)]), past_s=0.1).row(0).frames[0, :, 0]
    assert frames.tolist() == [133, 134, 134, 135]  # 133.5, 134, 134.5 and 135


def test_without_a_rate_every_recording_has_its_own() -> None:
    slow, fast = recording("v1", fps=10.0), recording("v2", fps=20.0)
    made = plan(catalog([slow, fast], [segment(slow, 100), segment(fast, 200)]), fps=None)
    assert [len(made.row(i).count) for i in range(2)] == [61, 121]
    assert made.steps == 121
    assert [int(made.row(i).frames.max()) for i in range(2)] == [90, 180]


def test_segments_of_one_span_have_their_own_labels_and_share_the_others_out() -> None:
    one = recording()
    found = [segment(one, 300, "wave"), segment(one, 300, "nod")]
    found += [segment(one, 300, label, "verb") for label in ("z", "a")] + [segment(one, 600, "nod")]
    made = plan(catalog([one], found), labels={"action": 2, "verb": 2})
    targets = [{kind: int(of) for kind, of in made.row(i).targets.items()} for i in range(made.rows_per_epoch)]
    assert [t["action"] for t in targets] == [1, 0, 1]  # nod, wave by name; ids are the catalog's
    assert sorted(t["verb"] for t in targets[:2]) == [0, 1]
    assert targets[2]["verb"] == UNLABELLED


def test_an_epoch_shows_each_segment_once_in_an_order_of_its_own_and_rows_are_pure() -> None:
    one = recording()
    made = catalog([one], [segment(one, first) for first in range(100, 2000, 100)])
    trained = plan(made, seed=3, test=False)
    n = trained.rows_per_epoch
    ends = [trained.row(i).span[1] for i in range(2 * n)]
    assert Counter(ends[:n]) == Counter(ends[n:]) == Counter(range(71, 1971, 100))
    assert ends[:n] != ends[n:]
    again = plan(made, seed=3, test=False)
    assert [again.row(i).span[1] for i in reversed(range(2 * n))] == ends[::-1]
    assert [plan(made, seed=4, test=False).row(i).span[1] for i in range(n)] != ends[:n]


def test_the_batch_has_the_observed_frames_and_a_mask(tmp_path: Path) -> None:
    one = recording(frames=400)
    np.save(tmp_path / one.path, np.repeat(np.arange(400, dtype=np.float16)[:, None], 3, 1))
    made = plan(catalog([one], [segment(one, 120, "nod")], tmp_path))
    reader = SequenceReader(made, Data(catalog=tmp_path), Shard(start_step=0, stop_step=0, batch=1, micro_batch=1))
    batch = reader.read(made.row(0), [])
    assert batch is not None
    features, mask = batch["features"][0, 0], batch["features/mask"][0, 0].astype(bool)
    assert features.shape == (1, 181, 3)
    assert mask.tolist() == [False] * 90 + [True] * 91
    assert features[0, mask, 0].tolist() == list(range(91))
    assert batch["target/action"].tolist() == [[1]]


def test_labelled_spans_say_what_they_leave_out() -> None:
    labelled, silent = recording("v1"), recording("v2")
    made = catalog([labelled, silent], [segment(labelled, 10)])
    assert SequencePlan(made, Sequences(kind="action", classes=2), 0).undrawn == {"v2": 1}


@pytest.mark.parametrize("changes", [{"fps": 0.0}, {"past_s": -1.0}, {"labels": {}}, {"labels": {"action": 0}}])
def test_an_impossible_past_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(changes))):
        replace(Past(labels={"action": 2}), **changes)  # type: ignore[arg-type]
