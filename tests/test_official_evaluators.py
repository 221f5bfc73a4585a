"""Scores of seeded input that the released evaluation code of each benchmark gives, to 1e-6.

The numbers come from running that code once, outside this repository: its numpy parts, on the arrays that are drawn
here.
"""

from __future__ import annotations

import numpy as np
import pytest
from downstream_samples import table

from crossview.downstream.frame_table import FrameTable
from crossview.downstream.phases.ae2 import evaluate
from crossview.downstream.phases.few_shot import few_shot
from crossview.downstream.phases.progression import progression_r2
from crossview.downstream.recognition.epic_metrics import epic_accuracies
from crossview.downstream.recognition.metrics import mean_average_precision
from crossview.downstream.segmentation.metrics import count, scores


def test_segmentation_has_the_numbers_of_the_assembly101_benchmark() -> None:
    """utils.py of assembly-101/assembly101-temporal-action-segmentation, over all videos and of each video alone."""
    random = np.random.RandomState(0)
    videos = []
    for _ in range(12):
        truth = np.repeat(random.randint(0, 6, 25), random.randint(1, 40, 25))
        predicted = truth.copy()
        for _ in range(12):
            start = random.randint(len(truth))
            predicted[start : start + random.randint(1, 30)] = random.randint(0, 6)
        videos.append(count(truth, predicted))
    found = scores(videos)
    expected = {
        "accuracy": 75.49647661755284,
        "edit": 60.02535689858388,
        "f1@10": 72.08931419457734,
        "f1@25": 67.62360446570972,
        "f1@50": 57.41626794258373,
        "per_video/accuracy": 75.4829235864227,
        "per_video/f1@10": 71.95932515412203,
        "per_video/f1@25": 67.49380980719347,
        "per_video/f1@50": 57.43290326846451,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_actions_have_the_numbers_of_epic_kitchens() -> None:
    """utils/scoring.py and utils/metrics.py of epic-kitchens/C1-Action-Recognition."""
    random = np.random.RandomState(0)
    N = 500
    verbs, nouns = random.randint(0, 97, N), random.randint(0, 300, N)
    verb, noun = random.randn(N, 97), random.randn(N, 300)
    verb[np.arange(N), verbs] += 2.0
    noun[np.arange(N), nouns] += 2.5
    found = epic_accuracies(
        verb, noun, verbs, nouns, tail_verbs=range(40, 97), tail_nouns=range(120, 300), unseen=np.arange(N) % 7 == 0
    )
    expected = {
        "verb/top1": 0.316,
        "verb/top5": 0.59,
        "verb/tail/top1": 83 / 284,
        "verb/unseen/top1": 19 / 72,
        "noun/top1": 0.352,
        "noun/top5": 0.582,
        "noun/tail/top1": 105 / 299,
        "noun/unseen/top1": 32 / 72,
        "action/top1": 0.124,
        "action/top5": 0.258,
        "action/tail/top1": 3 / 23,
        "action/unseen/top1": 9 / 72,
    }
    assert found == pytest.approx(expected, abs=1e-6)


def test_average_precision_has_the_number_of_charades_ego() -> None:
    """`get_map` of facebookresearch/Ego-Exo and `nanmap` of gsig/actor-observer agree where no two scores are equal."""
    random = np.random.RandomState(0)
    scores = random.rand(300, 40)
    labels = random.rand(300, 40) < 0.06
    labels[:, 7] = False  # a class that no video shows
    labels[::9] = False  # videos that show none
    scores += 0.4 * labels * random.rand(300, 40)
    assert mean_average_precision(scores, labels)["map"] == pytest.approx(0.3174827336802348, abs=1e-6)


def ae2_split(seed: int, lengths: list[int], ego: list[int]) -> FrameTable:
    """Videos of four phases in turn, with features that show phase and time in noise."""
    random, phases, dim = np.random.RandomState(seed), 4, 6
    shown = np.random.RandomState(100).randn(phases, dim)
    labels = []
    for length in lengths:
        cuts = np.sort(random.choice(np.arange(1, length), phases - 1, replace=False))
        labels.append(np.searchsorted(cuts, np.arange(length), side="right"))
    time = np.concatenate([np.arange(length) / length for length in lengths])
    vectors = shown[np.concatenate(labels)] + 1.5 * random.randn(len(time), dim) + time[:, None]
    return table(lengths, np.concatenate(labels), vectors, ego)


def test_phases_have_the_numbers_of_ae2() -> None:
    """evaluation/*.py of zihuixue/AlignEgoExo; its few-shot scores with what its SVM returns unpacked as meant."""
    train, test = ae2_split(0, [61, 45, 70, 52, 38, 57], [0, 1, 2]), ae2_split(1, [40, 66, 51, 33], [0, 1])
    expected = {
        "phase_f1/regular": 0.5865939942317784,
        "phase_f1/ego2exo": 0.655575462027075,
        "phase_f1/exo2ego": 0.44875200800913456,
        "map@10/regular": 0.4686838093912029,
        "map@10/ego2exo": 0.4416193661252065,
        "map@10/exo2ego": 0.4476344703445752,
        "progression_r2": 0.2303922930312784,
        "kendall_tau": 0.09332884552099001,
    }
    assert evaluate(train, test) == pytest.approx(expected, abs=1e-6)
    assert progression_r2(train, test, time_column=True) == pytest.approx(0.6179426160324608, abs=1e-6)
    two = few_shot(train, test, shots=(2,), draws=5)["2"]
    assert (two.f1, two.f1_std) == pytest.approx((0.4740694038415132, 0.11535307605504025), abs=1e-6)
