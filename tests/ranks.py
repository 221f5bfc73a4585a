"""Several ranks as processes of this machine, each of which leaves what it found as RANK.pt."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch


def results(work: Callable[[int, Path], None], count: int, folder: Path) -> list[Any]:
    """What `work(rank, folder)` saved in each of `count` processes, by rank; they must all end well."""
    context = get_context("spawn")
    processes = [context.Process(target=work, args=(rank, folder)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * count
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]
