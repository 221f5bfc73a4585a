"""The baselines of a trained embedding, and its margin over them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossview.downstream.frame_table import FrameTable

Value = float | Sequence[float]
"""A score, or one per seed."""
Rows = Mapping[str, Mapping[str, Value]]
"""Scores by row ("trained", "time only", ...) and metric."""


def time_only(e: FrameTable) -> FrameTable:
    """The same frames embedded by position alone: the 1-d vector t / L, with L the frames of the video.

    It knows nothing of the content, yet Kendall's tau, progression and retrieval reward it (a clock).
    """
    position = [np.arange(rows.stop - rows.start) / (rows.stop - rows.start) for rows in e.video_slices()]
    return e.replace_vectors(np.concatenate(position)[:, None])


@dataclass(frozen=True)
class Margin:
    """How much better the trained row is than the best baseline in one metric."""

    baseline: str
    """The baseline with the best mean."""
    mean: float
    """Above 0 where the trained row is better."""
    spread: float
    """Sample standard deviation over seeds; NaN with one seed. Whether a margin is luck, `paired.decide` says."""


def margin(rows: Rows, *, trained: str = "trained", lower: Collection[str] = ()) -> dict[str, Margin]:
    """The trained row minus the best baseline, by metric, over the metrics of the trained row.

    In the metrics `lower`, where lower is better, the best baseline minus the trained row.

    With equally many seeds the rows are paired by seed, else each trained seed is compared with the baseline's mean.
    The best baseline is chosen by metric; one without the metric, or whose mean is NaN, does not compete.
    """
    baselines = {name: scores for name, scores in rows.items() if name != trained}
    if trained not in rows or not baselines:
        raise ValueError(
            f"margin: rows {list(rows)} lack {trained!r} or a baseline; evaluate the trained model and at "
            "least one baseline"
        )
    return {m: _margin(m, value, baselines, -1 if m in lower else 1) for m, value in rows[trained].items()}


def _margin(metric: str, trained: Value, baselines: Rows, sign: int) -> Margin:
    scored = {name: per_seed(scores[metric]) for name, scores in baselines.items() if metric in scores}
    means = {name: float(values.mean()) for name, values in scored.items() if not math.isnan(values.mean())}
    if not means:
        raise ValueError(f"margin: no baseline has a score for {metric!r}; evaluate the baselines with the same tasks")
    best = max(means, key=lambda name: sign * means[name])
    values, baseline = per_seed(trained), scored[best]
    differences = sign * (values - (baseline if len(baseline) == len(values) else means[best]))
    return Margin(best, float(differences.mean()), spread(differences))


def per_seed(value: Value) -> np.ndarray:
    """The score as an array (seeds,)."""
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if values.ndim != 1 or not len(values):
        raise ValueError(f"score {value!r}: it must be a number or a list of one number per seed")
    return values


def spread(values: np.ndarray) -> float:
    """Sample standard deviation; NaN for a single value, which shows no spread."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
