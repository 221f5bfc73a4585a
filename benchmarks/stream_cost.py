"""What a piece of work costs: CPU clocks and memory of a process and of everything that it started."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK_S = 0.25


@dataclass
class Cost:
    """Filled in when the measured block ends."""

    cpu_s: float = 0.0
    """User and system time of all processes, those that ended included."""
    wall_s: float = 0.0
    memory_mb: float = 0.0
    """Peak of the sum over processes above what it was at the start; pages that several share count once."""


@contextmanager
def cost(root: int | None = None) -> Iterator[Cost]:
    """Measure the block in the processes below `root`, which is this one unless given."""
    found = Cost()
    before, stop, spent = memory_mb(root), threading.Event(), [0.0]
    peak = [before]

    def watch() -> None:
        while not stop.wait(LOOK_S):
            peak[0] = max(peak[0], memory_mb(root))
        spent[0] = time.thread_time()  # looking is no part of the work

    watcher = threading.Thread(target=watch, daemon=True)
    cpu, wall = cpu_s(root), time.perf_counter()
    watcher.start()
    try:
        yield found
    finally:
        found.wall_s = time.perf_counter() - wall
        peak[0] = max(peak[0], memory_mb(root))
        total = cpu_s(root) - cpu
        stop.set()
        watcher.join()
        found.cpu_s, found.memory_mb = total - spent[0], peak[0] - before


def processes(root: int | None = None) -> list[psutil.Process]:
    """The process and its descendants that run now."""
    try:
        top = psutil.Process(root)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(root: int | None = None) -> float:
    """CPU time of the tree. A process that ended counts once its parent has waited for it, which Ray's daemons do."""
    total = 0.0
    for process in processes(root):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mb(root: int | None = None) -> float:
    """Proportional set sizes of the tree, in MB: a page that n processes share counts 1/n in each."""
    total_kb = 0
    for process in processes(root):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except (OSError, ProcessLookupError):
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb * 1024 / 1e6
