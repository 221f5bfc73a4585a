"""Few-shot phase classification: the SVM of task 1 fitted on a few whole train videos (AE2's code, views mixed)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.metrics import f1_score

from crossview.downstream.frame_table import FrameTable
from crossview.downstream.phases.svm import fit_predict

Shots = int | Literal["half", "all"]
SHOTS: tuple[Shots, ...] = (1, 2, 3, 5, 10, "half", "all")
FIRST_SEED = 42


@dataclass(frozen=True)
class FewShot:
    """The scores of all draws of one number of videos."""

    videos: int
    draws: int
    f1: float
    """Mean over draws of the weighted F1 on the evaluated split."""
    f1_std: float
    """Population standard deviation over draws, as the benchmark prints it."""
    unselected_accuracy: float
    """Mean accuracy on the frames of the train videos that were not drawn; NaN where all were."""


def few_shot(
    train: FrameTable, test: FrameTable, *, shots: Sequence[Shots] = SHOTS, draws: int = 50, draws_of_half: int = 10
) -> dict[str, FewShot]:
    """Scores by number of train videos ("1", ..., "half", "all"); numbers above the available videos are left out.

    Draw i is ``random.Random(42 + i).sample`` over the train videos in their order; "all" has a single draw. A draw
    that shows one phase only predicts that phase.
    """
    out = {}
    for shot in shots:
        total = len(train.videos)
        count = {"half": total // 2, "all": total}[shot] if isinstance(shot, str) else shot
        if not 1 <= count <= total:
            continue
        repeats = {"half": draws_of_half, "all": 1}[shot] if isinstance(shot, str) else draws
        results = np.array([_draw(train, test, count, FIRST_SEED + i) for i in range(repeats)])
        f1, accuracy = results.T
        out[str(shot)] = FewShot(count, repeats, float(f1.mean()), float(f1.std()), float(accuracy.mean()))
    return out


def _draw(train: FrameTable, test: FrameTable, count: int, seed: int) -> tuple[float, float]:
    """Weighted F1 on `test` and accuracy on the train videos left out."""
    drawn = random.Random(seed).sample(range(len(train.videos)), count)
    selected = np.isin(train.video, drawn)
    predicted, rest = fit_predict(
        train.vectors[selected], train.labels[selected], test.vectors, train.vectors[~selected]
    )
    accuracy = float((rest == train.labels[~selected]).mean()) if len(rest) else float("nan")
    return float(f1_score(test.labels, predicted, average="weighted")), accuracy
