"""Training steps of each method against a plain transcription of its reference's loops, side by side in one run.

Both compute the same loss with the same weights on the same batch, forward and backward; the reference is what stands
in `loops/METHOD.py`. Prints steps per second, their ratio, peak memory above the start and achieved FLOP/s, on the CPU
and, where there is one, on a GPU. FLOPs are counted once, for the method's own step, by torch's counter.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from crossview.methods.example_batch import example_batch
from crossview.methods.method import Method, build

WAYS = ("method", "reference")


@dataclass
class Measured:
    """One way on one device."""

    seconds: list[float]
    """Of each step."""
    peak_mb: float
    """Above what was in use before the first step."""
    loss: float


def case(name: str, size: str, device: torch.device) -> tuple[Method, dict[str, Tensor], Any]:
    """The model, a batch and the module of its reference."""
    loops = importlib.import_module(f"loops.{name}")
    config, batch = loops.sizes()[size]()
    torch.manual_seed(0)
    features = (1, config.feature_width) if getattr(config, "input", "video") == "features" else None
    example = example_batch(config.sampling(), batch, features=features)
    model = build(name, config).to(device).train()
    for module in model.modules():  # dropout draws anew in each way, and the losses are compared
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model, {k: v.to(device) for k, v in example.items()}, loops


def step(way: Callable[[], Tensor], model: Method) -> float:
    """One forward and backward pass; returns the loss."""
    model.zero_grad(set_to_none=True)
    loss = way()
    loss.backward()
    return float(loss.detach())  # waits for the device


class _Peak:
    """Peak memory in MB above the start: of the device, or of this process, looked at every few ms."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._process = device, psutil.Process()
        self._stop = threading.Event()
        self.mb = 0.0

    def __enter__(self) -> _Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
        else:
            self._start = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def _look(self) -> None:
        while not self._stop.wait(0.003):
            self.mb = max(self.mb, (self._process.memory_info().rss - self._start) / 2**20)

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.mb = (torch.cuda.max_memory_allocated() - self._start) / 2**20
        else:
            self._stop.set()
            self._thread.join()


def measure(name: str, size: str, way: str, device: torch.device, steps: int) -> Measured:
    """`steps` timed steps after one that is not."""
    model, batch, loops = case(name, size, device)
    ways = {"method": lambda: model(batch)["loss"], "reference": lambda: loops.reference(model, batch)}
    seconds = []
    with _Peak(device) as peak:
        loss = step(ways[way], model)
        for _ in range(steps):
            started = time.perf_counter()
            step(ways[way], model)
            seconds.append(time.perf_counter() - started)
    return Measured(seconds, peak.mb, loss)


def flops(name: str, size: str, device: torch.device) -> int:
    """Of one step of the method."""
    model, batch, _ = case(name, size, device)
    with FlopCounterMode(display=False) as counter:
        step(lambda: model(batch)["loss"], model)
    return counter.get_total_flops()


def child(options: argparse.Namespace) -> None:
    """One way in a process of its own, so that neither finds the other's memory."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.way == "flops":
        print(flops(options.method, options.size, device))
        return
    found = measure(options.method, options.size, options.way, device, options.steps)
    print(found.loss, found.peak_mb, *found.seconds)


def ask(name: str, size: str, way: str, device: str, options: argparse.Namespace) -> list[float]:
    """The numbers that `child` prints."""
    command = [sys.executable, __file__, "--child", "--method", name, "--size", size, "--way", way, "--device", device]
    command += ["--steps", str(options.steps), "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildProcessError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")
    return [float(value) for value in done.stdout.split()]


def compare(name: str, size: str, device: str, options: argparse.Namespace) -> None:
    """Rounds of both ways in turn, so that other load on the machine meets both; the fastest step of each counts."""
    rounds = {way: [ask(name, size, way, device, options) for _ in range(options.rounds)] for way in WAYS}
    own, theirs = (rounds[way] for way in WAYS)
    if abs(own[0][0] - theirs[0][0]) > 1e-3 * max(1.0, abs(own[0][0])):
        raise ValueError(f"{name} {size}: loss {own[0][0]} against the reference's {theirs[0][0]}; they must be equal")
    best = {way: min(min(values[2:]) for values in rounds[way]) for way in WAYS}
    peak = {way: min(values[1] for values in rounds[way]) for way in WAYS}
    rate = ask(name, size, "flops", device, options)[0] / best["method"]
    print(
        f"{name:8} {size:8} {device:5} {1 / best['method']:8.2f} {1 / best['reference']:10.2f} "
        f"{best['reference'] / best['method']:7.2f} {peak['method']:9.0f} {peak['reference']:10.0f} {rate / 1e9:9.1f}",
        flush=True,
    )


def main() -> None:
    """Every method and size on every device here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="*", help="methods; all that have a reference by default")
    parser.add_argument("--size", nargs="*", help="laptop, paper; by default laptop, and paper on a GPU")
    parser.add_argument("--device", nargs="*", help="cpu, cuda; by default all that are here")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--way", choices=(*WAYS, "flops"), help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        for part in ("method", "size", "device"):
            setattr(options, part, getattr(options, part)[0])
        child(options)
        return
    devices = options.device or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    print("                             steps per second             peak memory in MB     the method's")
    print("method   size     device   method  reference   ratio    method  reference   GFLOP/s")
    for name in options.method or references():
        for device in devices:
            for size in options.size or (["laptop"] if device == "cpu" else ["laptop", "paper"]):
                compare(name, size, device, options)


def references() -> list[str]:
    """Methods whose reference loops stand in `loops/`."""
    return sorted(p.stem for p in (Path(__file__).parent / "loops").glob("*.py") if p.stem != "__init__")


if __name__ == "__main__":
    main()
