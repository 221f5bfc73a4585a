"""How long training stands still for a checkpoint that is written at once or in the background.

EVGAP's first step on noise, on the CPU, with its checkpoints (weights and Adam's moments) on a local disk and in an S3
store, which moto serves from a process of its own. `blocked` is the time inside the call that writes a checkpoint, and
`lost` what the whole run, to the last file, takes longer than one without checkpoints, both per checkpoint: `lost`
counts, too, what writing in the background takes from training. Ways take turns in each round; prints medians. Run as
`python benchmarks/checkpoint_stall.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from s3_server import s3

from crossview.methods.example_batch import example_batch
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint, run_folder
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset
from crossview.platform.train.checkpoint_writer import CheckpointWriter
from crossview.platform.train.resolve import ResolvedRun
from crossview.platform.train.state import Training, Worker

WAYS = {"none": None, "at once": False, "in the background": True}
STORES = ("disk", "S3")


@dataclass
class Measured:
    """One run."""

    total_s: float
    blocked_s: float
    """Of all its checkpoints."""


def measure(folder: Path, experiment: Experiment[Any], batch: Any, way: bool | None, steps: int) -> Measured:
    """Train `steps` steps in a new run folder, with checkpoints written in `way`."""
    info = run_folder.create(folder, "evgap", experiment)
    run = ResolvedRun(folder, "evgap", experiment, (), cast(Any, None), info)
    training = Training(run, Worker(torch.device("cpu")))
    forward, batches, blocked = training.forward(), repeat(batch), 0.0
    training.optimise(batches, forward, 1, steps + 1)  # the first step makes the moments
    begun = time.perf_counter()
    with CheckpointWriter(background=bool(way)) as writer:
        for k in range(1, steps + 1):
            training.optimise(batches, forward, 1, steps + 1)
            if way is not None and k % experiment.every.checkpoint == 0:
                asked = time.perf_counter()
                writer.write(training)
                blocked += time.perf_counter() - asked
    return Measured(time.perf_counter() - begun, blocked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoints", type=int, default=3, help="in each run")
    parser.add_argument("--every", type=int, default=10, help="steps between two of them")
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    method: Any = preset("evgap", "paper_step1").method
    batch = example_batch(method.sampling(), given.batch, features=(1, method.feature_width))
    steps = given.checkpoints * given.every + given.every // 2  # the last one is written beside training, too
    made = Experiment(
        data=Data(catalog=Path("none")),
        method=method,
        optim=Optim(lr=1e-4, batch=given.batch, steps=steps + 1),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(checkpoint=given.every, keep=2),
    )
    found: dict[tuple[str, str], list[Measured]] = {(store, way): [] for store in STORES for way in WAYS}
    with tempfile.TemporaryDirectory() as here, s3() as bucket:
        places = {"disk": Path(here), "S3": bucket}
        for k in range(given.rounds):
            for store, name in found:
                folder = places[store] / f"{name.replace(' ', '-')}-{k}"
                found[store, name].append(measure(folder, replace(made, seed=k), batch, WAYS[name], steps))
                print(f"round {k}, {store}, {name}: {found[store, name][-1]}", file=sys.stderr)
        newest = checkpoint.latest(Path(here) / "at-once-0")
        assert newest is not None
        size_mb = sum(file.stat().st_size for file in newest.iterdir()) / 1e6
    none_s = statistics.median(m.total_s for store in STORES for m in found[store, "none"])
    print(f"\ncheckpoint of {size_mb:.0f} MB; a step takes {none_s / steps:.2f} s\n")
    print(f"{'store':7}{'written':20}{'blocked s':>10}{'lost s':>9}    per checkpoint")
    for (store, name), runs in found.items():
        if name != "none":
            blocked = statistics.median(m.blocked_s for m in runs) / given.checkpoints
            plain = statistics.median(m.total_s for m in found[store, "none"])
            lost = (statistics.median(m.total_s for m in runs) - plain) / given.checkpoints
            print(f"{store:7}{name:20}{blocked:10.2f}{lost:9.2f}")


if __name__ == "__main__":
    main()
