"""How predictions compare between the cameras that show the same instants."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import numpy as np


def consistency(predictions: np.ndarray, instants: np.ndarray, cameras: np.ndarray) -> dict[str, float]:
    """`instants`: share of instants whose cameras all predict the same class; `pairs`: share of pairs of cameras.

    Predicted classes, instants and names of cameras, all (N,). Instants that one camera shows do not count; empty if
    there is no other.
    """
    agree, pairs, equal = [], 0, 0
    for rows in _instants(instants, cameras):
        found = predictions[rows]
        agree.append(bool((found == found[0]).all()))
        count = np.unique(found, return_counts=True)[1]
        pairs += len(found) * (len(found) - 1) // 2
        equal += int((count * (count - 1) // 2).sum())
    return {"instants": float(np.mean(agree)), "pairs": equal / pairs} if agree else {}


def consistency_of_pairs(
    predictions: np.ndarray, instants: np.ndarray, cameras: np.ndarray
) -> dict[tuple[str, str], tuple[float, int]]:
    """By two cameras' names, sorted: the share of their common instants on which they agree, and how many there are."""
    found: dict[tuple[str, str], list[bool]] = {}
    for rows in _instants(instants, cameras):
        for i, j in combinations(rows, 2):
            pair = str(cameras[i]), str(cameras[j])
            found.setdefault(pair, []).append(bool(predictions[i] == predictions[j]))
    return {pair: (float(np.mean(same)), len(same)) for pair, same in sorted(found.items())}


def by_camera_set(right: np.ndarray, cameras: np.ndarray, seen: Collection[str]) -> dict[str, float]:
    """Accuracy on cameras that training saw (`seen`) and on others (`held_out`); a set without a sample is left out."""
    known = np.isin(cameras, sorted(seen)) if len(seen) else np.zeros(len(cameras), bool)
    return {name: float(right[part].mean()) for name, part in (("seen", known), ("held_out", ~known)) if part.any()}


def _instants(instants: np.ndarray, cameras: np.ndarray) -> list[np.ndarray]:
    """Rows of each instant that several cameras show, by their names; raises ValueError if one shows it twice."""
    order = np.lexsort((cameras, instants))
    groups = np.split(order, np.flatnonzero(instants[order][1:] != instants[order][:-1]) + 1)
    for rows in groups:
        if len(set(cameras[rows].tolist())) < len(rows):
            raise ValueError(f"instant {instants[rows[0]]} has two predictions of one camera; fuse them first")
    return [rows for rows in groups if len(rows) > 1]
