"""AE2 task 3, phase progression: a linear regression from a frame to how far it is from each phase's end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from crossview.downstream.frame_table import FrameTable
from crossview.errors import UserError

FRAME_SCALE = 1e-3


def targets(labels: np.ndarray, phases: int) -> np.ndarray:
    """Targets (L, K) of one video from its labels (L,).

    ``(t - t_c) / L`` with t_c the last frame of phase c; NaN where c is absent.
    """
    length = len(labels)
    out = np.full((length, phases), np.nan)
    for phase in range(phases):
        (shown,) = np.nonzero(labels == phase)
        if len(shown):
            out[:, phase] = (np.arange(length) - shown[-1]) / length
    return out


@dataclass(frozen=True)
class Progression:
    """Regressions of one split, and what is said where they fit no phase of another."""

    models: list[tuple[LinearRegression, list[int]]]
    """Each with the phases that it solves for: those that the same frames show."""
    time_column: bool
    labels: list[int]
    """Phases of the split."""

    def predict(self, test: FrameTable) -> dict[int, np.ndarray]:
        """Predicted targets (N,) by phase."""
        vectors = _inputs(test, self.time_column)
        found: dict[int, np.ndarray] = {}
        for model, phases in self.models:
            found |= dict(zip(phases, model.predict(vectors).T, strict=True))
        return found


def fit_progression(train: FrameTable, *, time_column: bool = False) -> Progression:
    """One least-squares regression per phase on all frames of both views whose video shows the phase.

    `time_column` appends 1e-3 times the frame index to the vectors; the benchmark does so for pour_liquid, and in no
    other task.
    """
    fit_targets, vectors = _split_targets(train), _inputs(train, time_column)
    shared: dict[bytes, list[int]] = {}  # phases that the same frames show are solved for together
    for phase in range(fit_targets.shape[1]):
        mask = ~np.isnan(fit_targets[:, phase])
        if mask.any():
            shared.setdefault(mask.tobytes(), []).append(phase)
    models = []
    for group in shared.values():
        mask = ~np.isnan(fit_targets[:, group[0]])
        models.append((LinearRegression().fit(vectors[mask], fit_targets[mask][:, group]), group))
    return Progression(models, time_column, np.unique(train.labels).tolist())


def mean_r2(progression: Progression, predicted: dict[int, np.ndarray], test: FrameTable) -> float:
    """Unweighted mean over phases of R^2 on `test`, at most 1 and without a lower bound.

    A phase that one of the splits never shows has no score. Raises ValueError if none is left.
    """
    test_targets = _split_targets(test)
    scores = []
    for phase in sorted(predicted):
        if phase >= test_targets.shape[1] or np.isnan(test_targets[:, phase]).all():
            continue
        scored = ~np.isnan(test_targets[:, phase])
        scores.append(r2_score(test_targets[scored, phase], predicted[phase][scored]))
    if not scores:
        raise UserError(
            f"phase progression: no phase occurs both in the train split (phases {progression.labels}) "
            f"and in the evaluated one ({np.unique(test.labels).tolist()}); both must be labelled with the same phases"
        )
    return float(np.mean(scores))


def progression_r2(train: FrameTable, test: FrameTable, *, time_column: bool = False) -> float:
    """`mean_r2` of regressions fitted on `train`."""
    progression = fit_progression(train, time_column=time_column)
    return mean_r2(progression, progression.predict(test), test)


def _split_targets(e: FrameTable) -> np.ndarray:
    """(N, K) with K counted in the split, as the benchmark does."""
    phases = int(e.labels.max()) + 1
    return np.concatenate([targets(e.labels[rows], phases) for rows in e.video_slices()])


def _inputs(e: FrameTable, time_column: bool) -> np.ndarray:
    vectors = e.vectors.astype(np.float64)
    return np.column_stack([vectors, FRAME_SCALE * e.frame]) if time_column else vectors
