"""A single-threaded CPU ray caster: a z-buffer over primitives, lit by one lamp, with soft shadows on the table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from .shadows import darken
from .shapes import (
    CENTRE,
    COLOUR,
    COLOUR2,
    FRAME,
    GLOSS,
    GROUP,
    KIND,
    MISS,
    RECEIVES_SHADOW,
    SIZE,
    TEXTURE,
    TEXTURE_SCALE,
    half_extents,
    hit,
    normal,
)  # fmt: skip
from .textures import mix

NOTHING = -1


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: pixel = (focal_px * x / z + centre, focal_px * y / z + centre), x right, y down, z forward.

    `rotation` (3, 3) holds the camera's axes in world coordinates as rows; `position` (3,) in metres.
    """

    position: np.ndarray
    rotation: np.ndarray
    focal_px: float
    size_px: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (N, 3) to pixels and depth (N, 3)."""
        local = (np.atleast_2d(points) - self.position) @ self.rotation.T
        uv = self.focal_px * local[:, :2] / local[:, 2:] + self.size_px / 2
        return np.concatenate([uv, local[:, 2:]], axis=1)


@dataclass(frozen=True)
class Light:
    """A point lamp and how a camera renders colour: `gain` (3,) is white balance times exposure."""

    position: np.ndarray
    ambient: float
    gain: np.ndarray
    gamma: float


@njit(cache=True, fastmath=True)
def _local_rays(row: np.ndarray, pos: np.ndarray, rot: np.ndarray, focal: float, size: int, out: np.ndarray) -> None:
    """Ray origin, per-column step, per-row step and first ray in a primitive's frame -> out (4, 3)."""
    for i in range(3):
        o = 0.0
        ax = np.zeros(3)
        for j in range(3):
            m = row[FRAME + 3 * j + i]
            o += m * (pos[j] - row[CENTRE + j])
            for k in range(3):
                ax[k] += m * rot[k, j]
        out[0, i] = o
        out[1, i] = ax[0] / focal
        out[2, i] = ax[1] / focal
        out[3, i] = ax[2] + (0.5 - size / 2) * (ax[0] + ax[1]) / focal


@njit(cache=True, fastmath=True)
def _bounds(row: np.ndarray, pos: np.ndarray, rot: np.ndarray, focal: float, size: int) -> tuple[int, int, int, int]:
    """Pixel rectangle (left, top, right, bottom; half open) around a primitive."""
    hx, hy, hz = half_extents(row)
    left, top, right, bottom = 1e9, 1e9, -1e9, -1e9
    behind = 0
    for corner in range(8):
        sx = hx if corner & 1 else -hx
        sy = hy if corner & 2 else -hy
        sz = hz if corner & 4 else -hz
        c = np.zeros(3)
        for k in range(3):
            for j in range(3):
                w = row[CENTRE + j] - pos[j]
                w += row[FRAME + 3 * j] * sx + row[FRAME + 3 * j + 1] * sy + row[FRAME + 3 * j + 2] * sz
                c[k] += rot[k, j] * w
        if c[2] < 0.02:
            behind += 1
            continue
        u = focal * c[0] / c[2] + size / 2
        v = focal * c[1] / c[2] + size / 2
        left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    if behind == 8:
        return 0, 0, 0, 0
    if behind > 0:
        return 0, 0, size, size
    return max(0, int(left)), max(0, int(top)), min(size, int(right) + 2), min(size, int(bottom) + 2)


@njit(cache=True, fastmath=True)
def cast(
    prims: np.ndarray, first: int, pos: np.ndarray, rot: np.ndarray, focal: float, depth: np.ndarray, ids: np.ndarray
) -> None:
    """Z-buffer all primitives into depth and ids (S, S); the k-th primitive writes id first + k."""
    size = depth.shape[0]
    rays = np.zeros((4, 3))
    for p in range(prims.shape[0]):
        row = prims[p]
        left, top, right, bottom = _bounds(row, pos, rot, focal, size)
        if right <= left or bottom <= top:
            continue
        _local_rays(row, pos, rot, focal, size, rays)
        kind = int(row[KIND])
        a, b, c, e = row[SIZE], row[SIZE + 1], row[SIZE + 2], row[SIZE + 3]
        for v in range(top, bottom):
            x0, y0, z0 = (rays[3, 0] + v * rays[2, 0], rays[3, 1] + v * rays[2, 1], rays[3, 2] + v * rays[2, 2])
            for u in range(left, right):
                t = hit(kind, a, b, c, e, rays[0], x0 + u * rays[1, 0], y0 + u * rays[1, 1], z0 + u * rays[1, 2])
                if t < depth[v, u]:
                    depth[v, u] = t
                    ids[v, u] = first + p


