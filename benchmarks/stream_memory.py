"""Memory of a long run: small batches through Ray Data into a Train worker, one execution after another."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from stream_cost import memory_mb
from stream_footage import footage
from stream_ray import in_train_worker, ray_down
from stream_ways import shard

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.platform.config import Data
from crossview.platform.data import loader

SMALL = Sampling(views={"clip": View(perspective="any", frames=2, fps=7.5, size_px=32)}, pairing="single")
BATCH = 4
LOOKS = 10


def print_memory(cache: Path, batches: int) -> None:
    """Memory of all processes every tenth of the way, and what it has grown by since the first tenth."""
    plan = Plan(Catalog.load(footage(cache, 10)["prepared"]), SMALL, seed=0)
    with tempfile.TemporaryDirectory() as folder, ray_down():
        found = in_train_worker(watch, {"plan": plan, "batches": batches}, Path(folder) / "found.json")
    print("| batches | MB, all processes |\n|---:|---:|")
    for count, memory in found:
        print(f"| {count} | {memory:.0f} |")
    print(f"\nFrom {found[0][0]} batches on: {found[-1][1] - found[0][1]:+.0f} MB")


def watch(config: dict[str, Any]) -> None:
    """In the worker: a batch per block, so that each counts as a block in Ray Data's executor."""
    torch.set_num_threads(1)
    loader.MAX_MICRO_BATCHES = 1
    plan, batches = config["plan"], config["batches"]
    rows = shard(batches * BATCH, BATCH)
    found: list[tuple[int, float]] = []
    with loader.Stream(
        plan, Data(catalog=plan.catalog.root), rows, device=torch.device("cpu"), run_dir=None, in_process=False
    ) as stream:
        for count, _ in enumerate(stream, 1):
            if count % max(1, batches // LOOKS) == 0 and count < batches:  # at the end the decoders are gone already
                found.append((count, memory_mb(config["root"])))
                Path(config["out"]).write_text(json.dumps(found))
