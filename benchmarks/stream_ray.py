"""Crossview's stream as a run has it: decoded in Ray Data's actors, taken in by a Ray Train worker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from stream_cost import Cost, cost, cpu_s, memory_mb
from stream_ways import WORKERS, requests, shard

from crossview.datasets.sampling.plan import Plan
from crossview.platform.cluster.connect import connect
from crossview.platform.cluster.resources import per_worker
from crossview.platform.config import Data
from crossview.platform.data.loader import Stream

WARM_ROWS = 4
"""Taken before measuring starts: the decoders are then at work, and as far ahead as they stay."""
FOREVER = 1_000_000


@dataclass
class Cell:
    """One plan to stream, and what it is to be measured for."""

    name: str
    plan: Plan
    rows: int
    step_share: float | None = None
    """A step sleeps so many times as long as decoding its rows takes; None takes the next rows at once."""


@dataclass
class Found:
    """What streaming one plan cost."""

    clips: int
    rows: int
    cost: Cost
    first_cpu_s: float
    """CPU time of all processes up to the first batch."""
    first_s: float
    wait_s: float
    """Of `cost.wall_s`, waiting for a batch."""


def in_train_worker(work: Callable[[dict[str, Any]], None], config: dict[str, Any], out: Path) -> Any:
    """Run `work(config)` in one Ray Train worker, and return what it wrote to `out` as JSON."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    connect()
    TorchTrainer(
        work,
        train_loop_config=config | {"out": str(out), "root": os.getpid()},
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker=per_worker(gpu=False)),
        run_config=RunConfig(name=f"bench-{time.time_ns()}", storage_path=str(out.parent.absolute())),
    ).fit()
    return json.loads(out.read_text())


def measure_cells(config: dict[str, Any]) -> None:
    """In the worker: every cell in turn; the first pays for the imports that it is the first to need."""
    torch.set_num_threads(1)
    found = {cell.name: asdict(stream_cell(cell, config["root"])) for cell in config["cells"]}
    Path(config["out"]).write_text(json.dumps(found))


def stream_cell(cell: Cell, root: int) -> Found:
    """Measured between two batches of a stream that goes on, so that starting and stopping it cost nothing here."""
    plan = cell.plan
    data = Data(catalog=plan.catalog.root, decode_actors=WORKERS)
    begun, cpu, base = time.perf_counter(), cpu_s(root), memory_mb(root)
    with Stream(plan, data, shard(FOREVER), device=torch.device("cpu"), run_dir=None, in_process=False) as stream:
        batches = iter(stream)
        next(batches)
        first_cpu, first = cpu_s(root) - cpu, time.perf_counter() - begun
        warm = WARM_ROWS + -(-WARM_ROWS // stream.block_rows()) * stream.block_rows()
        for _ in range(1, warm):
            next(batches)
        row = warm - 1
        rows = max(1, round(cell.rows / stream.block_rows())) * stream.block_rows()
        step_s = 0.0
        if cell.step_share:
            step_s = cell.step_share * decode_s(batches, rows)
            row += rows
        waited, held = stream.wait_s, memory_mb(root) - base
        with cost(root) as spent:
            for _ in range(rows):
                next(batches)
                time.sleep(step_s)
        spent.memory_mb += held
        clips = sum(len(requests(plan, row + 1 + k)) for k in range(rows))
        return Found(clips, rows, spent, first_cpu, first, stream.wait_s - waited)


def decode_s(batches: Iterator[Any], rows: int) -> float:
    """Seconds per row at which the decoders keep up."""
    begun = time.perf_counter()
    for _ in range(rows):
        next(batches)
    return (time.perf_counter() - begun) / rows


@contextmanager
def ray_down() -> Iterator[None]:
    """Stop what was started of Ray, however the block ends."""
    import ray

    try:
        yield
    finally:
        ray.shutdown()
