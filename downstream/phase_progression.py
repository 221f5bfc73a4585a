"""AE2 task 3, phase progression: a linear regression from a frame to how far it is from each phase's end."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from crossview.downstream.embeddings import Embeddings

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


def progression_r2(train: Embeddings, test: Embeddings, *, time_column: bool = False) -> float:
    """Unweighted mean over phases of R^2 on `test`, at most 1 and without a lower bound.

    One least-squares regression per phase on all `train` frames of both views whose video shows the phase. A phase that
    one of the splits never shows has no score. `time_column` appends 1e-3 times the frame index to the vectors; the
    benchmark does so for pour_liquid, and in no other task.
    """
    fit_targets, test_targets = _split_targets(train), _split_targets(test)
    fit_vectors, test_vectors = _inputs(train, time_column), _inputs(test, time_column)
    phases = min(fit_targets.shape[1], test_targets.shape[1])
    shared: dict[bytes, list[int]] = {}  # phases that the same train frames show are solved for together
    for phase in range(phases):
        mask = ~np.isnan(fit_targets[:, phase])
        if mask.any() and not np.isnan(test_targets[:, phase]).all():
            shared.setdefault(mask.tobytes(), []).append(phase)
    if not shared:
        raise ValueError(
            f"phase progression: no phase occurs both in the train split (phases {np.unique(train.labels).tolist()}) "
            f"and in the evaluated one ({np.unique(test.labels).tolist()}); both must be labelled with the same phases"
        )
    scores = []
    for group in shared.values():
        mask = ~np.isnan(fit_targets[:, group[0]])
        model = LinearRegression().fit(fit_vectors[mask], fit_targets[mask][:, group])
        predicted = model.predict(test_vectors)
        for column, phase in enumerate(group):
            scored = ~np.isnan(test_targets[:, phase])
            scores.append(r2_score(test_targets[scored, phase], predicted[scored, column]))
    return float(np.mean(scores))


def _split_targets(e: Embeddings) -> np.ndarray:
    """(N, K) with K counted in the split, as the benchmark does."""
    phases = int(e.labels.max()) + 1
    return np.concatenate([targets(e.labels[rows], phases) for rows in e.video_slices()])


def _inputs(e: Embeddings, time_column: bool) -> np.ndarray:
    vectors = e.vectors.astype(np.float64)
    return np.column_stack([vectors, FRAME_SCALE * e.frame]) if time_column else vectors
