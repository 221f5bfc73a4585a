"""The four actions: what hands and objects do at each phase and progress; each is drawn for a right-handed subject.

First and last phases mirror each other (the hand travels with a tool), and every action starts from left-overs of earlier
rounds, so that one frame alone does not tell them apart.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from . import objects as things
from .motion import UP, Layout, between, clamp, path, span
from .person import Hand, unit
from .scene import Material, Primitives, Vector, frame_along

FIRST_OBJECT = 2
"""Group of an action's first object; groups 0 and 1 are the dominant and the other hand."""
GRIP_FORWARD = unit(np.array([-0.35, 0.85, -0.30]))
SIDE_PALM = unit(np.array([-0.92, -0.15, -0.30]))
TOP_FORWARD = unit(np.array([-0.25, 0.75, -0.55]))
TOP_PALM = unit(np.array([-0.30, -0.35, -0.85]))


class Action(Protocol):
    """One action with its random layout and style."""

    objects: tuple[str, ...]
    """Names of the groups FIRST_OBJECT, FIRST_OBJECT + 1, ..."""

    def draw(self, phase: int, p: float, idle: Hand, ready: Hand, out: Primitives) -> tuple[Hand, Hand]:
        """Add the objects at progress p in [0, 1] of a phase; the dominant and the other hand's pose.

        `ready` and `idle` are the two hands' fidgeting rest poses of this instant.
        """


def _mirror(v: Vector) -> Vector:
    return v * np.array([-1.0, 1.0, 1.0])


def _other_on_rim(centre: Vector, radius: float) -> Hand:
    """The other hand steadies a bowl."""
    return Hand.holding(
        centre + np.array([-radius, -0.01, 0.062]),
        unit(np.array([0.45, 0.8, -0.35])),
        unit(np.array([0.8, -0.1, -0.6])),
        0.45,
    )


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
                idle, _other_on_rim(self.at.centre, self.radius), span(p, 0.0, 0.15) * (1 - span(p, 0.85, 1.0))
            )
        if phase == 2:
            return self._open(p, raised, over, idle, out)
        return self._discard(p, over, idle, ready, out)

    def _halves(self, point: Vector, gap: float, curl: float) -> tuple[Hand, Hand]:
        """Both hands with a shell half each, `gap` metres apart."""
        side = np.array([0.5 * gap + 0.016, 0.0, 0.0])
        forward, palm = unit(np.array([-0.45, 0.8, -0.4])), unit(np.array([-0.85, -0.2, -0.45]))
        right = Hand.holding(point + side, forward, palm, curl)
        left = Hand.holding(point - side, _mirror(forward), _mirror(palm), curl)
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
                idle, _other_on_rim(self.at.centre, self.radius), span(p, 0.0, 0.15) * (1 - span(p, 0.85, 1.0))
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


class StrikePeg:
    """Fetch the mallet, set the peg with small taps while holding it, drive it with wide strokes, put the mallet back."""

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
        """How far the peg still stands out, in metres; a drive leaves it where the next round's may start."""
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


ACTIONS: dict[str, type[CrackEgg] | type[PourMilk] | type[StirAndServe] | type[StrikePeg]] = {
    "crack_egg": CrackEgg,
    "pour_milk": PourMilk,
    "stir_and_serve": StirAndServe,
    "strike_peg": StrikePeg,
}
