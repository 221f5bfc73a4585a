"""How things move: eased waypoints, smooth noise, and the layout that an action plays on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .person import Hand, unit
from .scene import Vector

REST_M = np.array([0.16, -0.13, 0.035])
DOWN = np.array([0.0, 0.0, -1.0])
UP = -DOWN


def clamp(p: float) -> float:
    """The value limited to [0, 1]."""
    return min(1.0, max(0.0, p))


def ease(p: float) -> float:
    """Smooth step of the value limited to [0, 1]."""
    p = clamp(p)
    return p * p * (3 - 2 * p)


def span(p: float, start: float, end: float) -> float:
    """Eased progress of p through [start, end]."""
    return ease((p - start) / (end - start))


def path(p: float, *stops: tuple[float, Vector | float]) -> Vector:
    """Eased way through (progress, value) stops."""
    for (p0, v0), (p1, v1) in pairwise(stops):
        if p <= p1:
            return np.asarray(v0 + (np.asarray(v1) - v0) * span(p, p0, p1))
    return np.asarray(stops[-1][1])


class Wobble:
    """Smooth noise over time: a few sines of random frequency and phase per axis; amplitude 1."""

    def __init__(self, rng: np.random.Generator, axes: int = 3, low_hz: float = 0.15, high_hz: float = 0.9) -> None:
        self._hz = rng.uniform(low_hz, high_hz, (3, axes))
        self._phase = rng.uniform(0, 2 * np.pi, (3, axes))

    def __call__(self, time_s: float) -> np.ndarray:
        """Values (axes,) within [-1, 1]."""
        return np.asarray(np.sin(2 * np.pi * self._hz * time_s + self._phase).mean(axis=0))


@dataclass(frozen=True)
class Layout:
    """Where the action's three places are on the table, for a right-handed subject (x > 0 is the dominant side)."""

    centre: Vector
    source: Vector
    sink: Vector

    @staticmethod
    def draw(rng: np.random.Generator) -> Layout:
        """The three places with jitter."""
        jitter = rng.uniform(-0.03, 0.03, (3, 3)) * np.array([1, 1, 0])
        places = np.array([[-0.005, 0.05, 0], [0.20, 0.07, 0], [-0.20, 0.06, 0]]) + jitter
        return Layout(*places)


def resting(side: float, curl: float, drift: Vector, height: float = 0.0) -> Hand:
    """A hand lying on the table's near edge."""
    wrist = REST_M * np.array([side, 1, 1]) + np.array([0, 0, height]) + drift
    return Hand(wrist, unit(np.array([-0.25 * side, 0.95, -0.12])), unit(np.array([-0.1 * side, -0.1, -1.0])), curl)


def between(a: Hand, b: Hand, p: float) -> Hand:
    """Hand pose at share p of the way from a to b."""
    if p <= 0:
        return a
    if p >= 1:
        return b
    return Hand(
        a.wrist + p * (b.wrist - a.wrist),
        unit(a.forward + p * (b.forward - a.forward)),
        unit(a.palm + p * (b.palm - a.palm)),
        a.curl + p * (b.curl - a.curl),
    )
