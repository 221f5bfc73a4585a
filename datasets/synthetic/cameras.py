"""Where cameras are: fixed exo cameras around the table, and cameras worn on head, chest and temples."""

from __future__ import annotations

import numpy as np

from .config import EGO_VIEWS
from .motion import Wobble
from .person import HEAD_M, unit
from .render import Camera, Light
from .scene import Vector

WORKSPACE_M = np.array([0.0, 0.05, 0.05])
_EGO_OFFSET_M = {
    "head": np.array([0.0, 0.08, 0.06]),
    "chest": np.array([0.0, 0.13, -0.20]),
    "temple_left": np.array([-0.10, 0.04, 0.0]),
    "temple_right": np.array([0.10, 0.04, 0.0]),
}
_EGO_WIDTH_M = {"head": 0.60, "chest": 0.62, "temple_left": 0.60, "temple_right": 0.60}


def look_at(position: Vector, target: Vector, roll_rad: float = 0.0) -> np.ndarray:
    """Camera axes (right, down, forward) as rows for a camera at `position` that looks at `target`."""
    forward = unit(target - position)
    right = np.array([forward[1], -forward[0], 0.0])
    right = unit(right)
    down = np.array(
        [
            forward[1] * right[2] - forward[2] * right[1],
            forward[2] * right[0] - forward[0] * right[2],
            forward[0] * right[1] - forward[1] * right[0],
        ]
    )
    c, s = np.cos(roll_rad), np.sin(roll_rad)
    return np.stack([c * right + s * down, c * down - s * right, forward])


def view_names(ego: int, exo: int) -> list[str]:
    """Camera names of a scene, ego first."""
    return [*EGO_VIEWS[:ego], *(f"exo{k + 1}" for k in range(exo))]


def is_ego(view: str) -> bool:
    """Whether a camera is worn."""
    return view in EGO_VIEWS


def exo_camera(rng: np.random.Generator, number: int, of: int, held_out: bool, size_px: int) -> Camera:
    """Fixed camera `number` of `of`, facing the person from left to right; held-out ones are in between."""
    spacing = 150.0 / max(of, 2)
    azimuth = -75.0 + spacing * (number + (0.75 if held_out else 0.25)) + rng.uniform(-6, 6)
    elevation = (47.0, 57.0)[number % 2] + (3.0 if held_out else 0.0) + rng.uniform(-4, 4)
    distance = rng.uniform(1.05, 1.4)
    a, e = np.radians(azimuth), np.radians(elevation)
    position = WORKSPACE_M + distance * np.array([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])
    target = WORKSPACE_M + rng.uniform(-0.03, 0.03, 3)
    focal = size_px * distance / rng.uniform(0.58, 0.66)
    return Camera(position, look_at(position, target, rng.uniform(-0.06, 0.06)), focal, size_px)


class WornCamera:
    """A camera on the wearer: it bobs, and turns partly and late towards the busy hand."""

    def __init__(self, rng: np.random.Generator, view: str, size_px: int) -> None:
        self._position = HEAD_M + _EGO_OFFSET_M[view] + rng.uniform(-0.015, 0.015, 3)
        self._bob, self._glance = Wobble(rng), Wobble(rng, low_hz=0.1, high_hz=0.6)
        self._follow = 0.35 if view != "chest" else 0.05
        distance = float(np.linalg.norm(self._position - WORKSPACE_M))
        self._focal = size_px * distance / (_EGO_WIDTH_M[view] * rng.uniform(0.95, 1.1))
        self._size_px = size_px
        self._gaze: Vector | None = None

    def at(self, time_s: float, hand: Vector) -> Camera:
        """The camera at the next instant; call it in order, it carries the gaze's lag."""
        wanted = WORKSPACE_M + self._follow * (hand - WORKSPACE_M)
        self._gaze = wanted if self._gaze is None else self._gaze + 0.12 * (wanted - self._gaze)
        position = self._position + 0.016 * self._bob(time_s)
        return Camera(position, look_at(position, self._gaze + 0.03 * self._glance(time_s)), self._focal, self._size_px)


def light_of(rng: np.random.Generator, lamp: Vector, ambient: float) -> Light:
    """How one camera of one scene renders colour: white balance, exposure and tone curve."""
    gain = rng.uniform(0.72, 1.32, 3) * rng.uniform(0.7, 1.35)
    return Light(lamp, ambient, gain, float(rng.uniform(1.5, 2.3)))
