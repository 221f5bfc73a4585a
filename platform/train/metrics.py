"""Training metrics of a run: one Parquet table and TensorBoard events."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from torch.utils.tensorboard import SummaryWriter

from crossview import storage
from crossview.storage.tables import read_table, write_table

SCORES = "val/"
"""Begins the names of downstream metrics, which only some rows have."""


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The rows logged so far, oldest first, each with what it has; empty where nothing was logged."""
    file = run / "metrics.parquet"
    fix = "delete it: the run goes on without the rows so far"
    rows = read_table(file, fix=fix).to_pylist() if storage.is_file(file) else []
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


class Metrics:
    """Rows are kept in memory and written by `flush`, which a checkpoint calls: table and weights go together."""

    def __init__(self, run: Path, start: int) -> None:
        self._file = run / "metrics.parquet"
        self._rows = [row for row in read_metrics(run) if row["step"] <= start]
        self._before_s = self._rows[-1]["time_s"] if self._rows else 0.0
        self._started = time.monotonic()
        self._board = _Board(run / "tensorboard", start)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one row; `time_s` counts training time over all resumptions."""
        self._rows.append({"step": step, "time_s": self._before_s + time.monotonic() - self._started, **values})
        self._board.add(step, values)

    @property
    def rows(self) -> list[dict[str, float]]:
        """All that were logged."""
        return self._rows

    def add(self, step: int, values: dict[str, float]) -> None:
        """More values of the step that was logged last."""
        if not self._rows or self._rows[-1]["step"] != step:
            self.log(step, values)
            return
        self._rows[-1] |= values
        self._board.add(step, values)

    def flush(self) -> None:
        """Write the table, whole or not at all, and the events; tried again where the storage fails."""
        names = dict.fromkeys(name for row in self._rows for name in row)
        rows = [{name: row.get(name) for name in names} for row in self._rows]  # the first row's would be the columns
        write_table(pa.Table.from_pylist(rows), self._file)
        self._board.flush()

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._board.close()


class _Board:
    """TensorBoard events; of a remote run they are written here, and uploaded by `flush`.

    A writer that the disk refused does not recover: a new one then writes again what was not flushed.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder, self._flushed = folder, start
        self._pending: list[tuple[int, dict[str, float]]] = []
        self._here: tempfile.TemporaryDirectory[str] | None = None
        if not storage.is_local(folder):
            self._here = tempfile.TemporaryDirectory(prefix="tensorboard-", dir=storage.cache_folder())
        self._writer: SummaryWriter | None = None
        storage.patiently(self._open, folder)

    def _open(self) -> SummaryWriter:
        if self._writer is None:
            place = self._here.name if self._here else str(self._folder)
            self._writer = SummaryWriter(place, purge_step=self._flushed + 1 if self._flushed else None)
            for step, values in self._pending:
                self._add(self._writer, step, values)
        return self._writer

    def add(self, step: int, values: dict[str, float]) -> None:
        """Events of one step."""
        self._pending.append((step, values))
        if self._writer is not None:
            try:
                self._add(self._writer, step, values)
            except OSError:  # `flush` retries, and reports the reason
                self._writer = None

    @staticmethod
    def _add(writer: SummaryWriter, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write the events out; raises OSError where that fails for long."""
        storage.patiently(self._flush, self._folder)
        if self._here:
            for file in Path(self._here.name).iterdir():
                storage.upload(file, self._folder / file.name)

    def _flush(self) -> None:
        try:
            self._open().flush()
        except OSError:
            self._writer = None
            raise
        if self._pending:
            self._flushed = self._pending[-1][0]
        self._pending = []

    def close(self) -> None:
        """Release the files; `flush` first."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        if self._here:
            self._here.cleanup()
