"""Training metrics of a run: one Parquet table and TensorBoard events."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from crossview.datasets.tables import write_table


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The rows logged so far, oldest first; empty where nothing was logged."""
    file = run / "metrics.parquet"
    return pq.read_table(file).to_pylist() if file.exists() else []


class Metrics:
    """Rows are kept in memory and written by `flush`, which a checkpoint calls: table and weights go together."""

    def __init__(self, run: Path, start: int) -> None:
        self._file = run / "metrics.parquet"
        self._rows = [row for row in read_metrics(run) if row["step"] <= start]
        self._before_s = self._rows[-1]["time_s"] if self._rows else 0.0
        self._started = time.monotonic()
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1 if start else None)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one row; `time_s` counts training time over all resumptions."""
        self._rows.append({"step": step, "time_s": self._before_s + time.monotonic() - self._started, **values})
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write the table under a temporary name and rename it."""
        write_table(pa.Table.from_pylist(self._rows), self._file)
        self._board.flush()

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._board.close()
