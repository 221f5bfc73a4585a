"""Parquet tables that a reader never sees half of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crossview import storage


def write_table(table: pa.Table, file: Path) -> None:
    """Write the table whole or not at all; where the storage fails, tried again as `storage.write` does."""
    storage.write(file, lambda partial: pq.write_table(table, partial))


def read_table(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A table from a local file or an object store."""
    return pq.read_table(storage.local(file), columns=columns and list(columns))
