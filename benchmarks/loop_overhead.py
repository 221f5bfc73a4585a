"""What the training loop costs per step beside forward, backward and optimiser, with its options off and on.

Every way trains the same model on the same batch from memory, so that no decoding is measured, in rounds side by side;
the fastest step of each counts, in CPU time of the process, which other load on the machine disturbs least. The last
lines are the loop around a step that does nothing: what options, logging and checkpoints cost while they are off or not
due.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from crossview.methods.example_batch import example_batch
from crossview.methods.method import build
from crossview.platform import run_folder
from crossview.platform.config import Cadence, Compute, Data, Experiment, method_names, preset
from crossview.platform.train import loop, trackers
from crossview.platform.train.profiler import WAIT, WARM_UP
from crossview.platform.train.resolve import ResolvedRun
from crossview.platform.train.state import Training, Worker, optimizer_for

NEVER = 10**9
Batch = Mapping[str, Tensor]


class FromMemory:
    """In the place of `Stream`: the same batch again and again; notes when each is asked for."""

    wait_s, quarantined = 0.0, 0
    batch: Batch
    asked: list[float]

    def __init__(self, *_: object, **__: object) -> None:
        type(self).asked = []

    def __enter__(self) -> FromMemory:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self.asked.append(time.process_time())
            yield self.batch


class Discarded:
    """A tracker that costs nothing itself."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Forget it."""

    def flush(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


def seconds() -> list[float]:
    """From one batch to the next."""
    asked = FromMemory.asked
    return [later - earlier for earlier, later in itertools.pairwise(asked)]


def plain(run: ResolvedRun, steps: int) -> None:
    """The loop that one would write by hand."""
    torch.manual_seed(0)
    model = build(run.method, run.experiment.method).train()
    optimizer = optimizer_for(model, run.experiment.optim)
    stream = iter(FromMemory())
    for _ in range(steps):
        loss = model(next(stream))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def optimise(run: ResolvedRun, steps: int) -> None:
    """Crossview's step alone."""
    training = Training(run, Worker(torch.device("cpu")))
    forward, stream = training.forward(), iter(FromMemory())
    for _ in range(steps):
        training.optimise(stream, forward, 1, steps)


def train(run: ResolvedRun, _: int) -> None:
    """Crossview's loop."""
    loop.train(run, Worker(torch.device("cpu"), in_process=True), lambda _: None)


WAYS: dict[str, tuple[Callable[[ResolvedRun, int], None], dict[str, Any]]] = {
    "plain loop": (plain, {}),
    "one step (Training.optimise)": (optimise, {}),
    "the loop, all options off": (train, {}),
    "  a row every 10 steps (default)": (train, {"log": 10}),
    "  a row every step": (train, {"log": 1}),
    "  and --track": (train, {"log": 1, "track": "wandb"}),
    "  --compute.profile": (train, {"profile": True}),
    "  --compute.activation-checkpointing": (train, {"activation_checkpointing": True}),
}


def resolved(folder: Path, name: str, steps: int, options: Mapping[str, Any]) -> ResolvedRun:
    """A run of the debug preset that needs no catalog."""
    recipe = preset(name, "debug")
    experiment = Experiment(
        data=Data(catalog=folder),
        method=recipe.method,
        optim=replace(recipe.optim, steps=steps, epochs=None, batch=len(FromMemory.batch["sample"])),
        compute=Compute(
            device="cpu",
            activation_checkpointing=options.get("activation_checkpointing", False),
            profile=steps - WAIT - WARM_UP if options.get("profile") else None,
        ),
        every=Cadence(log=options.get("log", NEVER), checkpoint=NEVER),
        track=options.get("track"),
    )
    info = run_folder.create(folder, name, experiment)
    return ResolvedRun(folder, name, experiment, (), cast(Any, SimpleNamespace(rows_per_epoch=NEVER)), info)


def measure(name: str, way: str, steps: int, root: Path) -> list[float]:
    """Seconds of each step but the first ones; of the profiler's, of those that it traces."""
    execute, options = WAYS[way]
    execute(resolved(root / str(time.time_ns()), name, steps, options), steps)
    return seconds()[WAIT + WARM_UP :]


def empty(name: str, steps: int, root: Path, log: int) -> float:
    """Seconds of the loop around a step that does nothing, with a row every `log` steps: the mean per step."""
    values = {"loss": torch.tensor(1.0), "grad_norm": torch.tensor(1.0)}

    def nothing(training: Training, batches: Iterator[Any], *_: object) -> dict[str, Tensor]:
        next(batches)
        training.step += 1
        return values

    before, Training.optimise = Training.optimise, nothing  # type: ignore[method-assign, assignment]
    try:
        train(resolved(root / str(time.time_ns()), name, steps, {"log": log}), steps)
    finally:
        Training.optimise = before  # type: ignore[method-assign]
    return (FromMemory.asked[-1] - FromMemory.asked[0]) / (steps - 1)


def compare(name: str, options: argparse.Namespace, root: Path) -> None:
    """One method's table."""
    torch.manual_seed(0)
    FromMemory.batch = example_batch(preset(name, "debug").method.sampling(), options.batch)
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(options.rounds):
        for way in WAYS:
            best[way] = min(best[way], *measure(name, way, options.steps, root))
    first = best["plain loop"]
    for way, fastest in best.items():
        print(f"{name:8} {way:38} {1e3 * fastest:9.2f} {100 * (fastest / first - 1):+9.1f} %", flush=True)
    for log, what in ((NEVER, "around an empty step, all options off"), (10, "  and a row every 10 steps")):
        cost = min(empty(name, 2000, root, log) for _ in range(options.rounds))
        print(f"{name:8} {what:38} {1e3 * cost:9.4f} {100 * cost / first:9.4f} % of a plain step", flush=True)


def main() -> None:
    """Every method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="*", default=method_names())
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=15, help="per round and way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    importlib.import_module("torch._dynamo")  # seconds, which the first optimiser would take
    loop.Stream = FromMemory  # type: ignore[misc, assignment]
    trackers._SERVICES["wandb"] = lambda *_: Discarded()
    print("method   way                               CPU ms a step   more than the plain loop")
    with tempfile.TemporaryDirectory(prefix="loop-overhead-") as folder:
        for name in options.method:
            compare(name, options, Path(folder))


if __name__ == "__main__":
    main()
