"""Embedding tables for the downstream tests."""

import numpy as np

from crossview.downstream.frame_table import FrameTable


def table(lengths, labels, vectors, ego_videos, names=None) -> FrameTable:
    videos = np.repeat(np.arange(len(lengths)), lengths)
    return FrameTable(
        vectors=vectors,
        labels=labels,
        video=videos,
        frame=np.concatenate([np.arange(n) for n in lengths]),
        is_ego=np.isin(videos, ego_videos),
        videos=names or tuple(f"video-{i}" for i in range(len(lengths))),
    )


def phased(videos: int, seed: int, *, low: int = 100, high: int = 250, phases: int = 4) -> FrameTable:
    """Content-free videos of all phases in turn with uniformly random boundaries; the first half is ego."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(low, high, videos)
    labels = []
    for length in lengths:
        bounds = np.sort(rng.choice(np.arange(1, length), phases - 1, replace=False))
        labels.append(np.searchsorted(bounds, np.arange(length), side="right"))
    return table(lengths, np.concatenate(labels), np.zeros((lengths.sum(), 1)), range(videos // 2))


def random_table(seed: int, *, ties: bool, videos: int = 6, dim: int = 8, phases: int = 3) -> FrameTable:
    """Random labels and vectors; with ties they are small integers, so that many distances are equal and exact."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(7, 40, videos)
    total = lengths.sum()
    vectors = rng.integers(0, 2, (total, dim)) if ties else rng.normal(size=(total, dim))
    return table(lengths, rng.integers(0, phases, total), vectors, rng.permutation(videos)[: videos // 2])


def with_content(e: FrameTable, seed: int, *, dim: int = 16, noise: float = 1.0) -> FrameTable:
    """Vectors that share a direction per phase, carry an offset per perspective, and noise."""
    shared = np.random.default_rng(1)
    phase, view = shared.normal(size=(int(e.labels.max()) + 1, dim)), shared.normal(size=dim)
    rng = np.random.default_rng(seed)
    return e.replace_vectors(phase[e.labels] * 2 + e.is_ego[:, None] * view + noise * rng.normal(size=(len(e), dim)))
