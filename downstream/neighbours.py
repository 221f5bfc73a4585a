"""Exact nearest neighbours by matrix products, equal distances in the gallery's order."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

SPARE = 6
CHUNK_ENTRIES = 1 << 22
DECIMALS = 10
"""Cosines are rounded to so many, so that equal vectors tie whatever the order of summation."""


def nearest(
    queries: np.ndarray, gallery: np.ndarray, query_video: np.ndarray, gallery_video: np.ndarray, k: int
) -> np.ndarray:
    """Gallery rows nearest to each query in Euclidean distance outside the query's video: int64 (Q, k), near to far.

    Queries (Q, D), gallery (G, D), videos (Q,) and (G,). Of equally distant rows the earlier comes first. Where fewer
    than k rows are outside the query's video, the rest of the line is -1.
    """
    queries, gallery = queries.astype(np.float64), gallery.astype(np.float64)
    out = np.full((len(queries), k), -1, dtype=np.int64)
    squares = (gallery * gallery).sum(1)
    step = max(1, CHUNK_ENTRIES // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        banned = query_video[rows, None] == gallery_video
        found = _nearest(queries[rows], gallery, squares, banned, k)
        out[rows, : found.shape[1]] = found
    return out


def _nearest(queries: np.ndarray, gallery: np.ndarray, squares: np.ndarray, banned: np.ndarray, k: int) -> np.ndarray:
    """Shortlist by |q|^2 + |g|^2 - 2 q.g, then order the shortlist by sums of squared differences.

    The expansion cancels, so equal distances may differ in it by rounding and a tie would fall at random. A shortlist
    that rounding could have cut wrongly is replaced by the whole gallery.
    """
    size = min(k + SPARE, len(gallery))
    query_squares = (queries * queries).sum(1)
    rough = queries @ gallery.T
    rough *= -2
    rough += query_squares[:, None]
    rough += squares
    rough[banned] = np.inf

    short = np.sort(np.argpartition(rough, size - 1, axis=1)[:, :size], axis=1)  # (Q, size), in the gallery's order
    exact = ((queries[:, None] - gallery[short]) ** 2).sum(-1)
    exact[np.take_along_axis(banned, short, axis=1)] = np.inf
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(short, order, axis=1)
    distance = np.take_along_axis(exact, order, axis=1)

    if size < len(gallery):
        rounding = 8 * (queries.shape[1] + 8) * np.finfo(np.float64).eps
        slack = rounding * (query_squares + squares.max())
        edge = np.take_along_axis(rough, short, axis=1).max(
            1
        )  # no row outside the shortlist is nearer than edge - slack
        for row in np.flatnonzero(~(distance[:, -1] + slack < edge)):
            whole = cdist(queries[row : row + 1], gallery, "sqeuclidean")[0]
            whole[banned[row]] = np.inf
            found[row] = np.argsort(whole, kind="stable")[: found.shape[1]]
            distance[row] = whole[found[row]]
    return np.where(np.isinf(distance), -1, found)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """float64 (N, D) of length 1; a zero vector stays, and is as near to all."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1.0)
