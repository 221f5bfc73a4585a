"""Class-mean top-k recall, with every view as an instance and with the views of a segment fused.

Damen et al., Rescaling Egocentric Vision (2022), section 4.3, as Assembly101 (Sener et al., CVPR 2022) uses it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crossview.errors import UserError

ROWS = 4096
"""Rows of scores that are compared at once."""


class Recall(NamedTuple):
    """A class-mean recall as a share of 1, and the number of predictions that it judges."""

    value: float
    predictions: int


def in_top_k(scores: np.ndarray, labels: np.ndarray, *, k: int = 5) -> np.ndarray:
    """Whether the label is among the k highest scores: (N, C) and int (N,) -> bool (N,).

    Of equal scores the lower class id counts as the higher, so that the result is a function of the scores.
    """
    if k < 1:
        raise UserError(f"top-k recall: k is {k}; it must be at least 1 (the benchmark uses 5)")
    N, C = scores.shape
    if labels.shape != (N,) or (N and not 0 <= labels.min() <= labels.max() < C):
        raise ValueError(f"labels of shape {labels.shape} do not number {C} classes for {N} rows of scores")
    hits = np.empty(N, dtype=bool)
    ids = np.arange(C)
    for begin in range(0, N, ROWS):
        rows = slice(begin, begin + ROWS)
        if np.isnan(scores[rows]).any():
            raise UserError("scores contain nan: the model has diverged; score an earlier checkpoint")
        label = labels[rows, None]
        own = np.take_along_axis(scores[rows], label, axis=1)
        ahead = (scores[rows] > own) | ((scores[rows] == own) & (ids < label))  # (rows, C)
        hits[rows] = ahead.sum(1) < k
    return hits


def class_mean_recall(
    scores: np.ndarray, labels: np.ndarray, *, k: int = 5, classes: np.ndarray | None = None
) -> float | None:
    """Mean over classes of the share of their rows that `in_top_k` finds: (N, C) and (N,) -> a share of 1.

    Classes without a row are left out, as are those not in `classes`, ids such as those of the tail; None without any.
    """
    return _class_mean(in_top_k(scores, labels, k=k), labels, classes)


def _class_mean(hits: np.ndarray, labels: np.ndarray, classes: np.ndarray | None) -> float | None:
    if classes is not None:
        chosen = np.isin(labels, classes)
        hits, labels = hits[chosen], labels[chosen]
    if not len(labels):
        return None
    counts = np.bincount(labels)
    found = np.bincount(labels, weights=hits)
    return float((found[counts > 0] / counts[counts > 0]).mean())


def overall(
    scores: np.ndarray,
    labels: np.ndarray,
    perspectives: np.ndarray,
    *,
    k: int = 5,
    samples: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> dict[str, Recall]:
    """Recall with each view of a segment as an instance of its own: "ego", "exo" and "all" views.

    scores (N, C), labels int (N,), perspectives "ego" or "exo" (N,). `samples`, bool (N,), restricts it to instances,
    such as those of unseen toys; `classes` to class ids. A row without any instance is left out.
    """
    hits = in_top_k(scores, labels, k=k)
    rows = _rows(perspectives, samples)
    return _recalls({name: (hits[chosen], labels[chosen]) for name, chosen in rows.items()}, classes)


def fused(
    scores: np.ndarray,
    labels: np.ndarray,
    segments: np.ndarray,
    perspectives: np.ndarray,
    *,
    k: int = 5,
    samples: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> dict[str, Recall]:
    """Recall with one prediction per segment, the mean of its views' scores: of "ego", "exo" and "all" views.

    As `overall`, with the id of each instance's segment (N,). A segment that lacks some of the views is scored on the
    others.
    """
    parts = {}
    for name, chosen in _rows(perspectives, samples).items():
        mean, truth = fuse_views(scores, labels, segments, np.flatnonzero(chosen))
        parts[name] = in_top_k(mean, truth, k=k), truth
    return _recalls(parts, classes)


def fuse_views(
    scores: np.ndarray, labels: np.ndarray, segments: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores and label of each segment that the rows (R,) belong to, by id: float64 (S, C) and int (S,)."""
    ids, first, segment = np.unique(segments[rows], return_index=True, return_inverse=True)
    truth = labels[rows][first]
    if (wrong := labels[rows] != truth[segment]).any():
        raise UserError(
            f"views of segment {ids[segment[wrong][0]]} have different labels; a segment has one: give each its own id"
        )
    counts = np.bincount(segment, minlength=len(ids))
    order = np.argsort(segment, kind="stable")
    turn = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)  # number of the view in its segment
    mean = np.zeros((len(ids), scores.shape[1]))
    for view in range(counts.max(initial=0)):
        part = order[turn == view]
        mean[segment[part]] += scores[rows[part]]
    return mean / counts[:, None], truth


def _rows(perspectives: np.ndarray, samples: np.ndarray | None) -> dict[str, np.ndarray]:
    ego, exo = perspectives == "ego", perspectives == "exo"
    if not (ego | exo).all():
        raise ValueError(f"perspectives are {sorted(set(perspectives.tolist()))}; each must be ego or exo")
    chosen = np.ones(len(ego), dtype=bool) if samples is None else samples
    return {"ego": ego & chosen, "exo": exo & chosen, "all": chosen}


def _recalls(parts: dict[str, tuple[np.ndarray, np.ndarray]], classes: np.ndarray | None) -> dict[str, Recall]:
    out = {}
    for name, (hits, labels) in parts.items():
        value = _class_mean(hits, labels, classes)
        if value is not None:
            judged = len(labels) if classes is None else int(np.isin(labels, classes).sum())
            out[name] = Recall(value, judged)
    return out
