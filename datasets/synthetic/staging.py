"""What the actions share: the contract, grips, and how the other hand helps."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .person import Hand, unit
from .scene import Primitives, Vector

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


def mirror(v: Vector) -> Vector:
    """The vector on the other hand's side."""
    return v * np.array([-1.0, 1.0, 1.0])


def other_on_rim(centre: Vector, radius: float) -> Hand:
    """The other hand steadies a bowl."""
    return Hand.holding(
        centre + np.array([-radius, -0.01, 0.062]),
        unit(np.array([0.45, 0.8, -0.35])),
        unit(np.array([0.8, -0.1, -0.6])),
        0.45,
    )
