"""One piece of work for every recording of a catalog, in this process or on a pool of Ray actors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import OUT_OF_MEMORY, UserError

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
MAX_TRIES = 3
"""Executions in a row that end with an actor's death before any recording is done. Other deaths are not counted: actors
are killed for memory or with their node, through no fault of a recording."""
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
            raise UserError(f"actors is {self.actors}; it must be at least 1")
        if self.device.startswith("cuda") and self.in_process and not torch.cuda.is_available():
            raise UserError(f"device is {self.device}, but torch sees no GPU here; pass cpu or auto")


def each(count: int, make: Callable[..., Work], options: dict[str, Any], where: Where) -> Iterator[Done]:
    """Outcomes for indices below `count`, in any order; `make(**options)` builds the work once per process.

    UserError and OSError of the work pass through, whatever it runs on.
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
    from crossview.platform.cluster.connect import connect

    connect()
    from ray.exceptions import RayActorError

    waiting = dict.fromkeys(range(count))
    in_vain = 0
    while True:
        before = len(waiting)
        try:
            for done in _outcomes(list(waiting), make, options, where):
                del waiting[done.index]
                yield done
            return
        except RayActorError as error:
            in_vain = in_vain + 1 if len(waiting) == before else 0
            if in_vain == MAX_TRIES:
                raise OSError(
                    f"{MAX_TRIES} times in a row a process died with {len(waiting)} of {count} recordings to go, most "
                    f"often for want of memory: lower the number of actors (now {where.actors}) or of frames per "
                    f"pass, then run the same command again. Ray says: {str(error).splitlines()[0]}"
                ) from error


def _outcomes(indices: list[int], make: Callable[..., Work], options: dict[str, Any], where: Where) -> Iterator[Done]:
    """One execution; raises RayActorError when an actor dies."""
    import ray.data

    # A block per recording: recordings differ in length, and the pool balances itself.
    blocks = ray.data.from_items([{"index": i} for i in indices], override_num_blocks=len(indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")  # max_restarts has no successor
        outcomes = blocks.map_batches(
            _Actor,
            fn_constructor_kwargs={"make": make, "options": options},
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(where.actors, len(indices))),
            num_cpus=1,
            max_restarts=0,  # Ray reports on the terminal that its own restarts may fail; _on_ray starts again instead
            num_gpus=1 if where.device.startswith("cuda") else None,
        )
    pending: dict[int, Arrays] = {}
    for block in outcomes.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in cast(pa.Table, block).to_pylist():
            index, name = row["index"], row["name"]
            if name == _ERROR:
                raise UserError(row["data"].decode())
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
        except (UserError, OSError) as error:
            return [{"index": index, "name": _ERROR, "data": str(error).encode()}]
        except torch.OutOfMemoryError as error:
            text = f"{str(error).split('. ')[0]}; {OUT_OF_MEMORY}"
            return [{"index": index, "name": _ERROR, "data": text.encode()}]
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
