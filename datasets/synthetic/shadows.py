"""Soft shadows of everything that moves, as one map on the table per instant, shared by all cameras."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .shapes import CAPSULE, CENTRE, FRAME, FRUSTUM, KIND, half_extents

SHADOW_CELLS = 128
SHADOW_SPAN_M = 1.6
"""The shadow map covers a square of this side around the table's centre, at z = 0."""


@njit(cache=True, fastmath=True)
def shadow_map(prims: np.ndarray, lamp: np.ndarray, out: np.ndarray) -> None:
    """Soft shadow of each primitive's long axis on the plane z = 0 -> out (cells, cells) in [0, 1], rows along y."""
    cells = out.shape[0]
    out[:] = 0.0
    step = SHADOW_SPAN_M / cells
    for p in range(prims.shape[0]):
        row = prims[p]
        e = np.array(half_extents(row))
        kind = int(row[KIND])
        axis = 2 if kind in (CAPSULE, FRUSTUM) else int(np.argmax(e))
        if kind == FRUSTUM and e[2] < e[0]:
            axis = 0
        radius = 0.0
        for k in range(3):
            if k != axis:
                radius += 0.5 * e[k]
        reach = max(0.0, e[axis] - radius)
        ends = np.zeros((2, 3))
        for k in range(3):
            d = row[FRAME + 3 * k + axis] * reach
            ends[0, k], ends[1, k] = row[CENTRE + k] - d, row[CENTRE + k] + d
        height = 0.5 * (ends[0, 2] + ends[1, 2])
        if height < -0.02 or max(ends[0, 2], ends[1, 2]) > lamp[2] - 0.2:
            continue
        for k in range(2):
            s = ends[k, 2] / (lamp[2] - ends[k, 2])
            ends[k, 0] += (ends[k, 0] - lamp[0]) * s
            ends[k, 1] += (ends[k, 1] - lamp[1]) * s
        soft = 0.012 + 0.16 * max(0.0, height)
        dark = 0.85 * radius / (radius + 0.35 * soft)
        _splat(ends, radius, soft, dark, step, out)


@njit(cache=True, fastmath=True)
def _splat(ends: np.ndarray, radius: float, soft: float, dark: float, step: float, out: np.ndarray) -> None:
    cells = out.shape[0]
    reach = radius + soft
    half = SHADOW_SPAN_M / 2
    x0 = max(0, int((min(ends[0, 0], ends[1, 0]) - reach + half) / step))
    x1 = min(cells, int((max(ends[0, 0], ends[1, 0]) + reach + half) / step) + 1)
    y0 = max(0, int((min(ends[0, 1], ends[1, 1]) - reach + half) / step))
    y1 = min(cells, int((max(ends[0, 1], ends[1, 1]) + reach + half) / step) + 1)
    bx, by = ends[1, 0] - ends[0, 0], ends[1, 1] - ends[0, 1]
    bb = bx * bx + by * by + 1e-12
    for j in range(y0, y1):
        for i in range(x0, x1):
            px, py = (i + 0.5) * step - half - ends[0, 0], (j + 0.5) * step - half - ends[0, 1]
            s = min(1.0, max(0.0, (px * bx + py * by) / bb))
            d = math.sqrt((px - s * bx) ** 2 + (py - s * by) ** 2)
            w = min(1.0, max(0.0, (radius + soft - d) / (2.0 * soft)))
            w = w * w * (3 - 2 * w) * dark
            out[j, i] = out[j, i] + (1.0 - out[j, i]) * w


@njit(cache=True, fastmath=True)
def darken(
    receives: np.ndarray, ids: np.ndarray, depth: np.ndarray, pos: np.ndarray, rot: np.ndarray, focal: float,
    shadow: np.ndarray, strength: float, image: np.ndarray,
) -> None:  # fmt: skip
    """Lay the shadow map over the pixels whose static primitive receives it."""
    size, cells = depth.shape[0], shadow.shape[0]
    for v in range(size):
        for u in range(size):
            k = ids[v, u]
            if k < 0 or k >= receives.shape[0] or not receives[k]:
                continue
            a, b, t = (u + 0.5 - size / 2) / focal, (v + 0.5 - size / 2) / focal, depth[v, u]
            x = pos[0] + t * (a * rot[0, 0] + b * rot[1, 0] + rot[2, 0])
            y = pos[1] + t * (a * rot[0, 1] + b * rot[1, 1] + rot[2, 1])
            fx = (x / SHADOW_SPAN_M + 0.5) * cells - 0.5
            fy = (y / SHADOW_SPAN_M + 0.5) * cells - 0.5
            if fx < 0 or fy < 0 or fx >= cells - 1 or fy >= cells - 1:
                continue
            i, j = int(fx), int(fy)
            fx, fy = fx - i, fy - j
            s = (shadow[j, i] * (1 - fx) + shadow[j, i + 1] * fx) * (1 - fy) + (
                shadow[j + 1, i] * (1 - fx) + shadow[j + 1, i + 1] * fx
            ) * fy
            for c in range(3):
                image[v, u, c] *= 1.0 - strength * s
