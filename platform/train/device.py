"""Which device and how many threads training uses."""

from __future__ import annotations

import os

import torch

from crossview.errors import UserError
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
