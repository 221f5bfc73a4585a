"""Presets as their tables write them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from geometries import changes

from crossview.methods.recipe import Recipe


def flat(value: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, by dotted path; an empty one is a value."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if name == "label_options":  # for messages
            continue
        if name == "geometry":
            found[f"{at}{name}"] = changes(inner)
            continue
        found |= flat(inner, f"{at}{name}.") if isinstance(inner, dict) and inner else {f"{at}{name}": inner}
    return found


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Every option of a recipe, and what it asks of the data, by dotted path."""
    return flat({**asdict(recipe), "sampling": asdict(recipe.method.sampling())})
