"""From video files to clips: Crossview beside the field's habits and the limit, one Markdown table per run.

    python benchmarks/stream.py                      # all cells; recordings are made in build/bench/recordings once
    python benchmarks/stream.py --seconds 10 --rows 2 --ways peer ours limit
    python benchmarks/stream.py --batches 10000      # memory over that many batches through Ray Data

CPU time is that of the CPU clocks of all processes; wall time is as good as the machine is idle.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"

import stream_ways as ways
import torch
from stream_cost import cost
from stream_footage import CAMERAS, FPS, footage
from stream_ray import Cell, in_train_worker, measure_cells, ray_down
from stream_tables import Key, Row, goals, table

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View

STRIDE = 4
EXO = sum(perspective == "exo" for perspective in CAMERAS.values())
WINDOW = View(perspective="ego", frames=16, fps=FPS / STRIDE)
SPREAD = View(perspective="ego", frames=32, spread="random")
PATTERNS = {
    "groups": Sampling(
        views={"ego": WINDOW, "exo": View(perspective="exo", frames=16, fps=FPS / STRIDE, count=EXO)},
        pairing="group",
        windows=10,
    ),
    "unpaired": Sampling(
        views={"ego": SPREAD, "exo": View(perspective="exo", frames=32, spread="random")}, pairing="unpaired"
    ),
    "pairs": Sampling(
        views={"source": View(perspective="any", frames=16, fps=FPS / STRIDE),
               "target": View(perspective="any", frames=16, fps=FPS / STRIDE)},
        pairing="synchronized",
    ),
}  # fmt: skip
"""What EVGAP, BYOV and MV2MAE read."""
CLIPS = {"groups": 40, "unpaired": 2, "pairs": 2}
ROWS = {"groups": 3, "unpaired": 8, "pairs": 24}
"""Rows measured per cell."""

WAYS: dict[str, Callable[[Plan, int], Iterator[int]]] = {
    "peer": lambda plan, rows: ways.data_loader(ways.decord_clip, plan, rows),
    "torchcodec": lambda plan, rows: ways.data_loader(ways.torchcodec_clip, plan, rows),
    "rows": ways.rows_decoded,
    "ours": ways.in_process,
    "limit": ways.limit,
}
"""Beside "ray"."""


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    plans: dict[Key, Plan] = {}
    for seconds in options.seconds:
        for kind, folder in footage(options.cache, seconds).items():
            if kind in options.kinds:
                for pattern in options.patterns:
                    plans[pattern, kind, seconds] = Plan(Catalog.load(folder), PATTERNS[pattern], seed=0)
    if options.batches:
        from stream_memory import print_memory

        print_memory(options.cache, options.batches)
        return
    found = {key: measure(key, plan, options) for key, plan in plans.items()}
    steps = through_ray(plans, found, options) if "ray" in options.ways else None
    print(table(found))
    print(goals(found, steps))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("build/bench/recordings"),
        help="folder for the recordings, kept between runs",
    )
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60, 600], help="lengths of the recordings")
    parser.add_argument("--kinds", nargs="+", default=["original", "prepared"], choices=["original", "prepared"])
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS), choices=list(PATTERNS))
    parser.add_argument("--ways", nargs="+", default=[*WAYS, "ray"], choices=[*WAYS, "ray"])
    parser.add_argument("--rows", type=int, help="rows of the plan per cell; by default 3, 8 and 24 by pattern")
    parser.add_argument("--batches", type=int, help="only watch memory over so many batches")
    options = parser.parse_args()
    if "torchcodec" in options.ways and not ways.has_torchcodec():
        print("torchcodec is not installed: its column is left out")
        options.ways.remove("torchcodec")
    return options


def measure(key: Key, plan: Plan, options: argparse.Namespace) -> Row:
    """Every way but Ray Data's, one after the other."""
    pattern = key[0]
    rows = options.rows or ROWS[pattern]
    found: Row = {}
    for way in WAYS:
        if way not in options.ways:
            continue
        for _ in WAYS[way](plan, 1):  # imports, the page cache, the limit's table of key frames
            pass
        gc.collect()
        with cost() as spent:
            clips = sum(WAYS[way](plan, rows))
        assert clips == rows * CLIPS[pattern], (clips, rows)
        found[way] = (spent.cpu_s / clips, spent.wall_s / clips, spent.memory_mb)
    print(key, {way: f"{1e3 * value[0]:.1f} ms" for way, value in found.items()}, flush=True)
    return found


def through_ray(plans: dict[Key, Plan], found: dict[Key, Row], options: argparse.Namespace) -> dict[str, float]:
    """Fill in "ray", all in one Train worker; returns what else is asked of it: first batch, share of waiting."""
    cells = [Cell(repr(key), plan, (options.rows or ROWS[key[0]]) * 2) for key, plan in plans.items()]
    key, plan = next(item for item in reversed(plans.items()))
    cells.append(Cell("steps", plan, 2 * ROWS[key[0]], step_share=1.3))
    with tempfile.TemporaryDirectory() as folder, ray_down():
        out = in_train_worker(measure_cells, {"cells": cells}, Path(folder) / "found.json")
    for key in plans:
        cell = out[repr(key)]
        spent, clips = cell["cost"], cell["clips"]
        found[key]["ray"] = (spent["cpu_s"] / clips, spent["wall_s"] / clips, spent["memory_mb"])
    first, steps = out[repr(next(iter(plans)))], out["steps"]
    return {
        "first_cpu_s": first["first_cpu_s"],
        "first_s": first["first_s"],
        "later_first_cpu_s": steps["first_cpu_s"],
        "wait": steps["wait_s"] / steps["cost"]["wall_s"],
    }


if __name__ == "__main__":
    main()
