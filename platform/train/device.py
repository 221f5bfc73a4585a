"""Which device and how many threads training uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.cluster.resources import capacity, joined
from crossview.platform.config import Compute


def device_of(compute: Compute) -> torch.device:
    """The device of this process; raises ValueError where it lacks what is asked for."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device is cuda, but torch sees no GPU here; pass --compute.device cpu or auto")
    cuda = compute.device != "cpu" and torch.cuda.is_available()
    if compute.precision == "float16" and not cuda:
        raise UserError("compute.precision float16 needs a GPU; pass --compute.precision bfloat16 or float32")
    return torch.device("cuda" if cuda else "cpu")


@contextlib.contextmanager
def within_memory(run: Path, method: str, compute: Compute) -> Iterator[None]:
    """Say how a run needs less memory where the GPU's is full (ValueError)."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        micro = "a worker's whole share of the batch" if compute.micro_batch is None else str(compute.micro_batch)
        begin = f" --init-from {run}" if checkpoint.latest(run) else ""
        raise UserError(
            f"{run}: {str(error).split('. ')[0]}; --compute.micro-batch (now {micro}) is too large for this GPU, and a "
            f"run's options are fixed: start anew with `crossview train {method} --from {run}{begin} "
            "--compute.micro-batch K`, K a divisor of that share; --compute.precision bfloat16 takes less memory too"
        ) from error


def wants_gpu(compute: Compute) -> bool:
    """Whether its workers train on GPUs: this machine's, or those of the cluster that is joined and may grow."""
    if not joined():
        return device_of(compute).type == "cuda"
    from crossview.platform.cluster.connect import connect

    connect()
    gpu = compute.device == "cuda" or (compute.device == "auto" and capacity().get("GPU", 0) > 0)
    if compute.precision == "float16" and not gpu:
        raise UserError(
            "compute.precision float16 needs GPUs, but the cluster has none; pass --compute.precision bfloat16"
        )
    return gpu


def set_threads(compute: Compute) -> None:
    """Give torch in this process its share of the machine's cores."""
    torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.workers))
