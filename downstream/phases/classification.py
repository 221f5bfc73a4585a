"""AE2 task 1, phase classification: an SVM on frame embeddings (AE2, arXiv 2306.05526, section 4)."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import f1_score

from crossview.downstream.frame_table import FrameTable
from crossview.downstream.phases import svm
from crossview.downstream.phases.svm import Classifier


def fit_classifiers(train: FrameTable) -> dict[str, Classifier]:
    """The machines of `phase_f1`'s three scores.

    They are fitted on different frames, and gamma depends on their variance: nothing is shared.
    """
    train.require_both_perspectives("phase classification")
    frames = {"regular": np.ones(len(train), bool), "ego2exo": train.is_ego, "exo2ego": ~train.is_ego}
    return {name: svm.fit(train.vectors[fitted], train.labels[fitted]) for name, fitted in frames.items()}


def predict_phases(classifiers: dict[str, Classifier], test: FrameTable) -> dict[str, np.ndarray]:
    """Labels of the frames that each machine is scored on, in order."""
    return {name: classifiers[name](test.vectors[scored]) for name, scored in _scored(test).items()}


def weighted_f1(predicted: dict[str, np.ndarray], test: FrameTable) -> dict[str, float]:
    """Weighted F1 on `test`.

    "regular" fits and scores both views, "ego2exo" fits ego and scores exo, "exo2ego" the reverse.
    """
    return {
        name: float(f1_score(test.labels[scored], predicted[name], average="weighted"))
        for name, scored in _scored(test).items()
    }


def phase_f1(train: FrameTable, test: FrameTable) -> dict[str, float]:
    """`weighted_f1` of machines fitted on `train`."""
    return weighted_f1(predict_phases(fit_classifiers(train), test), test)


def _scored(test: FrameTable) -> dict[str, np.ndarray]:
    test.require_both_perspectives("phase classification")
    return {"regular": np.ones(len(test), bool), "ego2exo": ~test.is_ego, "exo2ego": test.is_ego}
