"""Segmentation metrics as loops over frames and over pairs of segments, what vectorised ones are timed against."""

from __future__ import annotations

import numpy as np


def segments(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """Label, start and end of every run of frame labels (T,)."""
    result: list[tuple[int, int, int]] = []
    for frame, label in enumerate(labels.tolist()):
        if result and result[-1][0] == label:
            result[-1] = (label, result[-1][1], frame + 1)
        else:
            result.append((label, frame, frame + 1))
    return result


def scores(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Accuracy, Edit and F1 of one video, in percent."""
    true, predicted = segments(truth), segments(prediction)
    correct = sum(int(a == b) for a, b in zip(truth.tolist(), prediction.tolist(), strict=True))
    longer = max(len(true), len(predicted))
    result = {"accuracy": 100 * correct / len(truth), "edit": 100 * (1 - _distance(true, predicted) / longer)}
    for percent in (10, 25, 50):
        used = [False] * len(true)
        hits = 0
        for label, start, end in predicted:
            overlaps = [
                max(0, min(end, e) - max(start, s)) / (max(end, e) - min(start, s)) if label == other else 0.0
                for other, s, e in true
            ]
            best = overlaps.index(max(overlaps))
            if overlaps[best] >= percent / 100 and not used[best]:
                used[best] = True
                hits += 1
        result[f"f1@{percent}"] = 200 * hits / (len(true) + len(predicted))
    return result


def _distance(true: list[tuple[int, int, int]], predicted: list[tuple[int, int, int]]) -> int:
    row = list(range(len(predicted) + 1))
    for i, (a, _, _) in enumerate(true, 1):
        corner, row[0] = row[0], i
        for j, (b, _, _) in enumerate(predicted, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]
