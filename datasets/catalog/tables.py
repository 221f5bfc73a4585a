"""The catalog's tables on disk: their columns, and how rows are read and written."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
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
    columns = [column.to_pylist() for column in table.columns]
    return [dict(zip(schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def read_saved(file: Path, kind: type[Row], schema: pa.Schema, may_lack: Collection[str] = ()) -> tuple[Row, ...]:
    """The frozen dataclasses with slots that a table's rows were; it may lack columns of fields with a default.

    They passed the checks of their `__init__` before they were saved. Raises as `read_rows` does.
    """
    table = _read(file, schema, may_lack)
    found = tuple(object.__new__(kind) for _ in range(table.num_rows))
    for f in fields(kind):
        there = f.name in table.schema.names
        values = _shared(table[f.name]) if there else [f.default] * len(found)
        deque(map(getattr(kind, f.name).__set__, found, values), maxlen=0)  # column by column, which is quick
    return found


def _shared(column: pa.ChunkedArray) -> list[Any]:
    """A column's values, where equal strings are one object."""
    if not pa.types.is_string(column.type):
        return list(column.to_pylist())
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    return [names[i] for i in encoded.indices.to_pylist()]


def _read(file: Path, schema: pa.Schema, may_lack: Collection[str] = ()) -> pa.Table:
    try:
        table = read_table(file, fix="make the catalog again")
    except FileNotFoundError as error:
        raise UserError(f"{file}: this file of the catalog is missing; make the catalog again") from error
    there = table.schema.names
    if there != [name for name in schema.names if name in there or name not in may_lack]:
        raise UserError(f"{file}: columns {there}, not {schema.names}; make the catalog again")
    return table
