"""Class lists as datasets publish them: tables with columns NAME_id and NAME_cls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crossview.datasets.catalog.listing import Problems, table
from crossview.errors import UserError

LARGEST_ID = 9_999
_COLUMNS = ("id", *(f"{name}_{part}" for name in ("action", "verb", "noun") for part in ("id", "cls")))


def class_lists(file: Path, columns: Sequence[str], problems: Problems) -> dict[str, dict[int, str]]:
    """Names by id for each of "action", "verb" and "noun" that is asked for; what is wrong is added to `problems`.

    A name that two ids share is followed by its id. Raises UserError where the file is missing.
    """
    if not file.is_file():
        raise UserError(f"{file}: the file is missing; get the annotations again, whole")
    needed = [f"{column}_{part}" for column in columns for part in ("id", "cls")]
    rows = list(table(file, needed, [name for name in _COLUMNS if name not in needed], problems))
    made: dict[str, dict[int, str]] = {}
    for column in columns:
        names = made[column] = {}
        for row in rows:
            text, name = row.values[f"{column}_id"], row.values[f"{column}_cls"]
            place = f"{file}, line {row.number}: {column} {text!r} with the name {name!r}"
            if not (text.isascii() and text.isdigit() and int(text) <= LARGEST_ID and name):
                problems.add(f"{place}; it has an id from 0 to {LARGEST_ID:,} and a name: get the annotations again")
            elif names.setdefault(int(text), name) != name:
                problems.add(f"{place}; the id has the name {names[int(text)]!r} in a line before: correct one")
        twice = {name for name, count in Counter(names.values()).items() if count > 1}
        names.update({number: f"{name} ({number})" for number, name in names.items() if name in twice})
    return made


def as_classes(names: dict[int, str]) -> tuple[str, ...]:
    """The names in the order of their ids; an id that the list leaves out is named by its number."""
    return tuple(names.get(number, f"class {number}") for number in range(max(names, default=-1) + 1))
