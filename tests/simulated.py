"""A driver on a simulated cluster: trains runs one after the other with workers that note what they do.

Called with JSON: {"notes": folder, "runs": [{"run": folder, "config": file} or {"run": folder}, the latter resumed]}.
Workers claim a GPU that the nodes only pretend to have. Decoding waits before a step N while `notes/hold-N` exists.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig

from crossview.platform.cluster.connect import connect
from crossview.platform.config import read
from crossview.platform.train import driver, elastic, launcher, verdict, worker_group

GIVEN = json.loads(sys.argv[1])
NOTES = Path(GIVEN["notes"])


def note(kind: str, **values: Any) -> None:
    """One line in a file of this process."""
    with (NOTES / f"{kind}-{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), "pid": os.getpid(), **values}) + "\n")


def noted_loop(config: dict[str, Any]) -> None:
    """The workers' own loop, whose stream notes its samples, and whose decoder notes its place and can be held."""
    import torch
    from ray.train import get_context
    from ray.train.v2._internal.execution.context import get_train_context

    from crossview.platform.data import decoders, loader
    from crossview.platform.train import loop, notice
    from crossview.platform.train.worker_group import _worker_loop

    run, context = config["run"].folder.name, get_train_context()

    class Noted(loader.Stream):
        def _to_device(self, rows: Any) -> Any:
            place = {"rank": get_context().get_world_rank(), "world": get_context().get_world_size()}
            node = ray.get_runtime_context().get_node_id()
            note("worker", run=run, node=node, samples=rows["sample"][:, 0].tolist(), **place)
            return super()._to_device(rows)

    def watch() -> None:
        while context.preemption_context.preemption_info is None:
            time.sleep(0.05)
        note("preemption", ranks=context.preemption_context.preemption_info.preempted_ranks)

    class Held(decoders.RowDecoder):
        def __call__(self, positions: Any) -> Any:
            step = int(self.shard.rows(positions["id"]).max()) // self.shard.batch
            note("decoder", run=run, node=ray.get_runtime_context().get_node_id(), step=step)
            while any(step >= int(file.name.removeprefix("hold-")) for file in NOTES.glob("hold-*")):
                time.sleep(0.05)
            return super().__call__(positions)

    loop.Stream, decoders.RowDecoder = Noted, Held  # type: ignore[misc]
    loader.MAX_MICRO_BATCHES = 4  # many blocks, so that there is always one to hold
    notice.LOOK_S = 0.0  # asks after each step
    threading.Thread(target=watch, daemon=True).start()
    ray.train.torch.get_device = lambda: torch.device("cpu")  # type: ignore[attr-defined]
    _worker_loop(config)


class Noted(verdict.Verdict):
    """Notes when a group starts, trains, or is asked to leave."""

    def set_stage(self, stage: verdict.Stage) -> None:
        super().set_stage(stage)
        note("stage", stage=stage)


def fill_stores() -> list[Any]:
    """More than every node's object store holds, kept as long as the result is: it spills to the disk."""

    def blocks_of_a_node() -> Any:
        import numpy as np

        return [np.ones(40 * 2**20, np.uint8) for _ in range(4)]

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    remote: Any = ray.remote(num_cpus=0, num_returns=4)(blocks_of_a_node)
    blocks = [block for node in nodes for block in remote.options(label_selector={"ray.io/node-id": node}).remote()]
    ray.wait(blocks, num_returns=len(blocks), fetch_local=False)
    return blocks


def main() -> None:
    worker_group._worker_loop = noted_loop
    driver.Verdict = Noted  # type: ignore[misc]
    elastic.LOOK_S = 0.5
    driver.wants_gpu = lambda compute: True
    worker_group.TorchConfig = lambda backend: TorchConfig(backend="gloo")  # type: ignore[misc, assignment]
    connect()
    kept = fill_stores() if GIVEN.get("fill") else []
    for asked in GIVEN["runs"]:
        if "config" in asked:
            method, experiment = read(Path(asked["config"]))
            launcher.start(Path(asked["run"]), method, experiment, in_process=False)
        else:
            launcher.resume(Path(asked["run"]), in_process=False)
    del kept


main()
