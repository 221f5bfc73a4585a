"""One piece of work for every recording of a catalog, in this process or on a pool of Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from crossview.datasets.video import UnreadableVideo

Arrays = dict[str, np.ndarray]
"""What the work yields for one recording, by name."""
Work = Callable[[int], Arrays]
"""Called with an index into the catalog's recordings; UnreadableVideo means that this one recording is lost."""
_ROW = pa.schema(
    [
        ("index", pa.int64()),
        ("name", pa.string()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("data", pa.large_binary()),
    ]
)
_DONE, _UNREADABLE, _ERROR = "", "!unreadable", "!error"  # values of `name` in a recording's last row


@dataclass(frozen=True)
class Done:
    """The outcome for one recording."""

    index: int
    arrays: Arrays
    unreadable: str | None = None
    """Why the recording could not be read; None where it could."""


@dataclass(frozen=True)
class Where:
    """What the work runs on."""

    in_process: bool = False
    actors: int = 1
    """Ray actors, of one CPU each, and of one GPU where `device` is cuda."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.actors < 1:
            raise ValueError(f"actors is {self.actors}; it must be at least 1")
        if self.device.startswith("cuda") and self.in_process and not torch.cuda.is_available():
            raise ValueError(f"device is {self.device}, but torch sees no GPU here; pass cpu or auto")


def each(count: int, make: Callable[..., Work], options: dict[str, Any], where: Where) -> Iterator[Done]:
    """Outcomes for indices below `count`, in any order; `make(**options)` builds the work once per process.

    ValueError and OSError of the work pass through, whatever it runs on.
    """
    if not where.in_process:
        yield from _on_ray(count, make, options, where)
        return
    work = make(**options)
    for index in range(count):
        try:
            yield Done(index, work(index))
        except UnreadableVideo as error:
            yield Done(index, {}, str(error))


def _on_ray(count: int, make: Callable[..., Work], options: dict[str, Any], where: Where) -> Iterator[Done]:
    from crossview.platform.cluster import connect

    connect()
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    # A block per recording: recordings differ in length, and the pool balances itself.
    indices = ray.data.from_items([{"index": i} for i in range(count)], override_num_blocks=count)
    outcomes = indices.map_batches(
        _Actor,
        fn_constructor_kwargs={"make": make, "options": options},
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(where.actors, count)),
        num_cpus=1,
        num_gpus=1 if where.device.startswith("cuda") else None,
    )
    pending: dict[int, Arrays] = {}
    for block in outcomes.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in cast(pa.Table, block).to_pylist():
            index, name = row["index"], row["name"]
            if name == _ERROR:
                raise ValueError(row["data"].decode())
            if name == _UNREADABLE:
                yield Done(index, {}, row["data"].decode())
            elif name == _DONE:
                yield Done(index, pending.pop(index, {}))
            else:
                array = np.frombuffer(row["data"], row["dtype"]).reshape(row["shape"])
                pending.setdefault(index, {})[name] = array


class _Actor:
    """The work in one Ray actor; errors travel as rows, since Ray would wrap and retry them."""

    def __init__(self, make: Callable[..., Work], options: dict[str, Any]) -> None:
        self._make, self._options = make, options
        self._work: Work | None = None
        torch.set_num_threads(1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [row for index in batch["index"].to_pylist() for row in self._rows(index)]
        return pa.Table.from_pylist(rows, schema=_ROW)

    def _rows(self, index: int) -> list[dict[str, Any]]:
        try:
            if self._work is None:
                self._work = self._make(**self._options)
            arrays = self._work(index)
        except UnreadableVideo as error:
            return [{"index": index, "name": _UNREADABLE, "data": str(error).encode()}]
        except (ValueError, OSError) as error:
            return [{"index": index, "name": _ERROR, "data": str(error).encode()}]
        rows = [
            {
                "index": index,
                "name": name,
                "dtype": array.dtype.str,
                "shape": list(array.shape),
                "data": array.tobytes(),
            }
            for name, array in arrays.items()
        ]
        return [*rows, {"index": index, "name": _DONE}]