@njit(cache=True, fastmath=True)
def shade(
    prims: np.ndarray, first: int, pos: np.ndarray, rot: np.ndarray, focal: float, depth: np.ndarray, ids: np.ndarray,
    lamp: np.ndarray, ambient: float, image: np.ndarray,
) -> None:  # fmt: skip
    """Light every pixel whose id is in [first, first + P) into image (S, S, 3), linear colour."""
    size = depth.shape[0]
    rays = np.zeros((prims.shape[0], 4, 3))
    for p in range(prims.shape[0]):
        _local_rays(prims[p], pos, rot, focal, size, rays[p])
    for v in range(size):
        for u in range(size):
            p = ids[v, u] - first
            if p < 0 or p >= prims.shape[0]:
                continue
            row, t = prims[p], depth[v, u]
            r = rays[p]
            dx, dy, dz = (
                r[3, 0] + v * r[2, 0] + u * r[1, 0],
                r[3, 1] + v * r[2, 1] + u * r[1, 1],
                r[3, 2] + v * r[2, 2] + u * r[1, 2],
            )
            x, y, z = r[0, 0] + t * dx, r[0, 1] + t * dy, r[0, 2] + t * dz
            kind = int(row[KIND])
            nx, ny, nz = normal(kind, row[SIZE], row[SIZE + 1], row[SIZE + 2], x, y, z)
            if nx * dx + ny * dy + nz * dz > 0.0:
                nx, ny, nz = -nx, -ny, -nz
            f = FRAME
            wx = row[f] * x + row[f + 1] * y + row[f + 2] * z + row[CENTRE]
            wy = row[f + 3] * x + row[f + 4] * y + row[f + 5] * z + row[CENTRE + 1]
            wz = row[f + 6] * x + row[f + 7] * y + row[f + 8] * z + row[CENTRE + 2]
            gx = row[f] * nx + row[f + 1] * ny + row[f + 2] * nz
            gy = row[f + 3] * nx + row[f + 4] * ny + row[f + 5] * nz
            gz = row[f + 6] * nx + row[f + 7] * ny + row[f + 8] * nz
            lx, ly, lz = lamp[0] - wx, lamp[1] - wy, lamp[2] - wz
            inv = 1.0 / math.sqrt(lx * lx + ly * ly + lz * lz)
            lx, ly, lz = lx * inv, ly * inv, lz * inv
            diffuse = max(0.0, gx * lx + gy * ly + gz * lz)
            ex, ey, ez = pos[0] - wx, pos[1] - wy, pos[2] - wz
            inv = 1.0 / math.sqrt(ex * ex + ey * ey + ez * ez)
            hx, hy, hz = lx + ex * inv, ly + ey * inv, lz + ez * inv
            inv = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz)
            spec = row[GLOSS] * max(0.0, (gx * hx + gy * hy + gz * hz) * inv) ** 32
            sky = ambient * (0.62 + 0.38 * gz)
            if wz > -0.001:
                sky *= 0.6 + 0.4 * min(1.0, max(0.0, wz) / 0.07) if row[RECEIVES_SHADOW] < 0.5 else 1.0
            light = sky + (1.0 - ambient) * 1.15 * diffuse
            s = row[TEXTURE_SCALE]
            m = mix(int(row[TEXTURE]), x * s, y * s, z * s)
            for i in range(3):
                image[v, u, i] = light * (row[COLOUR + i] * (1.0 - m) + row[COLOUR2 + i] * m) + spec


