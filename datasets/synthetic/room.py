"""The room and what has nothing to do with the action: furniture, clutter, and things that move on their own."""

from __future__ import annotations

import numpy as np

from .motion import Wobble, resting
from .objects import cloth, clutter, painted, wooden
from .person import Looks, draw_hand
from .scene import Material, Primitives, Vector, upright
from .textures import CHECKS, NOISE, STRIPES


def _wall(rng: np.random.Generator) -> Material:
    tone = rng.uniform(0.25, 0.85, 3)
    return Material(
        tuple(tone),
        tuple(tone * rng.uniform(0.6, 0.95)),
        int(rng.choice([NOISE, STRIPES, CHECKS])),
        float(rng.uniform(2, 7)),
        0.0,
    )


def draw_room(rng: np.random.Generator) -> np.ndarray:
    """Floor, walls, pictures, table with cloth or bare wood, and standing clutter: all that never moves."""
    out = Primitives()
    floor = wooden(rng)
    out.box(np.array([0, 0, -0.80]), (2.6, 2.6, 0.05), Material(floor.colour, floor.colour2, floor.texture, 7.0, 0.05))
    wall = _wall(rng)
    for x, y in ((2.5, 0), (-2.5, 0), (0, 2.5), (0, -2.5)):
        out.box(np.array([x, y, 0.8]), (0.1 if x else 2.6, 0.1 if y else 2.6, 1.7), wall)
    for k in range(5):
        angle = 2 * np.pi * (k + rng.uniform(0.1, 0.9)) / 5
        spot = np.clip(2.9 * np.array([np.cos(angle), np.sin(angle)]), -2.36, 2.36)
        w, h = rng.uniform(0.2, 0.6, 2)
        out.box(np.array([*spot, rng.uniform(-0.3, 1.0)]), (w, w, h), painted(rng, 0.0))
    top = wooden(rng) if rng.random() < 0.6 else cloth(rng)
    top = Material(top.colour, top.colour2, top.texture, top.scale * 0.5, top.gloss)
    out.box(np.array([0, 0.13, -0.02]), (0.78, 0.47, 0.02), top, shadow=True)
    if rng.random() < 0.6:
        mat = cloth(rng)
        out.box(
            np.array([rng.uniform(-0.05, 0.05), 0.06, -0.0195]),
            (rng.uniform(0.28, 0.42), rng.uniform(0.17, 0.24), 0.02),
            mat,
            upright(rng.uniform(-0.15, 0.15)),
            shadow=True,
        )
    for x in (-0.7, 0.7):
        for y in (-0.28, 0.54):
            out.frustum(np.array([x, y, -0.78]), 0.74, 0.03, 0.04, wooden(rng))
    for _ in range(int(rng.integers(3, 7))):
        foot = _aside(rng)
        clutter(
            out, int(rng.integers(6)), foot, float(rng.uniform(0.025, 0.045)), upright(rng.uniform(0, 6)), painted(rng)
        )
    return out.array()


def _aside(rng: np.random.Generator) -> Vector:
    """A spot on the table outside the working area."""
    if rng.random() < 0.5:
        return np.array([rng.choice([-1, 1]) * rng.uniform(0.38, 0.68), rng.uniform(-0.15, 0.5), 0.0])
    return np.array([rng.uniform(-0.6, 0.6), rng.uniform(0.28, 0.52), 0.0])


class Bystander:
    """A thing that moves regardless of the action: a rolling ball, a wind-up toy, a spinning box, a strange hand."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._kind = int(rng.choice([0, 0, 1, 1, 2, 2, 3]))
        self._foot = _aside(rng) * np.array([0.9, 1.0, 1.0])
        self._size = float(rng.uniform(0.025, 0.042))
        self._material = painted(rng)
        self._hz, self._phase = float(rng.uniform(0.15, 0.7)), float(rng.uniform(0, 6.28))
        self._reach = rng.uniform(-0.12, 0.12, 2)
        self._wobble = Wobble(rng, low_hz=0.1, high_hz=0.5)
        self._looks = Looks.draw(rng)
        self._sleeps = float(rng.uniform(0.0, 0.6))

    def draw(self, time_s: float, out: Primitives) -> None:
        """Add the thing at an instant."""
        a = 2 * np.pi * self._hz * time_s + self._phase
        awake = 1.0 if np.sin(0.31 * a + self._phase) > 2 * self._sleeps - 1 else 0.0
        foot = self._foot + np.array([*(self._reach * np.sin(a)), 0.0])
        if self._kind == 0:
            clutter(out, 2, foot, self._size, upright(4 * np.sin(a)), self._material)
        elif self._kind == 1:
            hop = 0.02 * abs(np.sin(7 * a)) * awake
            clutter(out, 1, foot + np.array([0, 0, hop]), self._size, upright(0.5 * a), self._material)
            out.ellipsoid(foot + np.array([0, 0, hop + 2.3 * self._size]), (0.7 * self._size,) * 3, self._material)
        elif self._kind == 2:
            clutter(out, 0, self._foot, self._size, upright(1.5 * a * awake), self._material)
        else:
            self._strange_hand(time_s, out)

    def _strange_hand(self, time_s: float, out: Primitives) -> None:
        """Another person's hand that fidgets at the far edge of the table."""
        w = self._wobble(time_s)
        hand = resting(1.0, 0.4 + 0.4 * float(w[0]), np.zeros(3))
        turn = np.diag([-1.0, -1.0, 1.0])
        shift = np.array([self._foot[0] * 0.7, 0.36, 0.0]) + 0.06 * w * np.array([1, 1, 0])
        local = Primitives()
        local.group = out.group
        draw_hand(local, hand, 1.0, self._looks)
        local.capsule(hand.wrist, hand.wrist - 0.3 * hand.forward + np.array([0, 0, 0.02]), 0.036, self._looks.sleeve)
        out.extend(local.array(), turn, shift - turn @ hand.wrist + np.array([0, 0, 0.035]))
