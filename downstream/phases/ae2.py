"""AE2's four tasks on one pair of splits (Xue and Grauman, arXiv 2306.05526; BYOV is scored with them too)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crossview.downstream.frame_table import FrameTable
from crossview.downstream.phases.classification import fit_classifiers, predict_phases, weighted_f1
from crossview.downstream.phases.frame_retrieval import retrieval_map
from crossview.downstream.phases.kendall_tau import kendall_tau
from crossview.downstream.phases.progression import Progression, fit_progression, mean_r2
from crossview.downstream.phases.svm import Classifier
from crossview.errors import UserError


@dataclass(frozen=True)
class Fitted:
    """What is fitted on one split."""

    train: FrameTable
    classifiers: dict[str, Classifier]
    progression: Progression


@dataclass(frozen=True)
class Predicted:
    """What is predicted of another split."""

    fitted: Fitted
    test: FrameTable
    labels: dict[str, np.ndarray]
    progress: dict[int, np.ndarray]
    k: int

    @cached_property
    def scores(self) -> dict[str, float]:
        """All scores by name, higher is better: phase_f1/*, map@k/*, progression_r2, kendall_tau.

        Retrieval and Kendall's tau do not read the fitted split.
        """
        scores = {f"phase_f1/{name}": value for name, value in weighted_f1(self.labels, self.test).items()}
        scores |= {f"map@{self.k}/{name}": value for name, value in retrieval_map(self.test, k=self.k).items()}
        scores["progression_r2"] = mean_r2(self.fitted.progression, self.progress, self.test)
        scores["kendall_tau"] = kendall_tau(self.test)
        return scores


def fit(train: FrameTable, *, time_column: bool = False) -> Fitted:
    """`time_column` belongs to pour_liquid and enters phase progression only."""
    train.require_both_perspectives("AE2 evaluation, train split")
    return Fitted(train, fit_classifiers(train), fit_progression(train, time_column=time_column))


def predict(fitted: Fitted, test: FrameTable, *, k: int = 10) -> Predicted:
    """Raises ValueError if widths differ or a perspective is missing."""
    if fitted.train.dim != test.dim:
        raise UserError(
            f"AE2 evaluation: train vectors have width {fitted.train.dim}, evaluated ones {test.dim}; both splits must "
            "be embedded by one model: embed them again with the same checkpoint"
        )
    test.require_both_perspectives("AE2 evaluation, evaluated split")
    return Predicted(fitted, test, predict_phases(fitted.classifiers, test), fitted.progression.predict(test), k)


def evaluate(train: FrameTable, test: FrameTable, *, time_column: bool = False, k: int = 10) -> dict[str, float]:
    """`Predicted.scores` of one split after fitting on another."""
    return predict(fit(train, time_column=time_column), test, k=k).scores
