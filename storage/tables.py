"""Parquet tables that a reader never sees half of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crossview import storage
from crossview.errors import UserError


def write_table(table: pa.Table, file: Path) -> None:
    """Write the table whole or not at all; where the storage fails, tried again as `storage.write` does."""
    storage.write(file, lambda partial: pq.write_table(table, partial))


RESTORE = "it was cut off or changed: restore it from a copy, or delete it and make it again"


def read_table(file: Path, columns: Sequence[str] | None = None, *, fix: str = RESTORE) -> pa.Table:
    """A table from a local file or an object store; raises ValueError that names a broken file and `fix`."""
    here = storage.local(file)
    try:
        return pq.read_table(here, columns=columns and list(columns))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the storage; a broken file has no number
            raise
        raise UserError(f"{file}: not a readable Parquet table ({str(error).splitlines()[0]}); {fix}") from error
