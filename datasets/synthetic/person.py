"""The articulated person: torso, head, arms by two-bone inverse kinematics, hands with a palm and five fingers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .scene import Material, Primitives, Vector, frame_along
from .textures import CHECKS, NOISE, STRIPES

DOMINANT, OTHER = 0, 1
HAND = 1.4
"""Hands are drawn this much larger than life, so that contact stays visible in small frames."""
SHOULDER_M = np.array([0.21, -0.36, 0.34])
HEAD_M = np.array([0.0, -0.30, 0.60])
UPPER_M, LOWER_M = 0.31, 0.30
GRASP_FORWARD_M, GRASP_DOWN_M = 0.072 * HAND, 0.042 * HAND


def unit(v: Vector) -> Vector:
    """The vector at length 1."""
    return v / np.sqrt((v * v).sum())


@dataclass(frozen=True)
class Hand:
    """A hand's pose: wrist (metres), finger direction, normal out of the palm, curl from 0 (open) to 1 (fist)."""

    wrist: Vector
    forward: Vector
    palm: Vector
    curl: float

    @staticmethod
    def holding(point: Vector, forward: Vector, palm: Vector, curl: float) -> Hand:
        """The pose whose curled fingers enclose `point`."""
        frame = frame_along(np.asarray(forward, float), np.asarray(palm, float))
        return Hand(point - GRASP_FORWARD_M * frame[:, 2] - GRASP_DOWN_M * frame[:, 0], frame[:, 2], frame[:, 0], curl)

    @property
    def grasp(self) -> Vector:
        """The point that the fingers enclose."""
        frame = frame_along(self.forward, self.palm)
        return self.wrist + GRASP_FORWARD_M * frame[:, 2] + GRASP_DOWN_M * frame[:, 0]


@dataclass(frozen=True)
class Looks:
    """A subject's appearance."""

    skin: Material
    sleeve: Material
    torso: Material
    hair: Material
    long_sleeves: bool
    watch: Material | None
    girth: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Looks:
        """Random skin, clothes and build."""
        tone = np.array([0.78, 0.52, 0.38]) * rng.uniform(0.28, 1.1) * rng.uniform(0.9, 1.1, 3)

        def cloth() -> Material:
            first, second = (tuple(rng.uniform(0.03, 0.85, 3)) for _ in range(2))
            return Material(first, second, int(rng.choice([CHECKS, STRIPES, NOISE])), float(rng.uniform(12, 40)), 0.02)

        sleeve = cloth()
        return Looks(
            skin=Material(tuple(tone), tuple(tone * 0.82), NOISE, 60.0, 0.08),
            sleeve=sleeve,
            torso=sleeve if rng.random() < 0.6 else cloth(),
            hair=Material(
                tuple(rng.uniform(0.01, 0.35) * np.array([1.0, 0.75, 0.5])), (0.02, 0.02, 0.02), NOISE, 90.0, 0.15
            ),
            long_sleeves=bool(rng.random() < 0.5),
            watch=Material(tuple(rng.uniform(0.05, 0.9, 3)), gloss=0.5) if rng.random() < 0.4 else None,
            girth=float(rng.uniform(0.85, 1.15)),
        )


def _elbow(shoulder: Vector, wrist: Vector, side: float) -> Vector:
    """Elbow of the two-bone arm that reaches `wrist`, bent down and outwards; bones stretch when out of reach."""
    d = wrist - shoulder
    distance = float(np.sqrt((d * d).sum()))
    along = min(distance, UPPER_M + LOWER_M - 0.005)
    x = (UPPER_M**2 - LOWER_M**2 + along**2) / (2 * along)
    lift = np.sqrt(max(0.0, UPPER_M**2 - x**2))
    frame = frame_along(d, np.array([0.9 * side, -0.3, -0.75]))
    return shoulder + frame[:, 2] * x * distance / along + frame[:, 0] * lift


