"""Records that programs write, JSON and Parquet: read row by row, and their values checked as they are taken."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from crossview.datasets.catalog.listing import text_lines
from crossview.errors import UserError

Value = TypeVar("Value")
Rows = Iterator[tuple[dict[str, Any], str]]
"""Each row with its file and line, for errors."""
AGAIN = "download the file again"
_WORDS: dict[type, str] = {
    str: "a text", int: "a whole number", float: "a number", dict: "an object", list: "a list", bool: "true or false",
}  # fmt: skip


def value(facts: Mapping[str, Any], key: str, kind: type[Value], where: str) -> Value:
    """What is under a key; raises UserError, which starts with `where`, if it is missing or of another kind.

    A whole number serves as a float; infinity and NaN, which JSON does not have, serve as nothing.
    """
    found = facts.get(key)
    if kind is float and isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**63:
        found = float(found)
    right = isinstance(found, kind) and not (isinstance(found, bool) and kind is not bool)
    if not right or (isinstance(found, float) and not math.isfinite(found)):
        said = repr(found) if len(repr(found)) <= 60 else f"{repr(found)[:60]}..."
        stands = "is missing" if key not in facts else f"is {said}"
        raise UserError(f"{where}: {key} {stands}; it must be {_WORDS[kind]}: correct it, or {AGAIN}")
    return cast(Value, found)


def optional(facts: Mapping[str, Any], key: str, kind: type[Value], where: str) -> Value | None:
    """As `value`, with None for a key that is missing or null."""
    return None if facts.get(key) is None else value(facts, key, kind, where)


def an_object(found: Any, where: str) -> dict[str, Any]:
    """An entry that must be an object; raises UserError that starts with `where` if it is another thing."""
    if not isinstance(found, dict):
        raise UserError(f"{where}: it is a {type(found).__name__}; it must be an object: {AGAIN}")
    return found


def json_file(file: Path, *kinds: type) -> Any:
    """What a JSON file holds, of one of these kinds; raises UserError that names the file for anything else."""
    try:
        found = _parsed(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{file}: the file is missing; download it") from error
    except (ValueError, RecursionError) as error:  # of UTF-8 or JSON
        raise UserError(f"{file}: not JSON ({error}); {AGAIN}") from error
    if not isinstance(found, kinds):
        asked = " or ".join(_WORDS[kind] for kind in kinds)
        raise UserError(f"{file}: it holds a {type(found).__name__}; it must hold {asked}: {AGAIN}")
    return found


def _parsed(text: str) -> Any:
    """Raises ValueError, also for half a character and for NUL, which neither paths nor tables can hold."""
    found = json.loads(text)
    if re.search(r"\\u(d[89a-f]|0000)", text, re.IGNORECASE):
        plain = json.dumps(found, ensure_ascii=False)
        plain.encode()
        if re.search(r"(?<!\\)(\\\\)*\\u0000", plain):
            raise ValueError("it holds a NUL character")
    return found


def json_lines(file: Path) -> Rows:
    """The objects of a file that has one per line; raises UserError with file and line for anything else."""
    for number, line in text_lines(file):
        where = f"{file}, line {number}"
        try:
            found = _parsed(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}); {AGAIN}") from error
        yield an_object(found, where), where


def parquet_rows(file: Path, wanted: Callable[[list[str]], list[str]]) -> Rows:
    """The columns that `wanted` chooses of those of a file; raises UserError for one that is not there."""
    try:
        opened = pq.ParquetFile(file)
        names = opened.schema_arrow.names
        columns = wanted(names)
        if lacking := [name for name in columns if name not in names]:
            raise UserError(f"{file}: the column {lacking[0]!r} is missing; {AGAIN}")
        table = opened.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]}); {AGAIN}") from error
    yield from ((row, f"{file}, row {number}") for number, row in enumerate(table.to_pylist(), 1))
