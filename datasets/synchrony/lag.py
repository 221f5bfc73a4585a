"""How much later one signal is than another, and how certain that is.

The method: both series are whitened by an autoregressive model of their own, so that their cross-correlations at all
lags are independent and normally distributed where the series have nothing to do with each other (Haugh, Checking the
independence of two covariance-stationary time series, JASA 71, 1976). What remains is replaced by its normal scores,
so that a few bursts cannot make a peak. The largest correlation is then tested against chance at any lag, and compared
with the correlations elsewhere, which are large too where a movement repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import correlate, lfilter
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from crossview.datasets.synchrony.energy import Energy

ORDER = 4
"""Of the autoregressive models."""
FEWEST = 40
"""Values that both series must have at a lag."""
_STILL = 1e-3
"""Standard deviation of the logarithm of an energy that does not vary."""


@dataclass(frozen=True)
class Lag:
    """The second signal shows an event so much later than the first."""

    seconds: float
    certainty: float
    """From 0 to 1: the probability that the correlation is not chance, times the weight of its lag among all lags."""


UNKNOWN = Lag(0.0, 0.0)


def lag_between(first: Energy, second: Energy, *, rate: float, max_lag_s: float, frame_s: float) -> Lag:
    """The lag of two energies that are compared at `rate` values per s; lags within `frame_s` count as one.

    `UNKNOWN` where a signal does not vary, or is shorter than `FEWEST` values.
    """
    at, x = first.on_grid(rate)
    start, y = second.on_grid(rate)
    if min(len(x), len(y)) < FEWEST + ORDER or min(x.std(), y.std()) < _STILL:
        return UNKNOWN
    x, y = _whitened(x), _whitened(y)
    lags = np.arange(-(len(x) - 1), len(y)) + start - at
    shared = np.minimum(
        np.minimum(len(x), len(y)), np.minimum(np.arange(len(lags)) + 1, len(lags) - np.arange(len(lags)))
    )
    kept = (np.abs(lags) <= max_lag_s * rate) & (shared >= FEWEST)
    if kept.sum() < 3:
        return UNKNOWN
    z = (correlate(y, x, "full")[kept]) / np.sqrt(shared[kept])
    return _peak(lags[kept], z, rate, max(1, round(frame_s * rate)))


def _peak(lags: np.ndarray, z: np.ndarray, rate: float, near: int) -> Lag:
    """From the standardised correlations at lags in values: the largest, within `near` of which lags are one."""
    top = int(z.argmax())
    far = np.abs(lags - lags[top]) > near
    if far.any():
        z = z / max(1.0, float(np.sqrt((z[far] ** 2).mean())))  # what is left of the series' own structure
    chance = min(1.0, len(z) * float(ndtr(-z[top])))
    others = np.maximum(z[far], 0.0)
    weight = 1.0 / (1.0 + float(np.exp(np.minimum((others**2 - z[top] ** 2) / 2, 50.0)).sum()))
    shift = 0.0
    if 0 < top < len(z) - 1:
        before, here, after = z[top - 1 : top + 2]
        bend = before - 2 * here + after
        shift = float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
    return Lag((float(lags[top]) + shift) / rate, (1.0 - chance) * weight)


def _whitened(x: np.ndarray) -> np.ndarray:
    """The normal scores of what an autoregressive model of the series (Yule-Walker) leaves: float64 (n - ORDER,)."""
    x = x - x.mean()
    covariance = correlate(x, x, "full")[len(x) - 1 : len(x) + ORDER]
    covariance[0] *= 1 + 1e-6
    coefficients = solve_toeplitz(covariance[:ORDER], covariance[1:])
    rest = lfilter(np.concatenate([[1.0], -coefficients]), [1.0], x)[ORDER:]
    return np.asarray(ndtri((rankdata(rest) - 0.5) / len(rest)))
