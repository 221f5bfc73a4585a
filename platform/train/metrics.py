"""Training metrics of a run: what is measured, and the Parquet table and trackers that it goes to."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor

from crossview import storage
from crossview.platform.train.trackers import Tracker
from crossview.storage.tables import read_table, write_table


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The rows logged so far, oldest first, each with what it has; empty where nothing was logged."""
    file = run / "metrics.parquet"
    fix = "delete it: the run goes on without the rows so far"
    rows = read_table(file, fix=fix).to_pylist() if storage.is_file(file) else []
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


class Metrics:
    """Rows are kept in memory and written by `flush`, which a checkpoint calls: table and weights go together."""

    def __init__(self, run: Path, start: int, trackers: Sequence[Tracker]) -> None:
        self._file = run / "metrics.parquet"
        self._rows = [row for row in read_metrics(run) if row["step"] <= start]
        self._before_s = self._rows[-1]["time_s"] if self._rows else 0.0
        self._started = time.monotonic()
        self._trackers = trackers

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one row; `time_s` counts training time over all resumptions, without validation."""
        self._rows.append({"step": step, "time_s": self._before_s + time.monotonic() - self._started, **values})
        for tracker in self._trackers:
            tracker.log(step, values)

    def leave_out(self, seconds: float) -> None:
        """Take what was just spent on something else than training from the time of later rows."""
        self._started += seconds

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
        for tracker in self._trackers:
            tracker.log(step, values)

    def flush(self) -> None:
        """Write the table, whole or not at all, and the events; tried again where the storage fails."""
        names = dict.fromkeys(name for row in self._rows for name in row)
        rows = [{name: row.get(name) for name in names} for row in self._rows]  # the first row's would be the columns
        write_table(pa.Table.from_pylist(rows), self._file)
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        for tracker in self._trackers:
            tracker.close()


class Interval:
    """Losses, throughput and memory of the steps since the last logged row."""

    def __init__(self, device: torch.device, step: int) -> None:
        self._device, self._step, self.started = device, step, time.monotonic()

    def row(self, values: Mapping[str, Tensor], step: int, batch: int) -> dict[str, float]:
        """What a step gave, as means over workers, with `samples_per_s` and `peak_memory_gb` since the last row.

        Samples are those of all workers (`batch` per step), and the memory is the largest of a worker, in GiB: what
        torch allocated on the GPU since the last row. On the CPU it is the largest resident set of the process since
        its start, which cannot be reset. Every rank has to take part.
        """
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        row = _over_workers(values, torch.tensor(peak / 2**30, device=self._device))  # waits for the device
        now = time.monotonic()
        row["samples_per_s"] = (step - self._step) * batch / max(now - self.started, 1e-9)
        self._step, self.started = step, now
        return row


def _over_workers(means: Mapping[str, Tensor], peak: Tensor) -> dict[str, float]:
    """The means of scalars, and the largest peak, over all workers."""
    values = torch.stack([value.detach().float() for value in (*means.values(), peak)])
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values)
        each = torch.stack(parts)  # (workers, scalars)
        values = torch.cat([each[:, :-1].mean(0), each[:, -1:].amax(0)])
    return dict(zip([*means, "peak_memory_gb"], values.tolist(), strict=True))
