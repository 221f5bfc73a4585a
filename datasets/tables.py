"""Parquet tables that a reader never sees half of."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_table(table: pa.Table, file: Path) -> None:
    """Write the table under a temporary name beside `file`, and rename it once it is whole."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        pq.write_table(table, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
