"""The plan, decoded: Ray Data executes one rank's rows of a run in order and yields batches on the device."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from crossview.errors import UserError
from crossview.methods.method import Batch
from crossview.platform.cluster.resources import ACTOR_CPUS, TASK_CPUS, decode_options
from crossview.platform.config import Data
from crossview.platform.data.color import yuv420_to_rgb
from crossview.platform.data.decoder import AnyPlan, Arrays, Shard
from crossview.platform.data.decoders import decoder_for
from crossview.platform.data.unreadable import Quarantine

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

__all__ = ["Shard", "Stream"]
T = TypeVar("T")

BLOCK_BYTES = 32 * 2**20
"""Rows travel in blocks of about this size: each costs some 20 ms of the executor's time, however small it is."""
MAX_MICRO_BATCHES = 16
"""Per block, so that the first does not keep the trainer waiting."""
EXECUTION_BLOCKS = 4096
"""Blocks of one execution, after which another goes on: Ray keeps 10-40 KB in this process for each block until its
execution ends, which is 5 GB in a run of 10^6 rows."""
AHEAD_BLOCKS = 64
"""Before the end of an execution at which the next one starts its actors, which takes some 6 s."""


class Stream:
    """Batches of one rank's rows, in the plan's order, as uint8 RGB on `device`.

    With `in_process` the same functions decode in this process, without Ray and bit for bit the same: `prefetch`
    batches ahead in a thread, or for 0 when a batch is asked for. `decode_apart` lets Ray decode on nodes for that
    alone, even before one is up. Close it, or use it as a context manager, to stop decoding early. Raises ValueError
    where too many recordings are unreadable.
    """

    def __init__(
        self,
        plan: AnyPlan,
        data: Data,
        shard: Shard,
        *,
        device: torch.device,
        run_dir: Path | None,
        in_process: bool,
        prefetch: int = 2,
        decode_apart: bool = False,
    ) -> None:
        if not plan.catalog.root.is_dir():
            raise UserError(
                f"{plan.catalog.root}: it held the files of the catalog, but is missing; restore it, or make the "
                "catalog again with `crossview prepare` (`crossview train` also takes --data.root)"
            )
        self.shard, self.device, self.in_process, self.prefetch = shard, device, in_process, prefetch
        self.decoder = decoder_for(plan, data, shard)
        self.actors, self.store_share, self.decode_apart = data.actors, data.store_share, decode_apart
        self.wait_s = 0.0
        """Seconds that the consumer has waited for decoded rows."""
        self._quarantine = Quarantine(run_dir, len(plan.catalog.recordings), data.max_quarantined)
        self._running: list[Generator[Any, None, None]] = []

    @property
    def quarantined(self) -> int:
        """Recordings found unreadable in this run."""
        return len(self._quarantine.files)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._batches()
        self._running.append(batches)
        return batches

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop decoding and release the actors."""
        for batches in self._running:
            batches.close()
        self._running.clear()

    def _batches(self) -> Generator[Batch, None, None]:
        if self.shard.length == 0:
            return
        source: Generator[Arrays, None, None] | _Ahead[Arrays]
        if self.in_process:
            source = _Ahead(self._local_blocks, self.prefetch) if self.prefetch else self._local_blocks()
        else:
            source = self._ray_blocks()
        try:
            while True:
                asked = time.perf_counter()
                block = next(source, None)
                self.wait_s += time.perf_counter() - asked
                if block is None:
                    return
                self._quarantine.add(block.pop("quarantine"))
                for start in range(0, len(block["sample"]), self.shard.micro_batch):
                    rows = {k: v[start : start + self.shard.micro_batch] for k, v in block.items()}
                    yield self._to_device(rows)
        finally:
            source.close()

    def _local_blocks(self) -> Generator[Arrays, None, None]:
        for start in range(0, self.shard.length, self.shard.micro_batch):
            yield self.decoder.decode(np.arange(start, start + self.shard.micro_batch))

    def _ray_blocks(self) -> Generator[Arrays, None, None]:
        """Blocks of whole micro batches; where one micro batch is larger than a block, parts of it are joined."""
        rows, parts = self.block_rows(), list[Arrays]()
        with contextlib.closing(self._tables(rows)) as tables:
            for table in tables:
                parts.append(_arrays(table))
                if sum(len(part["sample"]) for part in parts) % self.shard.micro_batch == 0:
                    yield _joined(parts)
                    parts = []

    def _tables(self, rows: int) -> Generator[pa.Table, None, None]:
        """Blocks of `rows`; each execution starts while the one before has `AHEAD_BLOCKS` to go."""
        span = rows * EXECUTION_BLOCKS
        running: list[_Ahead[pa.Table]] = []

        def start(first: int) -> None:
            dataset = self._dataset(first, min(first + span, self.shard.length), rows)
            running.append(_Ahead(lambda: _blocks_of(dataset), 1))

        try:
            for first in range(0, self.shard.length, span):
                if not running:
                    start(first)
                for count, table in enumerate(running[0], 1):
                    if count == EXECUTION_BLOCKS - AHEAD_BLOCKS and first + span < self.shard.length:
                        start(first + span)
                    yield table
                running.pop(0).close()
        finally:
            for execution in running:
                execution.close()

    def block_rows(self) -> int:
        """Rows per block: several micro batches, or an equal part of a large one."""
        micro = self.shard.micro_batch
        row_bytes = sum(array.nbytes for array in self.decoder.empty(1).values())
        fitting = max(1, BLOCK_BYTES // row_bytes)
        if fitting >= micro:
            return micro * min(fitting // micro, MAX_MICRO_BATCHES, -(-self.shard.length // micro))
        return max(d for d in range(1, fitting + 1) if micro % d == 0)

    def _dataset(self, start: int, stop: int, rows: int) -> Dataset:
        """Positions in the shard -> blocks of `rows` of them -> decoded rows."""
        import ray
        from ray.data import ActorPoolStrategy, DataContext, ExecutionResources

        from crossview.platform.cluster.connect import connect

        connect()
        context = DataContext.get_current()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the copy reads its own deprecated names
            before = context.copy()
        context.execution_options.preserve_order = True
        store = ray.cluster_resources().get("object_store_memory", 0.0)
        context.execution_options.resource_limits = ExecutionResources(
            object_store_memory=store * self.store_share / self.shard.world
        )
        # A block is emitted once it exceeds this, and cut where it exceeds 1.5 times this: never, then.
        context.target_max_block_size = int(0.9 * rows * sum(a.nbytes for a in self.decoder.empty(1).values()))
        try:
            # A whole CPU may never be free beside the trainers: from_arrow() would wait for one to look at the table's
            # schema, and repartition() takes no resources.
            blocks = ray.data.from_blocks([_positions(start, stop)]).repartition(target_num_rows_per_block=rows)
            blocks._logical_plan.dag.ray_remote_args["num_cpus"] = TASK_CPUS
            return blocks.map_batches(
                type(self.decoder),
                fn_constructor_args=(self.decoder.plan, self.decoder.data, self.shard),
                batch_size=rows,
                batch_format="numpy",
                compute=ActorPoolStrategy(size=self.actors),
                num_cpus=ACTOR_CPUS,
                **decode_options(apart=self.decode_apart),
            )
        finally:
            DataContext._set_current(before)

    def _to_device(self, rows: Arrays) -> Batch:
        """(rows, windows, ...) -> (B, ...) with B = rows * windows, on the device, pixels as RGB."""
        batch: dict[str, Tensor] = {}
        for name, array in rows.items():
            tensor = _tensor(array.reshape(-1, *array.shape[2:]))
            if name.endswith("/mask"):
                tensor = tensor.bool()
            if "/" in name or name in ("sample", "seed") or tensor.dtype != torch.uint8:
                batch[name] = tensor.to(self.device, copy=True)
            elif self.decoder.pixels == "yuv420":
                batch[name] = yuv420_to_rgb(tensor.to(self.device))
            else:
                batch[name] = tensor.to(self.device).movedim(-1, -3).contiguous()
        if self.decoder.group and self.decoder.pixels == "yuv420" and batch["video"].dtype == torch.uint8:
            batch["video"].masked_fill_(~batch["video/mask"][..., None, None, None, None], 0)  # planes of 0 are green
        return batch


def _positions(start: int, stop: int) -> pa.Table:
    import pyarrow as pa

    return pa.table({"id": np.arange(start, stop)})


def _tensor(array: np.ndarray) -> Tensor:
    """A view, of memory that must not be written: blocks are in the object store."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _arrays(table: pa.Table) -> Arrays:
    """Views of a block's columns, without a copy."""
    columns = {}
    for name in table.column_names:
        chunks = [chunk.to_numpy(zero_copy_only=name != "quarantine") for chunk in table[name].chunks]
        columns[name] = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return columns


def _joined(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _blocks_of(dataset: Dataset) -> Generator[pa.Table, None, None]:
    tables: Any = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
    try:
        yield from tables
    finally:
        tables.close()


class _Ahead(Generic[T]):
    """Runs a generator in a thread, `ahead` items before its consumer; its exception is raised in the consumer."""

    def __init__(self, items: Callable[[], Generator[T, None, None]], ahead: int) -> None:
        self._ready: queue.Queue[T | BaseException | None] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, args=(items,), name="decode", daemon=True)
        self._thread.start()

    def __iter__(self) -> _Ahead[T]:
        return self

    def __next__(self) -> T:
        item = self._ready.get()
        if item is None or isinstance(item, BaseException):
            self.close()
            raise item or StopIteration
        return item

    def close(self) -> None:
        """Stop the generator."""
        self._stop.set()
        self._thread.join()

    def _offer(self, item: T | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def _produce(self, items: Callable[[], Generator[T, None, None]]) -> None:
        try:
            with contextlib.closing(items()) as found:
                for item in found:
                    self._offer(item)
                    if self._stop.is_set():
                        return
            self._offer(None)
        except BaseException as error:
            self._offer(error)
