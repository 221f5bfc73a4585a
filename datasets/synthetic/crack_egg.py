"""Cracking an egg into a bowl."""

from __future__ import annotations

import numpy as np

from . import objects as things
from .motion import UP, Layout, between, clamp, path, span
from .person import Hand, unit
from .scene import Primitives, Vector, frame_along
from .staging import FIRST_OBJECT, TOP_FORWARD, TOP_PALM, mirror, other_on_rim


class CrackEgg:
    """Fetch an egg, tap it on the bowl's rim, open it over the bowl, put the shell on the plate."""

    objects = ("bowl", "egg", "plate", "tray")

    def __init__(self, rng: np.random.Generator) -> None:
        self.at = Layout.draw(rng)
        self.taps = int(rng.integers(2, 5))
        self.radius = float(rng.uniform(0.082, 0.098))
        self.bowl, self.plate, self.tray = (things.painted(rng) for _ in range(3))
        self.yolks, self.shells, self.eggs = int(rng.integers(0, 3)), int(rng.integers(0, 3)), int(rng.integers(1, 4))
        self._spots = rng.uniform(-0.035, 0.035, (8, 2))
        self.height = float(rng.uniform(0.14, 0.18))

    def _scenery(self, out: Primitives, phase: int, p: float) -> None:
        out.group = FIRST_OBJECT
        things.bowl(out, self.at.centre, self.radius, self.bowl)
        out.frustum(self.at.centre + 0.022 * UP, 0.004, 0.66 * self.radius, 0.66 * self.radius, things.EGG_WHITE)
        fallen = self.yolks + (phase == 3 or (phase == 2 and p > 0.75))
        for k in range(fallen):
            out.ellipsoid(self.at.centre + np.array([*self._spots[k], 0.030]), (0.022, 0.022, 0.013), things.YOLK)
        out.group = FIRST_OBJECT + 2
        things.plate(out, self.at.sink, 0.085, self.plate)
        for k in range(self.shells):
            things.half_shell(
                out, self.at.sink + np.array([*self._spots[4 + k], 0.03]), np.array([0.2, 0.3 * k - 0.2, -1.0])
            )
        out.group = FIRST_OBJECT + 3
        out.box(self.at.source + np.array([0.0, 0.03, 0.012]), (0.05, 0.095, 0.012), self.tray)
        for k in range(self.eggs):
            things.egg(
                out,
                self.at.source
                + np.array([0.0, 0.035 + 0.07 * (k - 0.5), 0.055])
                + (0.0 if k else 1.0) * np.array([0.045, 0.02, -0.02]),
                np.eye(3),
                False,
            )

    def draw(self, phase: int, p: float, idle: Hand, ready: Hand, out: Primitives) -> tuple[Hand, Hand]:
        """See `Action.draw`."""
        self._scenery(out, phase, p)
        out.group = FIRST_OBJECT + 1
        nest = self.at.source + np.array([0.0, -0.035, 0.055])
        rim = self.at.centre + np.array([0.6 * self.radius, -0.7 * self.radius, 0.095])
        over = self.at.centre + np.array([0.0, -0.02, self.height])
        raised = rim + 0.10 * UP

        def top(point: Vector, curl: float) -> Hand:
            return Hand.holding(point, TOP_FORWARD, TOP_PALM, curl)

        if phase == 0:
            hand = between(ready, top(nest + 0.09 * UP, 0.15), span(p, 0.0, 0.38))
            if p > 0.38:
                point = path(p, (0.38, nest + 0.09 * UP), (0.52, nest), (0.62, nest + 0.08 * UP), (1.0, raised))
                hand = top(point, float(path(p, (0.38, 0.15), (0.52, 0.6))))
            things.egg(out, hand.grasp if p > 0.52 else nest, np.eye(3), False)
            return hand, idle
        if phase == 1:
            lift = abs(np.cos(np.pi * self.taps * p))
            hand = top(rim + 0.10 * lift * UP, 0.6)
            things.egg(out, hand.grasp, np.eye(3), p * self.taps > 0.5)
            return hand, between(
                idle, other_on_rim(self.at.centre, self.radius), span(p, 0.0, 0.15) * (1 - span(p, 0.85, 1.0))
            )
        if phase == 2:
            return self._open(p, raised, over, idle, out)
        return self._discard(p, over, idle, ready, out)

    def _halves(self, point: Vector, gap: float, curl: float) -> tuple[Hand, Hand]:
        """Both hands with a shell half each, `gap` metres apart."""
        side = np.array([0.5 * gap + 0.016, 0.0, 0.0])
        forward, palm = unit(np.array([-0.45, 0.8, -0.4])), unit(np.array([-0.85, -0.2, -0.45]))
        right = Hand.holding(point + side, forward, palm, curl)
        left = Hand.holding(point - side, mirror(forward), mirror(palm), curl)
        return right, left

    def _open(self, p: float, raised: Vector, over: Vector, idle: Hand, out: Primitives) -> tuple[Hand, Hand]:
        gap = 0.11 * span(p, 0.35, 0.6)
        right, left = self._halves(over, gap, 0.6)
        right = between(Hand.holding(raised, TOP_FORWARD, TOP_PALM, 0.6), right, span(p, 0.0, 0.28))
        left = between(idle, left, span(p, 0.0, 0.3))
        if p < 0.35:
            turn = span(p, 0.0, 0.28)
            things.egg(
                out,
                right.grasp - turn * np.array([0.016, 0, 0]),
                frame_along(np.array([turn, 0, 1.0 - 0.9 * turn]), np.array([0.0, 1.0, 0.0])),
                True,
            )
            return right, left
        lean = 0.7 * span(p, 0.4, 0.6)
        things.half_shell(out, right.grasp, np.array([1.0, 0.0, lean]))
        things.half_shell(out, left.grasp, np.array([-1.0, 0.0, lean]))
        fall = clamp((p - 0.5) / 0.25)
        bottom = self.at.centre + 0.03 * UP
        middle = over - 0.02 * UP
        if 0.42 < p < 0.92:
            end = middle + (bottom - middle) * clamp((p - 0.42) / 0.15)
            start = middle + (bottom - middle) * clamp((p - 0.75) / 0.17)
            out.capsule(start, end, 0.009, things.EGG_WHITE)
        if p <= 0.75:
            spot = bottom + np.array([*self._spots[self.yolks], 0.0])
            out.ellipsoid(middle + (spot - middle) * fall * fall, (0.021, 0.021, 0.021), things.YOLK)
        return right, left

    def _discard(self, p: float, over: Vector, idle: Hand, ready: Hand, out: Primitives) -> tuple[Hand, Hand]:
        drop = self.at.sink + 0.055 * UP
        point = path(p, (0.0, over), (0.40, drop + 0.06 * UP), (0.5, drop))
        right, left = self._halves(
            point, float(path(p, (0.0, 0.11), (0.4, 0.06))), float(path(p, (0.5, 0.6), (0.6, 0.1)))
        )
        held = p < 0.52
        for hand, s in ((right, 1.0), (left, -1.0)):
            centre = hand.grasp if held else self.at.sink + np.array([0.04 * s, -0.01, 0.035])
            things.half_shell(out, centre, np.array([s, 0.0, 0.7]) if held else np.array([0.2 * s, 0.3, -1.0]))
        back = span(p, 0.6, 1.0)
        return between(right, ready, back), between(left, idle, back)
