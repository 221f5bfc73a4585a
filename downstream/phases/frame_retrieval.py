"""AE2 task 2, frame retrieval: whether a frame's nearest neighbours in other videos show its phase."""

from __future__ import annotations

import numpy as np

from crossview.downstream.frame_table import FrameTable
from crossview.downstream.neighbours import nearest
from crossview.errors import UserError


def average_precision(hits: np.ndarray) -> np.ndarray:
    """AP of each query from the relevance of its neighbours, nearest first: bool (Q, k) -> (Q,).

    ``sum_r P@r rel_r / (relevant among the k)``, 0 where none is relevant (AE2; the denominator is not the number of
    relevant frames in the gallery).
    """
    counts = np.cumsum(hits, axis=1)
    precision = counts / np.arange(1, hits.shape[1] + 1)
    relevant = counts[:, -1]
    return (precision * hits).sum(1) / np.maximum(relevant, 1)


def retrieval_map(e: FrameTable, *, k: int = 10) -> dict[str, float]:
    """mAP@k with every frame as a query against the frames of the other videos of the same split.

    "regular" searches all other videos, "ego2exo" asks with ego frames among exo frames, "exo2ego" the reverse. A query
    with fewer than k candidates is scored on those that it has.
    """
    if k < 1:
        raise UserError(f"frame retrieval: k is {k}; it must be at least 1 (the benchmark uses 5, 10 and 15)")
    e.require_both_perspectives("frame retrieval")
    everything = np.ones(len(e), dtype=bool)
    directions = {
        "regular": (everything, everything),
        "ego2exo": (e.is_ego, ~e.is_ego),
        "exo2ego": (~e.is_ego, e.is_ego),
    }
    return {name: _map(e, queries, gallery, k) for name, (queries, gallery) in directions.items()}


def _map(e: FrameTable, queries: np.ndarray, gallery: np.ndarray, k: int) -> float:
    found = nearest(e.vectors[queries], e.vectors[gallery], e.video[queries], e.video[gallery], k)  # (Q, k)
    hits = (e.labels[gallery][found] == e.labels[queries][:, None]) & (found >= 0)
    return float(average_precision(hits).mean())
