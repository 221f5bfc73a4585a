"""Metrics of temporal action segmentation: frame-wise accuracy, Edit and segmental F1, in percent.

Farha and Gall, CVPR 2019, section 4; Lea et al., CVPR 2017, for Edit and F1. A frame without a label (below 0) in the
truth, and one that the prediction lacks (past its end, or below 0), is taken out of both as though never filmed:
what is left on either side joins. `coverage` tells how many annotated frames that leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

OVERLAPS = (0.10, 0.25, 0.50)
"""The intersections over union from which on a segment counts as found."""
F1 = tuple(f"f1@{round(100 * overlap)}" for overlap in OVERLAPS)


@dataclass(frozen=True)
class Runs:
    """Maximal stretches of one label, in order: label, start and end (first frame after it), each int64 (N,)."""

    label: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


def runs(labels: np.ndarray) -> Runs:
    """The run lengths of frame labels (T,)."""
    labels = np.asarray(labels, dtype=np.int64)
    edges = np.r_[0, np.flatnonzero(labels[1:] != labels[:-1]) + 1, len(labels)] if len(labels) else np.zeros(1, int)
    return Runs(labels[edges[:-1]], edges[:-1], edges[1:])


def edit(truth: Runs, predicted: Runs) -> float:
    """100 times (1 - Levenshtein distance of the labels over the longer sequence); two empty ones are equal, 100."""
    longer = max(len(truth), len(predicted))
    return 100 * (1 - int(_levenshtein(truth.label, predicted.label)) / longer) if longer else 100.0


@njit(cache=True)
def _levenshtein(a: np.ndarray, b: np.ndarray) -> int:
    row = np.arange(len(b) + 1)  # distances of what is read of a to every start of b
    for i in range(len(a)):
        corner, row[0] = row[0], i + 1
        for j in range(len(b)):
            above = row[j + 1]
            row[j + 1] = min(min(above, row[j]) + 1, corner + (a[i] != b[j]))
            corner = above
    return int(row[-1])


def found(truth: Runs, predicted: Runs, overlaps: Sequence[float] = OVERLAPS) -> np.ndarray:
    """True positives at each overlap, int64 (K,), of runs of the same frames.

    A predicted segment claims the true one of its label with the greatest intersection over union, the first of
    equals, even if an earlier segment has claimed it; it never takes the next best. So a true segment is found if any
    segment that claims it overlaps enough, all others are false positives.
    """
    starts = np.union1d(truth.start, predicted.start)  # between two neighbours there is one segment of each
    t = np.searchsorted(truth.start, starts, side="right") - 1
    p = np.searchsorted(predicted.start, starts, side="right") - 1
    same = truth.label[t] == predicted.label[p] if len(truth) and len(predicted) else np.zeros(0, bool)
    t, p = t[: len(same)][same], p[: len(same)][same]
    shared = np.minimum(truth.end[t], predicted.end[p]) - np.maximum(truth.start[t], predicted.start[p])
    hull = np.maximum(truth.end[t], predicted.end[p]) - np.minimum(truth.start[t], predicted.start[p])
    iou = shared / hull  # of segments that overlap, the hull is the union
    order = np.lexsort((t, -iou, p))
    claims = order[np.r_[True, np.diff(p[order]) > 0]] if len(order) else order  # the best of each predicted segment
    return np.array([len(np.unique(t[claims][iou[claims] >= overlap])) for overlap in overlaps], dtype=np.int64)


@dataclass(frozen=True)
class Counts:
    """What the metrics of one video are made of."""

    annotated: int
    """Frames with a label."""
    scored: int
    """Of these, frames with a prediction."""
    correct: int
    edit: float
    found: np.ndarray
    """True positives at each of `OVERLAPS`, int64 (3,)."""
    true_segments: int
    predicted_segments: int

    @property
    def judged(self) -> int:
        """Frames that accuracy is over: those scored, or all that are annotated where nothing was predicted."""
        return self.scored or self.annotated


def count(truth: np.ndarray, prediction: np.ndarray) -> Counts:
    """Counts of a video from labels per frame, int (T,) and int (up to T,).

    A shorter prediction is that of a truncated view: the truth is cut, never stretched. A video of which nothing is
    predicted is wrong throughout: its accuracy, Edit and F1 are 0. Raises ValueError for a longer prediction.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.ndim != 1 or prediction.ndim != 1 or len(prediction) > len(truth):
        raise ValueError(
            f"a prediction of shape {prediction.shape} for labels of shape {truth.shape}: both must be one label per "
            "frame, the prediction no longer than the labels"
        )
    annotated = int(np.count_nonzero(truth >= 0))
    start = truth[: len(prediction)]
    kept = (start >= 0) & (prediction >= 0)
    scored = int(np.count_nonzero(kept))
    if scored == 0:
        missed = len(runs(truth[truth >= 0]))
        return Counts(annotated, 0, 0, 0.0 if annotated else 100.0, np.zeros(len(OVERLAPS), np.int64), missed, 0)
    a, b = start[kept], prediction[kept]
    true, predicted = runs(a), runs(b)
    correct = int(np.count_nonzero(a == b))
    return Counts(annotated, scored, correct, edit(true, predicted), found(true, predicted), len(true), len(predicted))


def f1(found: np.ndarray, true_segments: int, predicted_segments: int) -> np.ndarray:
    """100 times 2 TP / (segments in truth + segments predicted); 0 where there are neither."""
    return 200 * np.asarray(found) / max(true_segments + predicted_segments, 1)


def scores(videos: Sequence[Counts]) -> dict[str, float]:
    """Metrics over videos; those without an annotated frame are left out. Raises ValueError if that is all of them.

    "accuracy" and "f1@10", ... are of the frames and segments of all videos together, "edit" is a mean over videos,
    and "mean" that of these five. "per_video/..." averages each video's own scores. "coverage" is the share of the
    annotated frames that are scored, from 0 to 1.
    """
    videos = [video for video in videos if video.annotated]
    if not videos:
        raise ValueError("segmentation metrics: no video has an annotated frame; there is nothing to score")
    total = {
        name: np.sum([getattr(video, name) for video in videos], axis=0)
        for name in ("annotated", "scored", "correct", "judged", "found", "true_segments", "predicted_segments")
    }
    distance = float(np.mean([video.edit for video in videos]))
    pooled = _named(
        100 * total["correct"] / total["judged"],
        distance,
        f1(total["found"], total["true_segments"], total["predicted_segments"]),
    )
    per_video = _named(
        float(np.mean([100 * video.correct / video.judged for video in videos])),
        distance,
        np.mean([f1(video.found, video.true_segments, video.predicted_segments) for video in videos], axis=0),
    )
    own = {f"per_video/{name}": value for name, value in per_video.items()}
    return pooled | own | {"coverage": float(total["scored"] / total["annotated"])}


def _named(accuracy: float, edit: float, f1: np.ndarray) -> dict[str, float]:
    values = {"accuracy": float(accuracy), "edit": edit} | {n: float(v) for n, v in zip(F1, f1, strict=True)}
    return values | {"mean": float(np.mean(list(values.values())))}
