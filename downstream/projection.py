"""Data for the figures of an embedding: a map of frames of both views, and nearest frames across views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.manifold import TSNE

from crossview.downstream.frame_table import FrameTable
from crossview.downstream.neighbours import nearest
from crossview.errors import UserError


@dataclass(frozen=True)
class Projection:
    """Frames of an embedding table in the plane; colours follow from its labels and perspectives at `rows`."""

    points: np.ndarray
    """float32 (n, 2)."""
    rows: np.ndarray
    """int64 (n,), rows of the embedding table, rising."""


def tsne(e: FrameTable, *, frames: int = 1000, perplexity: float = 30.0, seed: int = 0) -> Projection:
    """t-SNE of at most `frames` frames drawn without replacement, half from each perspective where there are enough.

    Perplexity is lowered to (n - 1) / 3 where fewer frames are left. The same seed draws the same frames of equal
    tables, so two embeddings of one split can be compared.
    """
    rows = subsample(e, frames, seed)
    if len(rows) < 4:
        raise UserError(f"t-SNE: {len(rows)} frames (option frames={frames}); it takes at least 4 to make a map")
    vectors = e.vectors[rows].astype(np.float64)
    vectors -= vectors.mean(0)
    scale = vectors.std()
    start = "pca" if e.dim > 1 and scale > 0 else "random"
    model = TSNE(perplexity=min(perplexity, (len(rows) - 1) / 3), init=start, random_state=seed, n_jobs=1)
    return Projection(model.fit_transform(vectors / (scale or 1.0)).astype(np.float32), rows)


def subsample(e: FrameTable, frames: int, seed: int) -> np.ndarray:
    """At most `frames` rows, rising; the smaller perspective gives all that it has up to half."""
    ego, exo = np.flatnonzero(e.is_ego), np.flatnonzero(~e.is_ego)
    few, many = sorted((ego, exo), key=len)
    of_few = min(len(few), frames // 2)
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(few, of_few, replace=False), rng.choice(many, min(len(many), frames - of_few), replace=False)]
    return np.sort(np.concatenate(drawn))


def nearest_across_views(e: FrameTable, rows: np.ndarray, *, k: int = 1) -> np.ndarray:
    """Rows of the k frames of the other perspective nearest to each of `rows`: int64 (n, k), -1 where there is none."""
    e.require_both_perspectives("retrieval across views")
    out = np.full((len(rows), k), -1, dtype=np.int64)
    for is_ego in (True, False):
        asked = np.flatnonzero(e.is_ego[rows] == is_ego)
        queries, gallery = rows[asked], np.flatnonzero(e.is_ego != is_ego)
        found = nearest(e.vectors[queries], e.vectors[gallery], e.video[queries], e.video[gallery], k)
        out[asked] = np.where(found >= 0, gallery[found], -1)
    return out