def draw_arm(out: Primitives, hand: Hand, side: float, looks: Looks) -> None:
    """Shoulder to wrist; `side` is +1 for the dominant arm (x > 0), -1 for the other."""
    shoulder = SHOULDER_M * np.array([side, 1.0, 1.0])
    elbow = _elbow(shoulder, hand.wrist, side)
    g = looks.girth
    out.capsule(shoulder, elbow, 0.050 * g, looks.sleeve)
    fore = hand.wrist - elbow
    if looks.long_sleeves:
        out.capsule(elbow, elbow + 0.42 * fore, 0.043 * g, looks.sleeve)
        out.capsule(elbow + 0.42 * fore, elbow + 0.86 * fore, 0.038 * g, looks.sleeve)
    else:
        out.capsule(elbow, elbow + 0.5 * fore, 0.039 * g, looks.skin)
    out.capsule(elbow + 0.45 * fore, hand.wrist, 0.029 * g, looks.skin)
    if looks.watch is not None and side < 0:
        out.frustum(
            elbow + 0.87 * fore, 0.022, 0.035 * g, 0.034 * g, looks.watch, frame_along(fore, np.array([0.0, 0.0, 1.0]))
        )


def draw_hand(out: Primitives, hand: Hand, side: float, looks: Looks) -> None:
    """Palm, four two-jointed fingers and a thumb."""
    frame = frame_along(hand.forward, hand.palm)
    down, fwd = frame[:, 0], frame[:, 2]
    # the thumb is towards the body's middle when the palm faces down
    across = (
        np.array(
            [
                fwd[1] * down[2] - fwd[2] * down[1],
                fwd[2] * down[0] - fwd[0] * down[2],
                fwd[0] * down[1] - fwd[1] * down[0],
            ]
        )
        * side
    )
    skin = looks.skin
    out.ellipsoid(hand.wrist + 0.048 * HAND * fwd, (0.020 * HAND, 0.041 * HAND, 0.054 * HAND), skin, frame)
    for k in range(4):
        spread = (k - 1.5) * 0.0205 * HAND
        base = hand.wrist + (0.088 - 0.004 * abs(k - 1.2)) * HAND * fwd - spread * across
        length = (0.040, 0.044, 0.041, 0.033)[k] * HAND
        bend = 0.12 + 1.15 * hand.curl
        mid = base + length * (np.cos(bend) * fwd + np.sin(bend) * down)
        bend = bend + 0.15 + 0.95 * hand.curl
        tip = mid + 0.85 * length * (np.cos(bend) * fwd + np.sin(bend) * down)
        out.capsule(base, mid, 0.0098 * HAND, skin)
        out.capsule(mid, tip, 0.0086 * HAND, skin)
    bend = 0.15 + 0.9 * hand.curl
    base = hand.wrist + 0.030 * HAND * fwd + 0.032 * HAND * across
    mid = base + 0.036 * HAND * unit(0.75 * across + 0.55 * fwd + 0.8 * np.sin(bend) * down)
    tip = mid + 0.034 * HAND * unit(0.85 * fwd + (0.25 - 0.5 * hand.curl) * across + np.sin(bend) * down)
    out.capsule(base, mid, 0.0115 * HAND, skin)
    out.capsule(mid, tip, 0.0100 * HAND, skin)


def draw_trunk(out: Primitives, looks: Looks) -> None:
    """Torso and neck (what a head camera may see of its wearer)."""
    g = looks.girth
    turn = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    out.ellipsoid(np.array([0.0, -0.42, 0.10]), (0.185 * g, 0.115 * g, 0.36), looks.torso, turn)
    out.capsule(np.array([-0.17, -0.40, 0.33]), np.array([0.17, -0.40, 0.33]), 0.062 * g, looks.torso)


def draw_head(out: Primitives, looks: Looks, gaze: Vector) -> None:
    """Head, hair, nose and ears; left out for cameras that sit on it."""
    out.capsule(HEAD_M + np.array([0, -0.07, -0.22]), HEAD_M + np.array([0, -0.03, -0.08]), 0.05, looks.skin)
    forward = unit(np.asarray(gaze) - HEAD_M)
    frame = frame_along(forward, np.array([1.0, 0.0, 0.0]))
    up = frame[:, 1] if frame[2, 1] > 0 else -frame[:, 1]
    centre = HEAD_M - 0.06 * forward
    out.ellipsoid(centre, (0.080, 0.115, 0.098), looks.skin, frame)
    out.ellipsoid(centre + 0.028 * up - 0.018 * forward, (0.088, 0.105, 0.098), looks.hair, frame)
    out.capsule(centre + 0.094 * forward, centre + 0.108 * forward - 0.028 * up, 0.012, looks.skin)
    eye = Material((0.02, 0.02, 0.03), gloss=0.6)
    for s in (-1.0, 1.0):
        out.ellipsoid(centre + 0.088 * forward + s * 0.032 * frame[:, 0] + 0.012 * up, (0.011, 0.011, 0.011), eye)
