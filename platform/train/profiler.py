"""A trace of some training steps by torch's profiler, in RUN/profile/."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from crossview import storage
from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.config import Compute

WAIT, WARM_UP = 4, 1
"""Steps before the traced ones: without and with the profiler, whose own start would be in the first of them."""
TRACE, TABLE = "trace.json", "operators.txt"


def check_profile(compute: Compute, total_steps: int) -> None:
    """Raise ValueError if the run is too short to be traced."""
    if compute.profile is not None and total_steps < WAIT + WARM_UP + compute.profile:
        raise UserError(
            f"compute.profile is {compute.profile}, but the run has {total_steps} steps; the trace starts after "
            f"{WAIT + WARM_UP} steps: lower it, or train for longer"
        )


@contextlib.contextmanager
def profiled(run: Path, steps: int | None, device: torch.device) -> Iterator[profile | None]:
    """Trace `steps` steps, each ended by the profiler's `step()`; None for no steps, or if the run has its trace.

    Nothing is written if training ends before the last of them; a resumed run then tries again.
    """
    if steps is None or storage.is_file(run / "profile" / TABLE):
        yield None
        return
    if device.type == "cpu":  # above its levels: it reports the missing GPU as an error, and its own start and stop
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")

    def write(found: profile) -> None:
        if found.step_num < WAIT + WARM_UP + steps:
            return
        folder = run / "profile"
        order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        table = found.key_averages().table(sort_by=order, row_limit=100, max_name_column_width=80)
        with checkpoint.needs_space(folder, run):
            storage.make_folder(folder)
            storage.write(folder / TRACE, lambda partial: found.export_chrome_trace(str(partial)), once=True)
            storage.write_text(folder / TABLE, table)

    plan = schedule(wait=WAIT, warmup=WARM_UP, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as found:
        yield found


def labelled(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches; what each took to arrive is named in the trace."""
    while True:
        with record_function("wait for data"):
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch
