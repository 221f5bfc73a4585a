"""Pouring milk into a cup."""

from __future__ import annotations

import numpy as np

from . import objects as things
from .motion import UP, Layout, between, path, span
from .person import Hand
from .scene import Material, Primitives, Vector
from .staging import FIRST_OBJECT, GRIP_FORWARD, SIDE_PALM


class PourMilk:
    """Fetch the pitcher, pour into the cup, put the pitcher back, move the cup away."""

    objects = ("cup", "pitcher", "coaster")

    def __init__(self, rng: np.random.Generator) -> None:
        self.at = Layout.draw(rng)
        self.cup, self.pitcher, self.coaster = (things.painted(rng) for _ in range(3))
        shade = rng.uniform(0.15, 0.95)
        self.milk = Material(
            tuple(np.array([0.97, 0.95, 0.9]) * shade + (1 - shade) * rng.uniform(0.05, 0.7, 3)), gloss=0.4
        )
        self.level = float(rng.uniform(0.0, 0.55))
        self.gain = float(rng.uniform(0.25, 0.4))
        self.lift = float(rng.uniform(0.20, 0.25))
        self.spills = float(rng.uniform(0.8, 1.2))

    def _held(self, centre: Vector, tilt: float, curl: float) -> Hand:
        c, s = np.cos(tilt), np.sin(tilt)
        frame = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        return Hand.holding(centre + frame @ np.array([0.09, 0.0, 0.005]), GRIP_FORWARD, frame @ SIDE_PALM, curl)

    def draw(self, phase: int, p: float, idle: Hand, ready: Hand, out: Primitives) -> tuple[Hand, Hand]:
        """See `Action.draw`."""
        stand = self.at.source + 0.075 * UP
        above = self.at.centre + np.array([0.105, 0.0, self.lift])
        rise = stand + 0.10 * UP
        centre, tilt, level = stand, 0.0, self.level + self.gain * (phase > 1)
        cup_foot = self.at.centre
        other = idle
        if phase == 0:
            hand = between(ready, self._held(stand, 0.0, 0.2), span(p, 0.0, 0.42))
            if p > 0.42:
                centre = path(p, (0.52, stand), (0.68, rise), (1.0, above))
                hand = self._held(centre, 0.0, float(path(p, (0.42, 0.2), (0.52, 0.8))))
        elif phase == 1:
            tilt = 1.05 * self.spills * span(p, 0.0, 0.2) * (1 - span(p, 0.85, 1.0))
            centre = above + np.array([0.0, 0.0, 0.012 * np.sin(9 * p)])
            hand = self._held(centre, tilt, 0.8)
            level += self.gain * span(p, 0.15, 0.9)
        elif phase == 2:
            centre = path(p, (0.0, above), (0.32, rise), (0.48, stand))
            hand = self._held(centre, 0.0, float(path(p, (0.48, 0.8), (0.58, 0.2))))
            hand = between(hand, ready, span(p, 0.58, 1.0))
        else:
            hand, cup_foot = self._serve(p, ready)
        self._things(out, phase, p, centre, tilt, cup_foot, level)
        return hand, other

    def _serve(self, p: float, ready: Hand) -> tuple[Hand, Vector]:
        foot = path(
            p,
            (0.34, self.at.centre),
            (0.5, 0.5 * (self.at.centre + self.at.sink) + 0.07 * UP),
            (0.68, self.at.sink + 0.012 * UP),
        )
        grip = Hand.holding(
            foot + np.array([0.045, -0.01, 0.05]),
            GRIP_FORWARD,
            SIDE_PALM,
            float(path(p, (0.26, 0.15), (0.34, 0.55), (0.68, 0.55), (0.75, 0.1))),
        )
        return between(between(ready, grip, span(p, 0.0, 0.28)), ready, span(p, 0.75, 1.0)), foot

    def _things(
        self, out: Primitives, phase: int, p: float, centre: Vector, tilt: float, cup_foot: Vector, level: float
    ) -> None:
        out.group = FIRST_OBJECT
        things.cup(out, cup_foot, level, self.cup, self.milk)
        out.group = FIRST_OBJECT + 1
        things.pitcher(out, centre, tilt, self.pitcher, self.milk)
        if phase == 1 and 0.12 < p < 0.92:
            c, s = np.cos(tilt), np.sin(tilt)
            mouth = centre + np.array([-0.056 * c - 0.073 * s, 0.0, -0.056 * s + 0.073 * c])
            landing = cup_foot + np.array([0.0, 0.0, 0.012 + 0.065 * level])
            bend = 0.5 * (mouth + landing) + np.array([-0.012, 0.0, 0.02])
            out.capsule(mouth, bend, 0.0085, self.milk)
            out.capsule(bend, landing, 0.0075, self.milk)
        out.group = FIRST_OBJECT + 2
        out.frustum(self.at.sink, 0.01, 0.065, 0.065, self.coaster)
