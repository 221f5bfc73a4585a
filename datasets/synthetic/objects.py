"""Things on the table, built of parts; positions are their feet unless said otherwise."""

from __future__ import annotations

import numpy as np

from .scene import UPRIGHT, Material, Primitives, Vector, frame_along
from .textures import CHECKS, DOTS, NOISE, PLAIN, STRIPES, WOOD

WHITE = Material((0.93, 0.92, 0.88), gloss=0.35)
SHELL = Material((0.90, 0.80, 0.66), (0.82, 0.68, 0.52), NOISE, 160.0, 0.2)
CRACK = Material((0.12, 0.09, 0.06), gloss=0.0)
EGG_WHITE = Material((0.90, 0.88, 0.70), gloss=0.8)
YOLK = Material((0.98, 0.62, 0.05), gloss=0.7)
EGG_RADII = (0.033, 0.033, 0.042)


def painted(rng: np.random.Generator, gloss: float = 0.3) -> Material:
    """A random glaze: any colour, plain or patterned."""
    texture = int(rng.choice([PLAIN, PLAIN, PLAIN, CHECKS, STRIPES, DOTS, NOISE]))
    first, other = rng.uniform(0.05, 0.9, (2, 3))
    return Material(tuple(first), tuple(0.45 * first + 0.55 * other), texture, float(rng.uniform(25, 60)), gloss)


def cloth(rng: np.random.Generator) -> Material:
    """A table's colours: muted, patterned tone in tone."""
    grey = rng.uniform(0.12, 0.8)
    first = np.clip(grey + rng.uniform(-0.12, 0.12, 3), 0.03, 0.95)
    texture = int(rng.choice([CHECKS, STRIPES, DOTS, NOISE]))
    return Material(tuple(first), tuple(first * rng.uniform(0.65, 0.9)), texture, float(rng.uniform(14, 30)), 0.03)


def wooden(rng: np.random.Generator) -> Material:
    """A random wood."""
    tone = np.array([0.62, 0.40, 0.22]) * rng.uniform(0.5, 1.35)
    return Material(tuple(tone), tuple(tone * rng.uniform(0.35, 0.7)), WOOD, float(rng.uniform(14, 30)), 0.12)


def bowl(out: Primitives, foot: Vector, radius: float, material: Material) -> None:
    """A hollow half ellipsoid on a foot ring."""
    out.ellipsoid(foot + np.array([0, 0, 0.062]), (radius, radius, 0.058), material, cut=0.0)
    out.frustum(foot, 0.012, 0.4 * radius, 0.36 * radius, material)


def plate(out: Primitives, foot: Vector, radius: float, material: Material) -> None:
    """A flat dish with a raised rim."""
    out.frustum(foot, 0.006, 0.7 * radius, 0.7 * radius, material)
    out.frustum(foot, 0.016, 0.7 * radius, radius, material, is_open=True)


def egg(out: Primitives, centre: Vector, frame: np.ndarray, cracked: bool) -> None:
    """A whole egg, long axis along the frame's z; `cracked` draws the jagged line."""
    out.ellipsoid(centre, EGG_RADII, SHELL, frame)
    if cracked:
        for k in range(7):
            a, b = 0.9 * k, 0.9 * (k + 1)
            z = 0.006 if k % 2 else -0.006
            start = frame @ np.array([0.0325 * np.cos(a), 0.0325 * np.sin(a), z])
            end = frame @ np.array([0.0325 * np.cos(b), 0.0325 * np.sin(b), -z])
            out.capsule(centre + start, centre + end, 0.0028, CRACK)


def half_shell(out: Primitives, centre: Vector, outwards: Vector) -> None:
    """Half an eggshell, closed towards `outwards`, open on the other side."""
    out.ellipsoid(
        centre, EGG_RADII, SHELL, frame_along(-np.asarray(outwards, float), np.array([0.0, 0.3, 1.0])), cut=0.0
    )


def pitcher(out: Primitives, centre: Vector, tilt_rad: float, material: Material, milk: Material) -> None:
    """Body, spout and handle (towards +x), tipped towards -x about its centre."""
    c, s = np.cos(tilt_rad), np.sin(tilt_rad)
    frame = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])

    def at(x: float, y: float, z: float) -> Vector:
        return centre + frame @ np.array([x, y, z])

    out.frustum(at(0, 0, -0.075), 0.15, 0.052, 0.040, material, frame, is_open=True)
    out.capsule(at(-0.036, 0, 0.055), at(-0.056, 0, 0.073), 0.013, material)
    out.capsule(at(0.045, 0, 0.055), at(0.085, 0, 0.045), 0.009, material)
    out.capsule(at(0.085, 0, 0.045), at(0.085, 0, -0.035), 0.009, material)
    out.capsule(at(0.085, 0, -0.035), at(0.050, 0, -0.055), 0.009, material)
    out.frustum(at(0, 0, 0.030), 0.004, 0.042, 0.042, milk, frame)


def cup(out: Primitives, foot: Vector, level: float, material: Material, milk: Material) -> None:
    """An open tumbler filled to `level` (share of its height)."""
    out.frustum(foot, 0.085, 0.034, 0.045, material, is_open=True)
    height = 0.006 + 0.068 * level
    out.frustum(foot + np.array([0, 0, height]), 0.003, 0.034 + 0.010 * level, 0.034 + 0.010 * level, milk)


def spoon(out: Primitives, tip: Vector, handle: Vector, material: Material) -> None:
    """A ladle: `tip` is its bowl's centre, `handle` the unit direction of its stick."""
    out.capsule(tip + 0.02 * handle, tip + 0.215 * handle, 0.0085, material)
    out.ellipsoid(tip, (0.030, 0.030, 0.020), material)


def hammer(out: Primitives, grip: Vector, along: Vector, face: Vector, handle: Material, head: Material) -> None:
    """A mallet held at `grip`; `along` points from grip to head, `face` the way it strikes."""
    top = grip + 0.20 * along
    out.capsule(grip - 0.07 * along, top, 0.0115, handle)
    frame = frame_along(face, along)
    out.frustum(top - 0.055 * frame[:, 2], 0.11, 0.030, 0.030, head, frame)


def clutter(out: Primitives, kind: int, foot: Vector, size: float, turn: np.ndarray, material: Material) -> None:
    """One of six unrelated things: box, tin, ball, bottle, bowl or stack of books."""
    up = np.array([0.0, 0.0, 1.0])
    if kind == 0:
        out.box(foot + 0.9 * size * up, (size, 0.6 * size, 0.9 * size), material, turn)
    elif kind == 1:
        out.frustum(foot, 1.8 * size, 0.7 * size, 0.7 * size, material, turn)
    elif kind == 2:
        out.ellipsoid(foot + 0.8 * size * up, (0.8 * size, 0.8 * size, 0.8 * size), material, turn)
    elif kind == 3:
        out.frustum(foot, 2.0 * size, 0.62 * size, 0.55 * size, material, turn)
        out.frustum(foot + 2.0 * size * up, 1.1 * size, 0.25 * size, 0.2 * size, material, UPRIGHT)
    elif kind == 4:
        bowl(out, foot, 1.3 * size, material)
    else:
        for k in range(3):
            out.box(
                foot + (0.2 + 0.4 * k) * size * up, ((1.3 - 0.1 * k) * size, 0.9 * size, 0.19 * size), material, turn
            )
