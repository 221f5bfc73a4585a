"""Stirring a bowl and serving from it."""

from __future__ import annotations

import numpy as np

from . import objects as things
from .motion import UP, Layout, between, path, span
from .person import Hand, unit
from .scene import Material, Primitives, Vector
from .staging import FIRST_OBJECT, other_on_rim


class StirAndServe:
    """Fetch the ladle, stir the bowl, serve food onto the plate, lay the ladle back."""

    objects = ("bowl", "ladle", "plate")

    def __init__(self, rng: np.random.Generator) -> None:
        self.at = Layout.draw(rng)
        self.bowl, self.plate = things.painted(rng), things.painted(rng)
        self.ladle = things.wooden(rng) if rng.random() < 0.5 else things.painted(rng, 0.6)
        soup = rng.uniform(0.1, 0.85, 3)
        self.soup = Material(tuple(soup), tuple(0.5 * soup), 4, 60.0, 0.3)
        self.lumps = Material(tuple(rng.uniform(0.1, 0.9, 3)), gloss=0.3)
        self.turns = float(rng.integers(2, 6)) * rng.choice([-1.0, 1.0])
        self.scoops = int(rng.integers(1, 3))
        self.served = int(rng.integers(0, 3))
        self.radius = float(rng.uniform(0.085, 0.10))
        self._spots = rng.uniform(-0.03, 0.03, (6, 2))

    def _held(self, tip: Vector, handle: Vector, curl: float) -> Hand:
        return Hand.holding(
            tip + 0.145 * handle, unit(np.array([-0.55, 0.65, -0.45])), unit(np.array([-0.75, -0.35, -0.5])), curl
        )

    def draw(self, phase: int, p: float, idle: Hand, ready: Hand, out: Primitives) -> tuple[Hand, Hand]:
        """See `Action.draw`."""
        lying = self.at.source + np.array([0.0, 0.09, 0.022])
        flat, up = unit(np.array([0.12, -0.99, 0.06])), unit(np.array([0.45, -0.35, 0.85]))
        over, inside = self.at.centre + 0.16 * UP, self.at.centre + np.array([0.0, 0.0, 0.048])
        other, angle, loaded, served = idle, 0.0, False, self.served
        if phase in (0, 3):
            q = p if phase == 0 else 1 - p
            tip = path(q, (0.50, lying), (0.62, lying + 0.09 * UP), (1.0, over))
            handle = unit(path(q, (0.50, flat), (0.85, up)))
            curl = float(path(q, (0.40, 0.15), (0.50, 0.85)))
            hand = (
                between(ready, self._held(lying, flat, 0.15), span(q, 0.0, 0.40))
                if q < 0.40
                else self._held(tip, handle, curl)
            )
            served += self.scoops * (phase == 3)
        elif phase == 1:
            angle = 2 * np.pi * self.turns * span(p, 0.08, 0.92)
            circle = 0.045 * np.array([np.cos(angle), np.sin(angle), 0.0])
            dip = span(p, 0.0, 0.1) * (1 - span(p, 0.9, 1.0))
            tip, handle = over + (inside + circle - over) * dip, unit(up + 0.9 * dip * circle)
            hand = self._held(tip, handle, 0.85)
            other = between(
                idle, other_on_rim(self.at.centre, self.radius), span(p, 0.0, 0.15) * (1 - span(p, 0.85, 1.0))
            )
        else:
            tip, loaded, done = self._scoop(p, over, inside)
            handle, served = up, served + done
            hand = self._held(tip, handle, 0.85)
        self._things(out, angle, served)
        out.group = FIRST_OBJECT + 1
        things.spoon(out, tip, handle, self.ladle)
        if loaded:
            out.ellipsoid(tip + 0.012 * UP, (0.026, 0.026, 0.018), self.lumps)
        return hand, other

    def _scoop(self, p: float, over: Vector, inside: Vector) -> tuple[Vector, bool, int]:
        """Ladle tip, whether it carries food, and scoops done, within the serving phase."""
        k = min(self.scoops - 1, int(p * self.scoops))
        q = p * self.scoops - k
        dish = self.at.sink + 0.045 * UP
        tip = path(
            q,
            (0.0, over),
            (0.2, inside),
            (0.35, over),
            (0.6, dish + 0.06 * UP),
            (0.7, dish),
            (0.8, dish + 0.06 * UP),
            (1.0, over),
        )
        return tip, 0.2 < q < 0.7, k + int(q >= 0.7)

    def _things(self, out: Primitives, angle: float, served: int) -> None:
        out.group = FIRST_OBJECT
        things.bowl(out, self.at.centre, self.radius, self.bowl)
        out.frustum(self.at.centre + 0.034 * UP, 0.004, 0.83 * self.radius, 0.83 * self.radius, self.soup)
        for k in range(4):
            a = 0.85 * angle + 1.57 * k + 0.3
            r = 0.028 + 0.009 * k
            out.ellipsoid(
                self.at.centre + np.array([r * np.cos(a), r * np.sin(a), 0.040]), (0.014, 0.014, 0.011), self.lumps
            )
        out.group = FIRST_OBJECT + 2
        things.plate(out, self.at.sink, 0.085, self.plate)
        for k in range(min(6, served)):
            out.ellipsoid(self.at.sink + np.array([*self._spots[k], 0.018]), (0.026, 0.026, 0.017), self.lumps)
