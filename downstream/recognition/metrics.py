"""Scores of class predictions: accuracies for one class per sample, average precision for any number.

Scores are (N, C), labels class ids (N,) with -1 for a sample without one, which is left out, or multi-hot (N, C). Of
equal scores the lower class id ranks first. What has nothing to be measured on is left out of a result, never NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.metrics import average_precision_score

Fusion = Literal["mean", "max"]
"""How the scores of several views become one: the mean of softmaxes, or the maximum of sigmoids."""


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The k highest classes, best first: (N, C) -> int64 (N, min(k, C))."""
    return np.argsort(-_finite(scores), axis=1, kind="stable")[:, :k]


def hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether the label is among the k highest classes: bool (N,); False where there is no label."""
    _check(scores, labels)
    return (best(scores, k) == labels[:, None]).any(1)


def accuracies(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`top1`, `top5` and `mean_class`, the mean of `top1` over the classes that occur; empty without a labelled sample.

    Of at most five classes, where it would always be 1, there is no `top5`.
    """
    known = labels >= 0
    scores, labels = scores[known], labels[known]
    if not len(labels):
        return {}
    first = hits(scores, labels, 1)
    out = {"top1": float(first.mean())}
    if scores.shape[1] > 5:
        out["top5"] = float(hits(scores, labels, 5).mean())
    count = np.bincount(labels)
    out["mean_class"] = float((np.bincount(labels, first)[count > 0] / count[count > 0]).mean())
    return out


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Per class the area under precision over recall, as sklearn defines it: (N, C) and bool (N, C) -> float64 (C,).

    Samples of equal score are passed together, so their order changes nothing. NaN marks a class without positives.
    """
    scores, labels = _finite(scores), np.asarray(labels, dtype=bool)
    if scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape}; both must be (N, C)")
    out = np.full(labels.shape[1], np.nan)
    for c in np.flatnonzero(labels.any(0)):
        out[c] = average_precision_score(labels[:, c], scores[:, c])
    return out


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`map`, the mean over the classes that have positives, and their number, `classes`; empty if none has."""
    found = average_precisions(scores, labels)
    found = found[~np.isnan(found)]
    return {"map": float(found.mean()), "classes": float(len(found))} if len(found) else {}


def fuse(scores: np.ndarray, how: Fusion, shown: np.ndarray | None = None) -> np.ndarray:
    """One score per class from the probabilities of several views, each counting the same: (N, V, C) -> (N, C).

    `shown`, bool (N, V), marks the views that a sample has; by default all. Their order changes no bit of the result.
    Raises ValueError for a sample without a view.
    """
    scores = _finite(scores).astype(np.float64)
    shown = np.ones(scores.shape[:2], bool) if shown is None else shown
    if not shown.any(1).all():
        raise ValueError(f"samples {np.flatnonzero(~shown.any(1)).tolist()} have no view to fuse")
    if how == "max":
        return np.where(shown[:, :, None], scores, -np.inf).max(1)
    ordered = np.sort(np.where(shown[:, :, None], scores, 0.0), axis=1)  # the same sum for every order of the views
    return ordered.sum(1) / shown.sum(1, keepdims=True)


def log_scores(probabilities: np.ndarray) -> np.ndarray:
    """Logits whose softmax gives these probabilities back, for metrics that take logits: (..., C) -> the same shape."""
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape}; they must be (N, C) and (N,)")
    if len(labels) and not -1 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for {scores.shape[1]} classes; they must be class ids, or "
            "-1 for none"
        )


def _finite(scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise ValueError("scores contain NaN or infinity, which rank nowhere")
    return scores