@njit(cache=True, fastmath=True)
def develop(image: np.ndarray, ids: np.ndarray, gain: np.ndarray, curve: np.ndarray, planes: np.ndarray) -> None:
    """Smooth silhouettes, apply gain and tone curve, and write BT.601 limited-range I420 planes (3S/2, S) uint8."""
    size = image.shape[0]
    rgb = np.empty((size, size, 3), np.float32)
    top = curve.shape[0] - 1
    for v in range(size):
        for u in range(size):
            edge = (
                0 < u < size - 1
                and 0 < v < size - 1
                and (
                    ids[v, u] != ids[v, u + 1]
                    or ids[v, u] != ids[v + 1, u]
                    or ids[v, u] != ids[v, u - 1]
                    or ids[v, u] != ids[v - 1, u]
                )
            )
            for c in range(3):
                x = image[v, u, c]
                if edge:
                    x = 0.4 * x + 0.15 * (
                        image[v, u - 1, c] + image[v, u + 1, c] + image[v - 1, u, c] + image[v + 1, u, c]
                    )
                rgb[v, u, c] = curve[min(top, max(0, int(x * gain[c] * top * 0.5)))]
    for v in range(size):
        for u in range(size):
            planes[v, u] = int(16.5 + 65.481 * rgb[v, u, 0] + 128.553 * rgb[v, u, 1] + 24.966 * rgb[v, u, 2])
    half = size // 2
    for v in range(half):
        for u in range(half):
            r = 0.25 * (
                rgb[2 * v, 2 * u, 0]
                + rgb[2 * v + 1, 2 * u, 0]
                + rgb[2 * v, 2 * u + 1, 0]
                + rgb[2 * v + 1, 2 * u + 1, 0]
            )
            g = 0.25 * (
                rgb[2 * v, 2 * u, 1]
                + rgb[2 * v + 1, 2 * u, 1]
                + rgb[2 * v, 2 * u + 1, 1]
                + rgb[2 * v + 1, 2 * u + 1, 1]
            )
            b = 0.25 * (
                rgb[2 * v, 2 * u, 2]
                + rgb[2 * v + 1, 2 * u, 2]
                + rgb[2 * v, 2 * u + 1, 2]
                + rgb[2 * v + 1, 2 * u + 1, 2]
            )
            cb = int(128.5 - 37.797 * r - 74.203 * g + 112.0 * b)
            cr = int(128.5 + 112.0 * r - 93.786 * g - 18.214 * b)
            k = v * half + u
            planes[size + k // size, k % size] = cb
            k += half * half
            planes[size + k // size, k % size] = cr


class View:
    """One camera's renderer over a static room; a fixed camera's room is rendered once."""

    def __init__(self, room: np.ndarray, light: Light, size_px: int) -> None:
        self.room, self.light, self.size_px = room, light, size_px
        self._receives = room[:, RECEIVES_SHADOW] > 0.5
        self._curve = np.clip(np.linspace(0, 2, 1025), 0, 1) ** (1 / light.gamma)
        self._cached: tuple[Camera, np.ndarray, np.ndarray, np.ndarray] | None = None

    def _background(self, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._cached is None or self._cached[0] is not camera:
            s = self.size_px
            depth, ids, image = (
                np.full((s, s), MISS),
                np.full((s, s), NOTHING, np.int32),
                np.zeros((s, s, 3), np.float32),
            )
            cast(self.room, 0, camera.position, camera.rotation, camera.focal_px, depth, ids)
            shade(
                self.room, 0, camera.position, camera.rotation, camera.focal_px, depth, ids, self.light.position,
                self.light.ambient, image,
            )  # fmt: skip
            self._cached = (camera, depth, ids, image)
        return self._cached[1:]

    def render(self, moving: np.ndarray, camera: Camera, shadow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """I420 planes uint8 (3S/2, S), and the group of each pixel int32 (S, S) (-1: the room)."""
        depth, ids, image = (a.copy() for a in self._background(camera))
        first = len(self.room)
        where = (camera.position, camera.rotation, camera.focal_px)
        cast(moving, first, *where, depth, ids)
        darken(self._receives, ids, depth, *where, shadow, 0.75 * (1 - 0.5 * self.light.ambient), image)
        shade(moving, first, *where, depth, ids, self.light.position, self.light.ambient, image)
        planes = np.empty((self.size_px * 3 // 2, self.size_px), np.uint8)
        develop(image, ids, self.light.gain, self._curve, planes)
        groups = np.concatenate([np.full(first + 1, NOTHING), moving[:, GROUP]]).astype(np.int32)
        return planes, groups[ids + 1]
