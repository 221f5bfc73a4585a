"""TensorBoard events in the run's folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from crossview import storage

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """TensorBoard events; of a remote run they are written here, and uploaded by `flush`.

    A writer that the disk refused does not recover: a new one then writes again what was not flushed.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder, self._flushed = folder, start
        self._pending: list[tuple[int, Mapping[str, float]]] = []
        self._here: tempfile.TemporaryDirectory[str] | None = None
        if not storage.is_local(folder):
            self._here = tempfile.TemporaryDirectory(prefix="tensorboard-", dir=storage.cache_folder())
        self._writer: SummaryWriter | None = None
        storage.patiently(self._open, folder)

    def _open(self) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only rank 0 writes

            place = self._here.name if self._here else str(self._folder)
            self._writer = SummaryWriter(place, purge_step=self._flushed + 1 if self._flushed else None)
            for step, values in self._pending:
                self._add(self._writer, step, values)
        return self._writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Events of one step."""
        self._pending.append((step, values))
        if self._writer is not None:
            try:
                self._add(self._writer, step, values)
            except OSError:  # `flush` retries, and reports the reason
                self._writer = None

    @staticmethod
    def _add(writer: SummaryWriter, step: int, values: Mapping[str, float]) -> None:
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
