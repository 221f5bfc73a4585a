"""Four ray-traced primitives in their own frames: ellipsoid (also cut open), box, capsule and cone frustum.

A primitive is one float64 row, its columns named below. Its frame's columns are the axes in world coordinates; a
mirrored frame is allowed. Lengths in metres. Rays are not normalised: t is the depth along the camera's axis.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

ELLIPSOID, BOX, CAPSULE, FRUSTUM = 0, 1, 2, 3
KIND, CENTRE, FRAME, SIZE, COLOUR, COLOUR2, TEXTURE, TEXTURE_SCALE, GLOSS, GROUP, RECEIVES_SHADOW = (
    0, 1, 4, 13, 17, 20, 23, 24, 25, 26, 27,
)  # fmt: skip
COLUMNS = 28
"""SIZE holds: ellipsoid a, b, c, cut (points above cut*c are missing; 1 keeps all); box half extents; capsule radius,
half length along z; frustum bottom radius, top radius, half height, open (1: no top cap)."""
MISS = 1e9


@njit(cache=True, fastmath=True)
def half_extents(row: np.ndarray) -> tuple[float, float, float]:
    """Half extents of the box around a primitive in its own frame."""
    kind = int(row[KIND])
    a, b, c = row[SIZE], row[SIZE + 1], row[SIZE + 2]
    if kind == CAPSULE:
        return a, a, a + b
    if kind == FRUSTUM:
        return max(a, b), max(a, b), c
    return a, b, c


@njit(cache=True, fastmath=True)
def hit(kind: int, a: float, b: float, c: float, e: float, o: np.ndarray, dx: float, dy: float, dz: float) -> float:
    """Smallest t > 0 at which the ray o + t d meets a primitive of sizes a, b, c, e, in its frame; MISS when none."""
    ox, oy, oz = o[0], o[1], o[2]
    if kind == ELLIPSOID:
        px, py, pz, qx, qy, qz = ox / a, oy / b, oz / c, dx / a, dy / b, dz / c
        A = qx * qx + qy * qy + qz * qz
        B = px * qx + py * qy + pz * qz
        D = B * B - A * (px * px + py * py + pz * pz - 1.0)
        if D < 0.0:
            return MISS
        s = math.sqrt(D)
        t = (-B - s) / A
        if t > 0.0 and pz + t * qz <= e:
            return t
        t = (-B + s) / A
        if e < 1.0 and t > 0.0 and pz + t * qz <= e:
            return t
        return MISS
    if kind == BOX:
        near, far = 0.0, MISS
        for p, q, h in ((ox, dx, a), (oy, dy, b), (oz, dz, c)):
            if abs(q) < 1e-9:
                if abs(p) > h:
                    return MISS
                continue
            t0, t1 = (-h - p) / q, (h - p) / q
            near = max(near, min(t0, t1))
            far = min(far, max(t0, t1))
        return near if 0.0 < near <= far else MISS
    if kind == CAPSULE:
        return _hit_capsule(a, b, ox, oy, oz, dx, dy, dz)
    return _hit_frustum(a, b, c, e, ox, oy, oz, dx, dy, dz)


@njit(cache=True, fastmath=True)
def _hit_capsule(r: float, h: float, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> float:
    A = dx * dx + dy * dy
    B = ox * dx + oy * dy
    D = B * B - A * (ox * ox + oy * oy - r * r)
    if D < 0.0:
        return MISS
    z = 2.0 * h
    if A > 1e-12:
        t = (-B - math.sqrt(D)) / A
        z = oz + t * dz
        if abs(z) <= h:
            return t if t > 0.0 else MISS
    elif dz > 0.0:
        z = -2.0 * h
    cz = h if z > 0.0 else -h
    pz = oz - cz
    A = A + dz * dz
    B = B + pz * dz
    D = B * B - A * (ox * ox + oy * oy + pz * pz - r * r)
    if D < 0.0:
        return MISS
    t = (-B - math.sqrt(D)) / A
    return t if t > 0.0 else MISS


@njit(cache=True, fastmath=True)
def _hit_frustum(
    r0: float, r1: float, h: float, is_open: float, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float
) -> float:
    best = MISS
    if abs(dz) > 1e-9:
        for z, r in ((-h, r0), (h, r1)):
            if z > 0.0 and is_open > 0.5:
                continue
            t = (z - oz) / dz
            x, y = ox + t * dx, oy + t * dy
            if 0.0 < t < best and x * x + y * y <= r * r:
                best = t
    k = (r1 - r0) / (2.0 * h)
    m = 0.5 * (r0 + r1) + k * oz
    A = dx * dx + dy * dy - k * k * dz * dz
    B = ox * dx + oy * dy - m * k * dz
    D = B * B - A * (ox * ox + oy * oy - m * m)
    if D < 0.0 or abs(A) < 1e-12:
        return best
    s = math.sqrt(D)
    for t in ((-B - s) / A, (-B + s) / A):
        if 0.0 < t < best and abs(oz + t * dz) <= h:
            best = t
    return best


@njit(cache=True, fastmath=True)
def normal(kind: int, a: float, b: float, c: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Outward unit normal at a surface point, in the primitive's own frame."""
    if kind == ELLIPSOID:
        x, y, z = x / (a * a), y / (b * b), z / (c * c)
    elif kind == BOX:
        ax, ay, az = abs(x) / a, abs(y) / b, abs(z) / c
        if ax >= ay and ax >= az:
            y, z = 0.0, 0.0
        elif ay >= az:
            x, z = 0.0, 0.0
        else:
            x, y = 0.0, 0.0
    elif kind == CAPSULE:
        z -= max(-b, min(b, z))
    else:
        r = math.sqrt(x * x + y * y)
        edge = 0.5 * (a + b) + (b - a) / (2.0 * c) * z
        if abs(abs(z) - c) < 1e-5 and r < edge - 1e-5:
            x, y = 0.0, 0.0
        else:
            z = -(b - a) / (2.0 * c) * r
    n = 1.0 / math.sqrt(x * x + y * y + z * z + 1e-20)
    return x * n, y * n, z * n
