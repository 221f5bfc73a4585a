"""Options by the command line's own paths, such as "method.weights.cross": what a search changes of an experiment."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from crossview.errors import UserError
from crossview.platform.config import Experiment, from_dict, to_dict

Options = Mapping[str, Any]
"""Value by path; a path may be several, separated by commas, which all take the value."""


def paths_of(key: str) -> list[str]:
    """The single paths that a key of a space names."""
    return [path.strip() for path in key.split(",")]


def known_paths(method: str, experiment: Experiment[Any]) -> list[str]:
    """Every option that a search can set."""
    values = to_dict(method, experiment)
    del values["name"]
    return list(_leaves(values, ""))


def with_options(method: str, experiment: Experiment[Any], options: Options) -> Experiment[Any]:
    """The experiment with these options set, validated as on the command line.

    Raises ValueError for a path that is no option, with the nearest ones, and for a value that the option refuses.
    """
    values = to_dict(method, experiment)
    for key, value in options.items():
        for path in paths_of(key):
            _set(values, path, value, lambda: known_paths(method, experiment))
    return from_dict(values)[1]


def _set(values: dict[str, Any], path: str, value: Any, known: Any) -> None:
    *parents, last = path.split(".")
    place: Any = values
    for part in parents:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place or path == "name" or isinstance(place[last], dict):
        near = difflib.get_close_matches(path, known(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`crossview train METHOD --help` lists the options"
        raise UserError(f"option path {path!r} of the space is unknown; {hint}")
    place[last] = plain(value)


def plain(value: Any) -> Any:
    """A value that JSON can hold, of a number of numpy's too."""
    return value.item() if hasattr(value, "item") else value


def _leaves(values: dict[str, Any], before: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield before + name
