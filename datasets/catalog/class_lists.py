"""Class lists as datasets publish them: a name per line, or tables with columns for numbers and names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from crossview.datasets.catalog.classes import distinct
from crossview.datasets.catalog.listing import Problems, Row, table, text_lines, whole_number
from crossview.errors import UserError

LARGEST_ID = 9_999
_COLUMNS = ("id", *(f"{name}_{part}" for name in ("action", "verb", "noun") for part in ("id", "cls")))


def names_in(file: Path, count: int | None = None) -> tuple[str, ...]:
    """Names of classes, one per line in the order of their numbers; raises UserError unless they differ.

    Of `count` classes, if it is given, else of any number.
    """
    names = tuple(line.strip() for _, line in text_lines(file))
    if len(set(names)) < len(names) or len(names) != (count or len(names) or 1):
        asked = f"one for each of the {count} classes" if count else "each class once"
        raise UserError(
            f"{file}: it has {len(set(names))} different names in {len(names)} lines; write {asked}, in the order of "
            "their numbers"
        )
    return names


def numbered(file: Path, rows: Iterable[Row], columns: tuple[str, str], problems: Problems) -> dict[int, str]:
    """Names by number, from two columns of a table; what is wrong is added to `problems`."""
    found: dict[int, str] = {}
    for row in rows:
        text, name = (row.values[column] for column in columns)
        try:
            number = whole_number(text)
            if number > LARGEST_ID or not name:
                raise UserError(f"{text} with the name {name!r}; give a number up to {LARGEST_ID:,} and a name")
            if found.setdefault(number, name) != name:
                raise UserError(f"{text} has the names {found[number]!r} and {name!r}; give each class one")
        except UserError as error:
            problems.add(f"{file}, line {row.number}, column {columns[0]!r}: {error}")
    return found


def class_lists(file: Path, kinds: Sequence[str], problems: Problems) -> dict[str, dict[int, str]]:
    """Names by id for each of "action", "verb" and "noun" that is asked for: columns KIND_id and KIND_cls.

    A name that two ids share is followed by its id. What is wrong is added to `problems`; raises UserError for a file
    or a header that cannot be read.
    """
    needed = [f"{kind}_{part}" for kind in kinds for part in ("id", "cls")]
    rows = list(table(file, needed, [name for name in _COLUMNS if name not in needed], problems))
    made = {kind: numbered(file, rows, (f"{kind}_id", f"{kind}_cls"), problems) for kind in kinds}
    return {
        kind: dict(zip(names, distinct([(name, str(k)) for k, name in names.items()]), strict=True))
        for kind, names in made.items()
    }


def as_classes(names: dict[int, str]) -> tuple[str, ...]:
    """The names in the order of their ids; an id that the list leaves out is named by its number."""
    return tuple(names.get(number, f"class {number}") for number in range(max(names, default=-1) + 1))
