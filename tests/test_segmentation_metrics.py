"""Segmentation metrics against hand cases and against plain loops over frames and segments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference_loops import reference_loops

from crossview.downstream.segmentation.metrics import Runs, count, edit, found, runs, scores

CASES = {  # runs as label x length: truth, prediction, then accuracy, Edit, F1 at 10, 25 and 50
    "shift": ("0x10 1x10 2x10", "0x8 1x14 2x8", 260 / 3, 100, 100, 100, 100),
    "over-segmented, IoU exactly .25 and .5": ("0x20 1x20", "0x5 1x5 0x10 1x20", 87.5, 50, 200 / 3, 200 / 3, 200 / 3),
    "two equal candidates": ("1x10 0x10 1x10", "1x30", 200 / 3, 100 / 3, 50, 50, 0),
    "best already used": ("1x10 0x2 1x10", "1x2 0x1 1x13 0x6", 1300 / 22, 75, 200 / 7, 200 / 7, 0),
    "swapped": ("0x4 1x4", "1x4 0x4", 0, 0, 0, 0, 0),
    "short last segment": ("0x10 1x2", "0x11 1x1", 1100 / 12, 100, 100, 100, 100),
}
LOOPS = reference_loops("segmentation")
NAMES = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")


def frames(text: str) -> np.ndarray:
    return np.concatenate([np.full(int(n), int(label)) for label, n in (run.split("x") for run in text.split())])


@pytest.mark.parametrize("name", CASES)
def test_hand_cases(name: str) -> None:
    truth, prediction, *expected = CASES[name]
    got = scores([count(frames(truth), frames(prediction))])
    assert [got[key] for key in NAMES] == pytest.approx(expected, abs=1e-6)
    assert got["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert got["coverage"] == 1


def test_both_aggregates_of_the_hand_cases() -> None:
    got = scores([count(frames(truth), frames(prediction)) for truth, prediction, *_ in CASES.values()])
    assert [got[key] for key in NAMES] == pytest.approx(
        [73.94366197183099, 59.72222222222223, 58.06451612903225, 58.06451612903225, 45.16129032258064], abs=1e-6
    )
    own = [got[f"per_video/{key}"] for key in NAMES]
    assert own == pytest.approx(
        [65.26515151515152, 59.72222222222223, 57.53968253968254, 57.53968253968254, 44.44444444444444], abs=1e-6
    )
    assert got["mean"] == pytest.approx(np.mean([got[key] for key in NAMES]))
    assert got["per_video/mean"] == pytest.approx(np.mean(own))


def test_a_thousand_random_sequences_equal_the_loops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        length, classes = int(rng.integers(1, 60)), int(rng.integers(1, 5))
        truth, prediction = (
            np.repeat(rng.integers(0, classes, length), rng.integers(1, 9, length))[:length] for _ in range(2)
        )
        got = scores([count(truth, prediction)])
        assert {key: got[key] for key in NAMES} == pytest.approx(LOOPS.scores(truth, prediction))


def test_runs_are_half_open_and_complete() -> None:
    assert [x.tolist() for x in vars(runs(np.array([3, 3, 1, 3]))).values()] == [[3, 1, 3], [0, 2, 3], [2, 3, 4]]
    assert len(runs(np.array([], int))) == 0


def test_empty_sequences_have_defined_scores() -> None:
    none, some = runs(np.array([], int)), runs(frames("0x3 1x2"))
    assert edit(none, none) == 100
    assert edit(none, some) == edit(some, none) == 0
    assert found(none, some).tolist() == found(some, none).tolist() == found(none, none).tolist() == [0, 0, 0]
    got = scores([count(frames("0x3 1x2"), np.array([], int))])
    assert {got[key] for key in NAMES} == {0.0}
    assert got["coverage"] == 0
    assert not any(math.isnan(value) for value in got.values())


def test_a_missed_video_lowers_the_pooled_scores() -> None:
    seen, missed = count(frames("0x6 1x4"), frames("0x6 1x4")), count(frames("0x5 1x5"), np.array([], int))
    got = scores([seen, missed])
    assert (got["accuracy"], got["edit"], got["coverage"]) == (50, 50, 0.5)
    assert got["f1@50"] == pytest.approx(200 * 2 / (4 + 2))


def test_classes_absent_from_the_truth_are_false_positives_alone() -> None:
    got = scores([count(frames("0x10"), frames("0x8 7x2"))])
    assert got["f1@50"] == pytest.approx(200 / 3)
    assert got["edit"] == 50


@pytest.mark.parametrize("mark", [-1, -100])
def test_unlabelled_frames_are_taken_out_of_both(mark: int) -> None:
    truth = np.r_[np.full(3, mark), frames("0x4"), np.full(5, mark), frames("0x4 1x4")]
    prediction = frames("5x3 0x4 1x5 0x4 1x4")
    got = count(truth, prediction)
    assert (got.annotated, got.scored, got.correct, got.edit) == (12, 12, 12, 100)
    assert (got.true_segments, got.predicted_segments, got.found.tolist()) == (2, 2, [2, 2, 2])


def test_a_video_without_labels_is_left_out_and_nothing_to_score_is_an_error() -> None:
    unlabelled = count(np.full(5, -1), np.zeros(5, int))
    good = count(frames("0x6 1x4"), frames("0x5 1x5"))
    assert scores([unlabelled, good]) == scores([good])
    with pytest.raises(ValueError, match="no video has an annotated frame"):
        scores([unlabelled])


def test_a_truncated_view_cuts_the_truth_and_shows_in_coverage() -> None:
    got = scores([count(frames("0x4 1x4 2x8"), frames("0x4 1x4"))])
    assert (got["accuracy"], got["edit"], got["f1@50"], got["coverage"]) == (100, 100, 100, 0.5)
    hole = scores([count(frames("0x4 1x4 2x8"), np.r_[frames("0x4 1x4"), np.full(8, -100)])])
    assert hole == got
    with pytest.raises(ValueError, match="no longer than the labels"):
        count(frames("0x4"), frames("0x5"))


def test_a_used_segment_is_not_rematched() -> None:
    truth, prediction = Runs(*map(np.array, ([0, 0], [0, 8], [8, 16]))), runs(frames("0x5 1x1 0x10"))
    assert found(truth, prediction).tolist() == [2, 2, 2]
    assert found(truth, Runs(*map(np.array, ([0, 0], [0, 4], [4, 8])))).tolist() == [1, 1, 1]  # both claim the first


def test_of_equal_candidates_the_first_is_claimed() -> None:
    assert found(runs(frames("1x4 0x2 1x4")), runs(frames("0x2 1x6 0x1 1x1"))).tolist() == [2, 2, 0]
