"""Clips per second of fine-tuning: `crossview train recognition` on Ray Train, beside the same loop in plain torch.

Both train the same network on the same clips, in the same order. The plain loop reads each batch before its step: its
steps alone are measured, and with the reading. Ray's stream reads in another process, and the share of time that the
train worker waits for it is printed. Rounds alternate, and the best of each counts.

    python benchmarks/fine_tuning.py            # an encoder of VideoMAE's ViT-T, 96 px, batch 8
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write
from crossview.methods.mv2mae.config import VIT_T
from crossview.platform import checkpoint
from crossview.platform.cluster.connect import connect
from crossview.platform.config import Cadence, Compute, Data, Encoder, Experiment, TrainerExperiment, preset, read
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.data.plan_builder import plan_for
from crossview.platform.train import launcher
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.state import optimizer_for

SIZE_PX, WARM_UP = 96, 5


def encoder_of(catalog: Path, folder: Path) -> Path:
    """A run of MV2MAE after one step."""
    recipe = preset("mv2mae", "debug")
    method = replace(recipe.method, encoder=VIT_T, size_px=SIZE_PX)
    optim = replace(recipe.optim, steps=1, epochs=None, batch=2)
    made: Experiment[Any] = Experiment(
        data=Data(catalog=catalog), method=method, optim=optim, compute=Compute(device="cpu")
    )
    return launcher.start(folder, "mv2mae", made, in_process=True)


def experiment(catalog: Path, encoder: Path, steps: int, batch: int) -> TrainerExperiment[Any]:
    """Recognition by its debug preset, without copies of clips."""
    recipe = preset("recognition", "debug")
    method = replace(recipe.method, classes={"action": 2}, size_px=SIZE_PX)
    return TrainerExperiment(
        data=Data(catalog=catalog),
        method=method,
        optim=replace(recipe.optim, steps=steps, batch=batch),
        compute=Compute(device="auto", threads=1),
        every=Cadence(log=1, checkpoint=10**9),
        encoder=Encoder(run=encoder),
    )


def plain(folder: Path, catalog: Path, encoder: Path, steps: int, batch: int) -> tuple[float, float]:
    """Clips per second of the steps alone, and with the reading before each."""
    run = launcher.start(folder, "recognition", experiment(catalog, encoder, 1, batch), in_process=True)
    _, made = read(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = checkpoint.restore(checkpoint.resolve(run), "recognition", made, device).train()
    optimizer = optimizer_for(model, made.optim)
    shard = Shard(start_step=0, stop_step=steps, batch=batch, micro_batch=batch)
    step_s: list[float] = []
    began = 0.0
    with Stream(plan_for(made), made.data, shard, device=device, run_dir=None, in_process=True, prefetch=0) as stream:
        for k, clips in enumerate(stream):
            if k == WARM_UP:
                began = time.perf_counter()
            start = time.perf_counter()
            loss = model(clips)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
            if k >= WARM_UP:
                step_s.append(time.perf_counter() - start)
    whole = time.perf_counter() - began
    return batch * len(step_s) / sum(step_s), batch * len(step_s) / whole


def on_ray(folder: Path, catalog: Path, encoder: Path, steps: int, batch: int) -> tuple[float, float]:
    """Clips per second, and the share of time that the train worker waits for data."""
    run = launcher.start(folder, "recognition", experiment(catalog, encoder, steps, batch), in_process=False)
    rows = read_metrics(run)[WARM_UP:]
    seconds = sum(batch / row["samples_per_s"] for row in rows)
    return batch * len(rows) / seconds, rows[-1]["data_wait"]


def main() -> None:
    """A table of rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    connect()
    with tempfile.TemporaryDirectory(prefix="fine-tuning-") as name:
        root = Path(name)
        world = WorldConfig(
            actions=("pour_milk", "strike_peg"),
            size_px=SIZE_PX,
            train_takes=4,
            val_takes=0,
            test_takes=0,
            exo_cameras=1,
        )
        write(world, root / "world")
        encoder = encoder_of(root / "world", root / "encoder")
        print("round  plain steps  with reading   Ray Train   waits  Ray beside plain steps (clips/s)")
        best = [0.0, 0.0, 0.0]
        for k in range(options.rounds):
            sizes = options.steps, options.batch
            steps, whole = plain(root / f"plain{k}", root / "world", encoder, *sizes)
            ray, wait = on_ray(root / f"ray{k}", root / "world", encoder, *sizes)
            best = [max(a, b) for a, b in zip(best, (steps, whole, ray), strict=True)]
            print(
                f"{k:5} {steps:12.2f} {whole:13.2f} {ray:11.2f} {100 * wait:6.1f}% {100 * (steps / ray - 1):+10.1f} %",
                flush=True,
            )
        steps, whole, ray = best
        print(f"best {steps:13.2f} {whole:13.2f} {ray:11.2f}         {100 * (steps / ray - 1):+10.1f} %")


if __name__ == "__main__":
    main()
