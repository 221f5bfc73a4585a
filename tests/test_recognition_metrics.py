"""Accuracies, EPIC's actions, average precision, fusion and cameras, against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from crossview.downstream.cameras import by_camera_set, consistency, consistency_of_pairs
from crossview.downstream.recognition import metrics
from crossview.downstream.recognition.epic_metrics import best_actions, epic_accuracies
from crossview.downstream.recognition.metrics import fuse, hits, log_scores

RNG = np.random.default_rng(0)


def test_accuracies_by_hand() -> None:
    scores = np.array([[0.9, 0, 0, 0, 0, 0.1], [0, 0.8, 0, 0, 0.1, 0], [0.2, 0.3, 0, 0, 0, 0], [9, 8, 7, 6, 5, 4]])
    labels = np.array([0, 4, 0, 5])
    found = metrics.accuracies(scores, labels)
    assert found == pytest.approx({"top1": 1 / 4, "top5": 3 / 4, "mean_class": (1 / 2 + 0 + 0) / 3})


def test_accuracies_count_labelled_samples_only() -> None:
    scores = RNG.random((40, 8))
    labels = RNG.integers(8, size=40)
    labels[::4] = -1
    assert metrics.accuracies(scores, labels) == metrics.accuracies(scores[labels >= 0], labels[labels >= 0])
    assert metrics.accuracies(scores, np.full(40, -1)) == {}
    assert metrics.accuracies(scores[:0], labels[:0]) == {}
    assert not hits(scores, labels, 8)[::4].any()
    assert hits(scores, labels, 8)[labels >= 0].all()


def test_of_equal_scores_the_lower_class_is_first() -> None:
    scores = np.zeros((7, 7))
    assert hits(scores, np.arange(7), 1).tolist() == [True] + [False] * 6
    assert hits(scores, np.arange(7), 5).tolist() == [True] * 5 + [False] * 2
    assert metrics.best(np.array([[1.0, 2, 2, 0, 2]]), 4).tolist() == [[1, 2, 4, 0]]


def test_of_five_classes_the_fifth_best_means_nothing() -> None:
    labels = np.array([1, 2, 3])
    assert "top5" not in metrics.accuracies(RNG.random((3, 5)), labels)
    assert "top5" in metrics.accuracies(RNG.random((3, 6)), labels)


def test_the_majority_predictor_scores_its_share() -> None:
    """As on EPIC-KITCHENS' validation, where it is 20.04 % of the verbs."""
    labels = np.repeat([3, 0, 5], [501, 1000, 999])
    scores = np.zeros((2500, 97))
    scores[:, 3] = 1
    found = metrics.accuracies(scores, labels)
    assert found["top1"] == pytest.approx(0.2004)
    assert found["mean_class"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), r"labels from 0 to 3 for 3 classes"),
        (np.zeros((2, 3)), np.array([-2, 0]), r"labels from -2 to 0 for 3 classes"),
        (np.zeros((2, 3)), np.array([0]), r"must be \(N, C\) and \(N,\)"),
        (np.array([[np.nan, 0, 0]]), np.array([0]), r"NaN or infinity"),
    ],
)
def test_what_cannot_be_scored_is_refused(scores: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hits(scores, labels, 1)


# Average precision


def precision_by_loops(scores: np.ndarray, positive: np.ndarray) -> float:
    """Sum over the thresholds of the rise in recall times the precision there."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        above = scores >= threshold
        recall = float(positive[above].sum() / positive.sum())
        total += (recall - before) * float(positive[above].mean())
        before = recall
    return total


def test_average_precision_is_its_definition_with_ties_passed_together() -> None:
    scores = RNG.integers(6, size=(50, 9)) / 5.0
    labels = RNG.random((50, 9)) < 0.2
    labels[:, 3] = False
    found = metrics.average_precisions(scores, labels)
    for c in range(9):
        if c == 3:
            assert np.isnan(found[c])
        else:
            assert found[c] == pytest.approx(precision_by_loops(scores[:, c], labels[:, c]), abs=1e-12)
    order = RNG.permutation(50)
    np.testing.assert_allclose(metrics.average_precisions(scores[order], labels[order]), found)
    by_class = [found[c] for c in range(9) if c != 3]
    assert metrics.mean_average_precision(scores, labels) == pytest.approx({"map": np.mean(by_class), "classes": 8})


def test_an_oracle_has_all_and_chance_the_prevalence() -> None:
    labels = RNG.random((4000, 30)) < 0.063
    assert metrics.mean_average_precision(labels.astype(float), labels)["map"] == 1
    assert metrics.mean_average_precision(RNG.random(labels.shape), labels)["map"] == pytest.approx(0.07, abs=0.01)
    assert metrics.mean_average_precision(np.zeros(labels.shape), labels)["map"] == pytest.approx(labels.mean())
    assert metrics.mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), bool)) == {}
    with pytest.raises(ValueError, match=r"both must be \(N, C\)"):
        metrics.average_precisions(np.zeros((3, 2)), np.zeros((3, 1), bool))


# Fusion


def test_views_fuse_by_their_mean_or_largest() -> None:
    views = np.array([[[0.1, 0.8], [0.5, 0.2], [0.3, 0.3]]])
    np.testing.assert_allclose(fuse(views, "mean"), [[0.3, 1.3 / 3]])
    np.testing.assert_allclose(fuse(views, "max"), [[0.5, 0.8]])
    shown = np.array([[True, False, True]])
    np.testing.assert_allclose(fuse(views, "mean", shown), [[0.2, 0.55]])
    np.testing.assert_allclose(fuse(-views, "max", shown), [[-0.1, -0.3]])
    with pytest.raises(ValueError, match=r"samples \[1\] have no view"):
        fuse(np.zeros((2, 2, 3)), "mean", np.array([[True, True], [False, False]]))


def test_the_order_of_views_changes_no_bit() -> None:
    views = RNG.random((5, 30, 11))
    shown = RNG.random((5, 30)) < 0.7
    for how in ("mean", "max"):
        whole = fuse(views, how, shown)  # type: ignore[arg-type]
        for _ in range(5):
            order = RNG.permutation(30)
            assert np.array_equal(fuse(views[:, order], how, shown[:, order]), whole)  # type: ignore[arg-type]


def test_one_view_is_itself() -> None:
    views = RNG.random((3, 1, 4))
    assert np.array_equal(fuse(views, "mean"), views[:, 0])


# EPIC-KITCHENS


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def actions_by_loops(verb: np.ndarray, noun: np.ndarray, k: int) -> list[list[int]]:
    """The official rule: products of the 100 best of each, sorted."""
    out = []
    for p, q in zip(softmax(verb), softmax(noun), strict=True):
        v, n = np.argsort(-p, kind="stable")[:100], np.argsort(-q, kind="stable")[:100]
        products = sorted(((p[i] * q[j], -(i * 1000 + j)) for i, j in itertools.product(v, n)), reverse=True)
        out.append([int(-number) for _, number in products[:k]])
    return out


def test_actions_are_ranked_by_the_joint_product() -> None:
    verb, noun = RNG.normal(size=(20, 97)), RNG.normal(size=(20, 300))
    assert best_actions(verb, noun, 7).tolist() == actions_by_loops(verb, noun, 7)


def test_equal_actions_are_ranked_by_their_number() -> None:
    verb, noun = np.array([[2.0, 2, 1, 0]]), np.array([[1.0, 3, 2, 3]])
    assert best_actions(verb, noun, 6).tolist() == [[1, 3, 1001, 1003, 2, 1002]]
    flat = best_actions(np.zeros((1, 97)), np.zeros((1, 300)), 5)
    assert flat.tolist() == [[0, 1, 2, 3, 4]]


def test_products_that_would_underflow_keep_their_order() -> None:
    verb, noun = np.array([[0.0, -2000.0, -1000.0]]), np.array([[0.0, -900.0]])
    assert best_actions(verb, noun, 3).tolist() == [[0, 1, 2000]]


def test_a_segments_actions_do_not_depend_on_the_logits_of_others() -> None:
    """The official evaluation takes one softmax over all segments: far below the others, all products are 0."""
    verb, noun = RNG.normal(size=(40, 97)), RNG.normal(size=(40, 300))
    lower = np.where(np.arange(40)[:, None] % 2, -2000.0, 0.0)
    assert np.array_equal(best_actions(verb + lower, noun, 5), best_actions(verb, noun, 5))


def test_top1_is_both_and_top5_is_not_the_two_top5() -> None:
    verb, noun = RNG.normal(size=(400, 97)) * 2, RNG.normal(size=(400, 300)) * 2
    verbs, nouns = (metrics.best(x, 6)[np.arange(400), RNG.integers(6, size=400)] for x in (verb, noun))
    found = epic_accuracies(verb, noun, verbs, nouns)
    both = {k: hits(verb, verbs, k) & hits(noun, nouns, k) for k in (1, 5)}
    assert found["action/top1"] == both[1].mean() > 0
    assert found["action/top5"] < both[5].mean()
    by_loops = [v * 1000 + n in five for v, n, five in zip(verbs, nouns, actions_by_loops(verb, noun, 5), strict=True)]
    assert found["action/top5"] == np.mean(by_loops)
    assert found["verb/top1"] == hits(verb, verbs, 1).mean()
    assert found["noun/top5"] == hits(noun, nouns, 5).mean()
    assert set(found) == {f"{kind}/top{k}" for kind in ("verb", "noun", "action") for k in (1, 5)}


def test_the_tail_of_actions_is_either_tail() -> None:
    verb, noun = np.eye(4)[[0, 1, 2, 3]] * 9, np.eye(6)[[0, 1, 2, 4]] * 9
    verbs, nouns = np.array([0, 1, 3, 3]), np.array([0, 5, 2, 4])
    found = epic_accuracies(
        verb, noun, verbs, nouns, tail_verbs=[1, 3], tail_nouns={4, 5}, unseen=np.array([True, False, True, False])
    )
    assert found["verb/top1"] == 3 / 4
    assert found["verb/tail/top1"] == 2 / 3  # the third is in the best five
    assert found["noun/tail/top1"] == 1 / 2
    assert found["action/tail/top1"] == 1 / 3  # segments 1, 2 and 3
    assert (found["verb/unseen/top1"], found["noun/unseen/top1"], found["action/unseen/top1"]) == (1 / 2, 1, 1 / 2)
    assert "verb/tail/top1" not in epic_accuracies(verb, noun, verbs, nouns, tail_verbs=[2], unseen=np.zeros(4, bool))
    assert epic_accuracies(verb[:0], noun[:0], verbs[:0], nouns[:0]) == {}


def test_probabilities_are_not_taken_for_logits() -> None:
    verb, noun = RNG.normal(size=(30, 9)) * 3, RNG.normal(size=(30, 12)) * 3
    for pair, name in (((softmax(verb), noun), "verb"), ((verb, softmax(noun)), "noun")):
        with pytest.raises(ValueError, match=rf"the {name} scores are probabilities"):
            best_actions(*pair, 5)
    back = best_actions(log_scores(softmax(verb)), log_scores(softmax(noun)), 5)
    assert np.array_equal(back, best_actions(verb, noun, 5))
    assert np.isfinite(log_scores(np.array([0.0, 1.0]))).all()


# Cameras

PREDICTED = np.array([1, 1, 2, 4, 4, 7])
INSTANT = np.array([0, 0, 0, 1, 1, 2])
CAMERA = np.array(["a", "b", "c", "b", "a", "a"])


def test_cameras_agree_by_instants_and_by_pairs() -> None:
    assert consistency(PREDICTED, INSTANT, CAMERA) == pytest.approx({"instants": 1 / 2, "pairs": 2 / 4})
    assert consistency_of_pairs(PREDICTED, INSTANT, CAMERA) == {
        ("a", "b"): (1.0, 2),
        ("a", "c"): (0.0, 1),
        ("b", "c"): (0.0, 1),
    }
    order = RNG.permutation(6)
    shuffled = PREDICTED[order], INSTANT[order], CAMERA[order]
    assert consistency(*shuffled) == consistency(PREDICTED, INSTANT, CAMERA)
    assert consistency_of_pairs(*shuffled) == consistency_of_pairs(PREDICTED, INSTANT, CAMERA)


def test_pairs_weigh_by_their_number_and_instants_alike() -> None:
    predicted = np.array([5, 5, 5, 5, 1, 2])
    assert consistency(predicted, np.array([0, 0, 0, 0, 1, 1]), np.array([*"abcdab"])) == {
        "instants": 0.5,
        "pairs": pytest.approx(6 / 7),
    }


def test_instants_of_one_camera_do_not_count() -> None:
    assert consistency(PREDICTED, np.arange(6), CAMERA) == {}
    assert consistency_of_pairs(PREDICTED, np.arange(6), CAMERA) == {}
    assert consistency(PREDICTED[:0], INSTANT[:0], CAMERA[:0]) == {}
    with pytest.raises(ValueError, match="instant 0 has two predictions of one camera"):
        consistency(PREDICTED[:3], INSTANT[:3], np.array(["a", "b", "a"]))


def test_accuracy_by_cameras_that_training_saw() -> None:
    right = PREDICTED != 1
    assert by_camera_set(right, CAMERA, {"a", "x"}) == pytest.approx({"seen": 2 / 3, "held_out": 2 / 3})
    assert by_camera_set(right, CAMERA, {"a", "b", "c"}) == {"seen": right.mean()}
    assert by_camera_set(right, CAMERA, set()) == {"held_out": right.mean()}
