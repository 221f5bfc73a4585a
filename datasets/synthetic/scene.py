"""Collecting the primitives of one instant, with materials and the group (hand, object) that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from .shapes import (
    BOX,
    CAPSULE,
    CENTRE,
    COLOUR,
    COLUMNS,
    ELLIPSOID,
    FRAME,
    FRUSTUM,
    GLOSS,
    GROUP,
    KIND,
    RECEIVES_SHADOW,
    SIZE,
)  # fmt: skip
from .textures import PLAIN

Vector = np.ndarray
UNNAMED = -1


@dataclass(frozen=True)
class Material:
    """Two colours (linear RGB in [0, 1]) mixed by a solid texture of `scale` cells per metre."""

    colour: tuple[float, float, float]
    colour2: tuple[float, float, float] = (0.0, 0.0, 0.0)
    texture: int = PLAIN
    scale: float = 10.0
    gloss: float = 0.1

    def row(self) -> np.ndarray:
        """The material's columns of a primitive, COLOUR up to and with GLOSS."""
        return np.array([*self.colour, *self.colour2, self.texture, self.scale, self.gloss])


@njit(cache=True)
def frame_along(z: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Orthonormal columns (x, y, z): z along `z`, x as near to `towards` as can be; zero vectors are not allowed."""
    out = np.zeros((3, 3))
    out[:, 2] = z / np.sqrt((z * z).sum())
    x = towards - (towards * out[:, 2]).sum() * out[:, 2]
    if (x * x).sum() < 1e-8:
        least = np.argmin(np.abs(out[:, 2]))
        x = -out[least, 2] * out[:, 2]
        x[least] += 1.0
    out[:, 0] = x / np.sqrt((x * x).sum())
    out[0, 1] = out[1, 2] * out[2, 0] - out[2, 2] * out[1, 0]
    out[1, 1] = out[2, 2] * out[0, 0] - out[0, 2] * out[2, 0]
    out[2, 1] = out[0, 2] * out[1, 0] - out[1, 2] * out[0, 0]
    return out


@njit(cache=True)
def _fill(
    row: np.ndarray, kind: int, centre: np.ndarray, frame: np.ndarray, a: float, b: float, c: float, e: float
) -> None:
    row[KIND] = kind
    row[CENTRE : CENTRE + 3] = centre
    row[FRAME : FRAME + 9] = frame.reshape(9)
    row[SIZE], row[SIZE + 1], row[SIZE + 2], row[SIZE + 3] = a, b, c, e


@njit(cache=True)
def _fill_capsule(row: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    d = end - start
    length = np.sqrt((d * d).sum())
    if length < 1e-6:
        d = np.array([0.0, 0.0, 1.0])
    _fill(row, CAPSULE, 0.5 * (start + end), frame_along(d, np.array([1.0, 0.1, 0.0])), radius, 0.5 * length, 0.0, 0.0)


UPRIGHT = np.eye(3)


def upright(angle_rad: float) -> np.ndarray:
    """An upright frame, turned about the vertical."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


class Primitives:
    """Rows for the renderer, added shape by shape; `group` holds for the shapes that follow."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self.group = UNNAMED

    def _new(self, material: Material) -> np.ndarray:
        row = np.zeros(COLUMNS)
        row[COLOUR : GLOSS + 1] = material.row()
        row[GROUP] = self.group
        self._rows.append(row)
        return row

    def ellipsoid(
        self,
        centre: Vector,
        radii: tuple[float, float, float],
        material: Material,
        frame: np.ndarray = UPRIGHT,
        cut: float = 1.0,
    ) -> None:
        """An ellipsoid; with `cut` < 1 a hollow shell without its top."""
        _fill(self._new(material), ELLIPSOID, np.asarray(centre, float), frame, *radii, cut)

    def box(
        self,
        centre: Vector,
        half: tuple[float, float, float],
        material: Material,
        frame: np.ndarray = UPRIGHT,
        shadow: bool = False,
    ) -> None:
        """A box; `shadow` lets it receive the shadow map (the table's top, at z = 0)."""
        row = self._new(material)
        _fill(row, BOX, np.asarray(centre, float), frame, *half, 0.0)
        row[RECEIVES_SHADOW] = float(shadow)

    def capsule(self, start: Vector, end: Vector, radius: float, material: Material) -> None:
        """A rod with round ends."""
        _fill_capsule(self._new(material), start, end, radius)

    def frustum(
        self,
        base: Vector,
        height: float,
        bottom: float,
        top: float,
        material: Material,
        frame: np.ndarray = UPRIGHT,
        is_open: bool = False,
    ) -> None:
        """A cone frustum standing on `base` along the frame's z axis; open ones are hollow vessels."""
        half = height / 2
        centre = np.asarray(base, float) + half * frame[:, 2]
        _fill(self._new(material), FRUSTUM, centre, frame, bottom, top, half, float(is_open))

    def extend(self, rows: np.ndarray, turn: np.ndarray, shift: Vector) -> None:
        """Add finished rows, turned about the origin by the rotation `turn` and then moved by `shift` (metres)."""
        for row in rows:
            row = row.copy()
            row[CENTRE : CENTRE + 3] = turn @ row[CENTRE : CENTRE + 3] + shift
            row[FRAME : FRAME + 9] = (turn @ row[FRAME : FRAME + 9].reshape(3, 3)).reshape(9)
            self._rows.append(row)

    def array(self) -> np.ndarray:
        """All rows (P, COLUMNS)."""
        return np.array(self._rows).reshape(-1, COLUMNS)


def mirrored(rows: np.ndarray) -> np.ndarray:
    """The same primitives reflected in the plane x = 0 (a left-handed subject)."""
    out = rows.copy()
    out[:, CENTRE] *= -1
    out[:, FRAME : FRAME + 3] *= -1
    return out
