"""AE2 task 4, Kendall's tau: whether the nearest frames in another video come in the same order."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from scipy.spatial.distance import cdist

from crossview.downstream.frame_table import FrameTable

STRIDE = 5


def tau_b(neighbours: np.ndarray) -> float:
    """Kendall's tau-b between 0..n-1 and `neighbours` (n,); NaN where all are equal or n < 2."""
    earlier, later = np.triu_indices(len(neighbours), 1)
    signs = np.sign(neighbours[later] - neighbours[earlier])
    untied = np.count_nonzero(signs)
    return float(signs.sum() / np.sqrt(len(signs) * untied)) if untied else float("nan")


def kendall_tau(e: FrameTable, *, stride: int = STRIDE) -> float:
    """Mean tau-b over all ordered pairs of different videos, both views mixed, on every `stride`-th frame.

    A pair whose neighbours are all one frame has no tau and is left out; where that is so for every pair, as for a
    constant embedding, nothing is ordered and the answer is 0.
    """
    sampled = [e.vectors[rows][::stride].astype(np.float64) for rows in e.video_slices()]
    edges = np.cumsum([0, *map(len, sampled)])
    gallery = np.concatenate(sampled)
    taus = []
    for i, queries in enumerate(sampled):
        distances = cdist(queries, gallery, "sqeuclidean")  # direct differences: equal frames tie exactly
        for j, (start, end) in enumerate(pairwise(edges)):
            if j != i:
                taus.append(tau_b(distances[:, start:end].argmin(1)))
    values = np.array([tau for tau in taus if not math.isnan(tau)])
    return float(values.mean()) if len(values) else 0.0
