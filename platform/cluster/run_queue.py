"""Jobs side by side as Ray tasks: so many at a time, each after the one that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from crossview.errors import UserError
from crossview.platform.cluster.connect import connect

RETRIES = 2
"""Times that a job whose process died is started again; it resumes from what it has saved."""
POLL_S = 1.0


@dataclass(frozen=True)
class Job:
    """One call of the work."""

    name: str
    arguments: tuple[Any, ...]
    after: str | None = None
    """Name of the job that must have ended before; one that is not in the queue has ended already."""


def run_side_by_side(
    work: Callable[..., None],
    jobs: Sequence[Job],
    at_a_time: int,
    *,
    cpus: float = 1,
    gpus: float = 0,
    tell: Callable[[int], None],
    resume: str,
) -> None:
    """Call `work(*job.arguments)` for every job, `at_a_time` of them at once, each claiming `cpus` and `gpus`.

    `tell` is told, at least every POLL_S seconds, how many have ended. A UserError of a job passes through; where
    storage fails or a process died too often, raises OSError that names the cause and the command `resume`.
    """
    connect()
    remote: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
    task = remote(work)
    waiting, running = list(jobs), dict[Any, str]()
    tell(0)
    while waiting or running:
        pending = {*running.values(), *(job.name for job in waiting)}
        ready = [job for job in waiting if job.after not in pending]
        for job in ready[: at_a_time - len(running)]:
            waiting.remove(job)
            running[task.remote(*job.arguments)] = job.name
        done, _ = ray.wait(list(running), timeout=POLL_S)
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError):
                raise cause from error
            text = str(cause or error).strip().splitlines()[-1]
            raise OSError(f"{text}; resume with `{resume}`") from error
        for reference in done:
            del running[reference]
        tell(len(jobs) - len(waiting) - len(running))
