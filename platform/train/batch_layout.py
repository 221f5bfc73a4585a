"""How the global batch is divided among workers and forward passes."""

from __future__ import annotations

import contextlib
from typing import Literal

from crossview.errors import UserError
from crossview.methods.recipe import Optim
from crossview.platform.config import Compute

Reach = Literal["sample", "pass", "workers"]


def shares(optim: Optim, compute: Compute, workers: int | None = None, reach: Reach = "pass") -> tuple[int, int]:
    """(samples per forward pass, passes per step) of one worker; raises ValueError where the batch does not divide.

    With fewer `workers` than configured, what `reach` names (see `Method.reach`) stays as configured: the samples of a
    forward pass, or of that pass on all workers; for "sample" a pass only never grows.
    """
    if optim.batch % compute.workers:
        raise UserError(
            f"optim.batch {optim.batch} does not divide among compute.workers {compute.workers}; make it a multiple"
        )
    share = optim.batch // compute.workers
    micro = compute.micro_batch or share
    if share % micro:
        raise UserError(
            f"compute.micro_batch {micro} does not divide a worker's share {share} of optim.batch {optim.batch}; "
            "choose a divisor of the share"
        )
    if workers is None or workers == compute.workers:
        return micro, share // micro
    fewer, passes = optim.batch // workers, share // micro
    if reach == "workers":
        micro = fewer // passes
    elif reach == "sample":
        micro = max(m for m in range(1, micro + 1) if fewer % m == 0)
    if micro == 0 or optim.batch % (workers * micro) or (reach == "workers" and fewer % passes):
        raise UserError(
            f"optim.batch {optim.batch} does not divide among {workers} of compute.workers {compute.workers} in passes "
            f"of {micro} samples; choose a batch that is a multiple"
        )
    return micro, fewer // micro


def worker_counts(optim: Optim, compute: Compute, reach: Reach) -> list[int]:
    """Numbers of workers to continue with, most first: those from min_workers on that share the batch evenly."""
    counts = []
    for workers in range(compute.workers, (compute.min_workers or compute.workers) - 1, -1):
        with contextlib.suppress(UserError):
            shares(optim, compute, workers, reach)
            counts.append(workers)
    return counts
