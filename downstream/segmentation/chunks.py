"""Chunks of a labelled feature sequence, C2F-TCN's steps: the maximum of features, the majority of labels, and back."""

from __future__ import annotations

import numpy as np

from crossview.errors import UserError


def chunk_features(features: np.ndarray, size: int) -> np.ndarray:
    """The maximum over every `size` frames, fewer at the end: (T, D) -> (ceil(T / size), D)."""
    return np.maximum.reduceat(features, _starts(len(features), size), axis=0)


def chunk_labels(labels: np.ndarray, size: int, *, unlabelled: int = -100) -> np.ndarray:
    """The most frequent label of every `size` frames, the smallest of equals: (T,) -> int64 (ceil(T / size),).

    Labels below 0 do not vote; a chunk without any other is `unlabelled`.
    """
    labels = np.asarray(labels, dtype=np.int64)
    chunks, voting = len(_starts(len(labels), size)), labels >= 0
    chunk = np.arange(len(labels)) // size
    classes = int(labels.max()) + 1 if voting.any() else 1
    votes = np.bincount(chunk[voting] * classes + labels[voting], minlength=chunks * classes).reshape(chunks, classes)
    return np.where(votes.any(1), votes.argmax(1), unlabelled)


def expand(chunked: np.ndarray, size: int, frames: int) -> np.ndarray:
    """Each chunk's value for all of its frames: (ceil(T / size), ...) -> (T, ...), T being `frames`."""
    if len(chunked) != len(_starts(frames, size)):
        raise ValueError(f"{len(chunked)} chunks of {size} frames do not make up {frames} frames")
    return np.repeat(chunked, size, axis=0)[:frames]


def _starts(frames: int, size: int) -> np.ndarray:
    if size < 1:
        raise UserError(f"chunk size is {size}; it must be at least 1 frame")
    return np.arange(0, frames, size)
