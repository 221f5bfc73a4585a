"""What a stage of a paper's table trains: its preset with the table's changes."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Literal

from crossview.errors import UserError
from crossview.methods.paper_table import Stage
from crossview.methods.recipe import Recipe
from crossview.platform.config import preset

Scale = Literal["paper", "synthetic"]


def recipe_of(stage: Stage, scale: Scale) -> Recipe:
    """The stage's recipe on the paper's data, or scaled down; raises ValueError for what cannot be trained or set."""
    found = changed(preset(stage.trains, stage.preset), stage.options)
    return changed(found, stage.small) if scale == "synthetic" else found


def changed(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """The recipe with options set by dotted names, all at once, so that only the result must be valid."""
    tree: dict[str, Any] = {}
    for name, value in options.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, _Changes())
        place[last] = value
    made: Recipe = _replaced(recipe, tree, "")
    return made


class _Changes(dict[str, Any]):
    """Changes within an option that is a dataclass; any other value replaces the option."""


def _replaced(options: Any, changes: Mapping[str, Any], before: str) -> Any:
    known = {field.name for field in dataclasses.fields(options)}
    values = {}
    for name, value in changes.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or sorted(known)
            raise UserError(f"option {before}{name} is unknown; did you mean {before}{near[0]}?")
        inner = isinstance(value, _Changes)
        values[name] = _replaced(getattr(options, name), value, f"{before}{name}.") if inner else value
    return dataclasses.replace(options, **values)
