"""Geometries as the tables of presets write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from crossview.datasets.sampling.geometry import Geometry


def changes(geometry: Geometry | Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which it differs from `Geometry()`."""
    values = asdict(geometry) if is_dataclass(geometry) and not isinstance(geometry, type) else dict(geometry)  # type: ignore[call-overload]
    return {name: value for name, value in values.items() if value != getattr(Geometry(), name)}
