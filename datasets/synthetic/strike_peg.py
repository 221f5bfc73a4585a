"""Driving a peg with a mallet."""

from __future__ import annotations

import numpy as np

from . import objects as things
from .motion import UP, Layout, between, path, span
from .person import Hand, unit
from .scene import Primitives, Vector
from .staging import FIRST_OBJECT


class StrikePeg:
    """Fetch the mallet, set the held peg with small taps, drive it with wide strokes, put the mallet back."""

    objects = ("block", "mallet", "peg")

    def __init__(self, rng: np.random.Generator) -> None:
        self.at = Layout.draw(rng)
        self.block, self.handle = things.wooden(rng), things.wooden(rng)
        self.head, self.peg = things.painted(rng), things.painted(rng)
        self.taps, self.strokes = int(rng.integers(3, 7)), int(rng.integers(2, 4))
        self.start = float(rng.uniform(0.055, 0.085))
        self.sink = float(rng.uniform(0.006, 0.028))

    def _swung(self, top: Vector, angle: float, curl: float) -> tuple[Hand, Vector, Vector]:
        """Hand, and the mallet's directions along and face, for a swing `angle` above the strike at `top`."""
        along = np.array([-np.cos(angle), 0.0, np.sin(angle)])
        face = np.array([-np.sin(angle), 0.0, -np.cos(angle)])
        grip = top + np.array([0.20, 0.0, 0.057]) + np.array([-0.05, 0.0, 0.10]) * np.sin(angle)
        return (
            Hand.holding(grip, unit(np.array([0.1, 0.95, -0.1])), unit(face + np.array([0.15, 0, -0.3])), curl),
            along,
            face,
        )

    def draw(self, phase: int, p: float, idle: Hand, ready: Hand, out: Primitives) -> tuple[Hand, Hand]:
        """See `Action.draw`."""
        length = self._length(phase, p)
        top = self.at.centre + np.array([0, 0, 0.04 + length])
        lying = self.at.source + np.array([0.04, 0.0, 0.032])
        other = idle
        if phase in (0, 3):
            q = p if phase == 0 else 1 - p
            swung, along, face = self._swung(top, 0.25, 0.95)
            flat_along, flat_face = unit(np.array([-0.35, 0.94, 0.0])), unit(np.array([-0.94, -0.35, 0.0]))
            turn = span(q, 0.55, 0.9)
            grip = path(q, (0.50, lying), (0.62, lying + 0.07 * UP), (1.0, swung.grasp))
            pick = Hand.holding(lying, unit(np.array([-0.8, 0.5, -0.3])), unit(np.array([-0.3, -0.2, -0.9])), 0.15)
            held = between(
                Hand.holding(grip, pick.forward, pick.palm, 0.95),
                Hand.holding(grip, swung.forward, swung.palm, 0.95),
                turn,
            )
            hand = between(ready, pick, span(q, 0.0, 0.40))
            if q > 0.40:
                hand = Hand(held.wrist, held.forward, held.palm, float(path(q, (0.40, 0.15), (0.50, 0.95))))
            along = unit(flat_along + turn * (along - flat_along))
            face = unit(flat_face + turn * (face - flat_face))
            grip = hand.grasp if q > 0.50 else lying
        else:
            small = phase == 1
            count, rest, reach = (self.taps, 0.25, 0.2) if small else (self.strokes, 0.25, 1.25)
            swing = 0.5 - 0.5 * np.cos(2 * np.pi * (count * p))
            down = 0.5 - 0.5 * np.cos(2 * np.pi * min(1.0, 2 * abs(count * p % 1.0 - 0.5)))
            angle = rest * (1 - swing) * (1 - down) if small else rest + (reach - rest) * swing
            if not small and count * p % 1.0 > 0.5:
                q = (count * p % 1.0 - 0.5) * 2
                angle = float(path(q, (0.0, reach), (0.55, 0.0), (1.0, rest)))
            hand, along, face = self._swung(top, float(angle), 0.95)
            grip = hand.grasp
            steady = Hand.holding(
                top - np.array([0.012, 0.0, 0.035]),
                unit(np.array([0.7, 0.6, -0.2])),
                unit(np.array([0.6, -0.7, -0.2])),
                0.7,
            )
            near = span(p, 0.0, 0.15) if small else 1 - span(p, 0.0, 0.15)
            other = between(idle, steady, near)
        self._things(out, length, grip, along, face)
        return hand, other

    def _length(self, phase: int, p: float) -> float:
        """How far the peg still protrudes, in metres; a drive leaves it where the next round's may start."""
        middle = 0.75 * self.start + 0.25 * self.sink
        return float(path(phase - 1 + p, (0.0, self.start), (1.0, middle), (2.0, self.sink)))

    def _things(self, out: Primitives, length: float, grip: Vector, along: Vector, face: Vector) -> None:
        out.group = FIRST_OBJECT
        out.box(self.at.centre + np.array([0, 0.02, 0.02]), (0.075, 0.085, 0.02), self.block)
        for k in (-1, 1):
            out.frustum(
                self.at.centre + np.array([0.045 * k, 0.07, 0.04]), 0.02 + 0.5 * self.sink, 0.014, 0.014, self.peg
            )
        out.group = FIRST_OBJECT + 1
        things.hammer(out, grip, along, face, self.handle, self.head)
        out.group = FIRST_OBJECT + 2
        out.frustum(self.at.centre + 0.04 * UP, length, 0.014, 0.016, self.peg)
