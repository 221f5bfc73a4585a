"""The catalog's tables on disk: their columns, and how rows are read and written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import pyarrow as pa

from crossview.datasets.catalog.recording import Recording
from crossview.errors import UserError
from crossview.storage.tables import read_table, write_table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Row = TypeVar("Row", bound=DataclassInstance)

_TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
_HINTS = get_type_hints(Recording)
RECORDINGS = pa.schema([(f.name, _TYPES.get(_HINTS[f.name], pa.string())) for f in fields(Recording)])
ADDED = frozenset(("own_clock", "first_frame", "first_s", "constant_rate", "index"))
"""Columns of recordings that earlier catalogs lack."""
SEGMENTS = pa.schema(
    [
        ("recording", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("name", pa.string()),
        ("label", pa.string()),
    ]
)
FRAME_LABELS = pa.schema([("recording", pa.string()), ("name", pa.string()), ("labels", pa.list_(pa.int32()))])
QUARANTINED = pa.schema([("path", pa.string()), ("reason", pa.string())])
PROTOCOLS = pa.schema([("protocol", pa.string()), ("recording", pa.string()), ("split", pa.string())])
CLASSES = pa.schema([("kind", pa.string()), ("id", pa.int32()), ("name", pa.string())])


def write_rows(file: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """One table; the file is renamed into place once it is whole."""
    write_table(pa.Table.from_pylist(rows, schema=schema), file)


def read_rows(file: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows of a table with these columns; raises ValueError that names the file for any other."""
    table = _read(file, schema)
    names = table.schema.names
    return [dict(zip(names, values, strict=True)) for values in _values(table)]


def read_saved(file: Path, kind: type[Row], schema: pa.Schema, may_lack: Collection[str] = ()) -> tuple[Row, ...]:
    """The frozen dataclasses that a table's rows were; it may lack columns of fields with a default.

    They passed the checks of their `__init__` before they were saved. Raises as `read_rows` does.
    """
    table = _read(file, schema, may_lack)
    names = table.schema.names
    implied = {f.name: f.default for f in fields(kind) if f.name in may_lack and f.name not in names}
    found = []
    for values in _values(table):
        one = object.__new__(kind)
        one.__dict__.update(zip(names, values, strict=True))
        if implied:
            one.__dict__.update(implied)
        found.append(one)
    return tuple(found)


def _values(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _read(file: Path, schema: pa.Schema, may_lack: Collection[str] = ()) -> pa.Table:
    try:
        table = read_table(file, fix="make the catalog again")
    except FileNotFoundError as error:
        raise UserError(f"{file}: this file of the catalog is missing; make the catalog again") from error
    there = table.schema.names
    if there != [name for name in schema.names if name in there or name not in may_lack]:
        raise UserError(f"{file}: columns {there}, not {schema.names}; make the catalog again")
    return table
