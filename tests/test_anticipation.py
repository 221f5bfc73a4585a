"""Action anticipation against the facts of the benchmark and the defects of its code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crossview.downstream.anticipation.frames import kept_segments, observed_frames, recent_ranges, spanning_ranges
from crossview.downstream.anticipation.metrics import class_mean_recall, in_top_k
from crossview.downstream.anticipation.options import Network, Past
from crossview.downstream.anticipation.tempagg import TempAgg

HEADS = {"verb": 17, "noun": 90, "action": 1064}


@pytest.mark.parametrize(
    ("features", "attention", "count"),
    [(2048, False, 182_121_060), (2048, True, 207_387_276), (512, False, 56_291_940), (512, True, 62_683_788)],
)
def test_parameters(features: int, attention: bool, count: int) -> None:
    with torch.device("meta"):
        model = TempAgg(features, HEADS, network=Network(past_attention=attention))
    assert sum(p.numel() for p in model.parameters()) == count


def test_alpha_is_exactly_30_frames_for_every_start() -> None:
    starts = np.arange(90, 30_000)
    frames, mask = observed_frames(Past(), starts, fps=30, count=40_000)
    assert frames.shape[1] == Past().frames == 181
    assert (starts - frames[:, -1] == 30).all()
    assert mask[:, -61:].all()


def test_starts_below_90_are_dropped() -> None:
    kept = kept_segments(Past(), np.array([89, 90]), fps=30, count=1000)
    assert kept.tolist() == [False, True]


def test_snippets_take_678_frames_of_181() -> None:
    sets = [*spanning_ranges(Past()), *recent_ranges(Past())]
    assert sum(last - first + 1 for snippets in sets for first, last in snippets) == 678


def test_recall_of_the_seeded_case() -> None:
    random = np.random.RandomState(0)
    scores, labels = random.randn(200, 20), random.randint(0, 12, 200)
    assert class_mean_recall(scores, labels) == pytest.approx(0.20489223, abs=1e-8)
    assert class_mean_recall(scores, labels, k=1) == pytest.approx(0.06321001, abs=1e-8)
    assert in_top_k(scores, labels).mean() == pytest.approx(0.21)


def test_of_equal_scores_the_lower_class_is_first() -> None:
    assert in_top_k(np.zeros((3, 8)), np.array([0, 4, 5])).tolist() == [True, True, False]


def test_a_batch_of_one_and_a_mask() -> None:
    torch.manual_seed(0)
    model = TempAgg(8, {"verb": 3}, network=Network(latent=8, width=8)).eval()
    frames, mask = torch.rand(2, 181, 8), torch.ones(2, 181, dtype=torch.bool)
    mask[0, :120] = False
    both = model(frames, mask).logits["verb"]
    alone = model(frames[:1], mask[:1]).logits["verb"]
    assert alone.shape == (1, 3)
    torch.testing.assert_close(alone, both[:1])
    frames[0, :120] = 1e4
    torch.testing.assert_close(model(frames, mask).logits["verb"], both)
