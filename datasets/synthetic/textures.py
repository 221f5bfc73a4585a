"""Procedural solid textures: a mix of two colours as a function of the point in the primitive's own frame."""

from __future__ import annotations

import math

from numba import njit

PLAIN, CHECKS, STRIPES, WOOD, NOISE, DOTS = 0, 1, 2, 3, 4, 5


@njit(cache=True, fastmath=True)
def _lattice(i: int, j: int, k: int) -> float:
    h = (i * 374761393 + j * 668265263 + k * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65535.0


@njit(cache=True, fastmath=True)
def value_noise(x: float, y: float, z: float) -> float:
    """Trilinear value noise in [0, 1] with unit lattice."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    i, j, k = int(i), int(j), int(k)
    low = (_lattice(i, j, k) * (1 - u) + _lattice(i + 1, j, k) * u) * (1 - v) + (
        _lattice(i, j + 1, k) * (1 - u) + _lattice(i + 1, j + 1, k) * u
    ) * v
    high = (_lattice(i, j, k + 1) * (1 - u) + _lattice(i + 1, j, k + 1) * u) * (1 - v) + (
        _lattice(i, j + 1, k + 1) * (1 - u) + _lattice(i + 1, j + 1, k + 1) * u
    ) * v
    return low * (1 - w) + high * w


@njit(cache=True, fastmath=True)
def mix(texture: int, x: float, y: float, z: float) -> float:
    """Share of the second colour in [0, 1] at a point; coordinates already carry the texture's scale."""
    if texture == CHECKS:
        return float((math.floor(x) + math.floor(y) + math.floor(z + 0.5)) & 1)
    if texture == STRIPES:
        return 1.0 if math.sin(6.2832 * x) > 0.2 else 0.0
    if texture == WOOD:
        ring = y * 1.6 + 0.8 * value_noise(x * 0.5, y * 2.0, z)
        grain = value_noise(x * 1.2, y * 22.0, z)
        board = math.floor(y * 0.7)
        return 0.45 * (0.5 + 0.5 * math.sin(14.0 * ring)) + 0.35 * grain + 0.2 * _lattice(int(board), 3, 7)
    if texture == NOISE:
        return 0.65 * value_noise(x, y, z) + 0.35 * value_noise(x * 2.7, y * 2.7, z * 2.7)
    if texture == DOTS:
        u, v = x - math.floor(x) - 0.5, y - math.floor(y) - 0.5
        return 1.0 if u * u + v * v < 0.09 else 0.0
    return 0.0
