"""One group of workers after the other until a run is done, of one size or each as large as there is room for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import ray
from ray.autoscaler.sdk import request_resources
from ray.train import FailureConfig, TrainingFailedError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from crossview.platform.cluster import resources
from crossview.platform.progress import console
from crossview.platform.train.notice import Notice
from crossview.platform.train.worker_group import Job

LOOK_S = 10.0
"""How often a group that is smaller than configured looks for room to grow."""
NOTICED_S = 20.0
"""After this time Ray knows that a node is gone whose workers have been missed."""


def fit_fixed(job: Job, notice: Notice) -> None:
    """One group of all workers after the other until the run is done, or notice is given.

    A group restarts by itself after failures. It leaves a node that is about to be taken away, which is no failure.
    """
    compute = job.run.experiment.compute
    while True:
        job.trainer(compute.workers, FailureConfig(max_failures=compute.max_failures)).fit()
        if notice.given or job.verdict.read() is not None or job.finished():
            return
        console.print(f"{job.run.folder.name}: a node is about to be taken away; the workers start on others")
        job.verdict.set_stage("starting")


def fit_elastic(job: Job, counts: list[int], notice: Notice) -> None:
    """One group after the other, each as large as there is room for, until the run is done, or notice is given.

    Ray's own elastic groups take any size that fits; here the size must share the batch evenly and leave room for
    decoding. A group that broke with one of its nodes is no failure.
    """
    compute = job.run.experiment.compute
    failed, tried = 0, counts
    once = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)  # type: ignore[call-arg]
    request_resources(bundles=[resources.per_worker(gpu=job.gpu)] * compute.workers)  # what is lost is started anew
    try:
        while not notice.given and not job.finished():
            job.verdict.set_stage("starting")
            workers, nodes = _await_room(job, tried), _nodes()
            tried = counts
            console.print(f"{job.run.folder.name}: {workers} of {compute.workers} workers")
            larger = [count for count in counts if count > workers]
            try:
                with _looking(job, workers, larger):
                    job.trainer(workers, once).fit()
            except TrainingFailedError as error:
                console.print(f"{job.run.folder.name}: the group ended: {str(error).strip().splitlines()[-1]}")
                if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
                    tried = [count for count in counts if count < workers] or counts  # room, but in no single place
                elif not _lost(nodes):
                    failed += 1
                if failed > compute.max_failures or job.verdict.read() is not None:
                    raise
            if job.verdict.read() is not None:
                return
    finally:
        request_resources(bundles=[])


def _lost(nodes: set[str]) -> bool:
    """Whether one of these nodes goes; Ray notices it seconds after its workers are missed."""
    end_s = time.monotonic() + NOTICED_S
    while nodes <= _nodes():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.5)
    return True


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _await_room(job: Job, counts: list[int]) -> int:
    """Wait until the smallest group has room, and until what is being freed or lost has settled."""
    before, told = -1, False
    while (now := job.room(counts)) == 0 or now != before:
        if now == 0 and before == 0 and not told:
            console.print(f"{job.run.folder.name}: waiting for room for {counts[-1]} workers")
            told = True
        before = now
        time.sleep(1.0)
    return now


@contextlib.contextmanager
def _looking(job: Job, workers: int, larger: list[int]) -> Iterator[None]:
    """Meanwhile ask the workers to leave at their next checkpoint once a larger group has room, twice in a row.

    Not before they train: until then what they will claim themselves is free.
    """
    stop = threading.Event()

    def look() -> None:
        seen = 0
        while seen < 2 and not stop.wait(LOOK_S):
            more = job.verdict.stage() == "training" and job.room([count - workers for count in larger], workers)
            seen = seen + 1 if more else 0
        if not stop.is_set():
            job.verdict.set_stage("leaving")

    thread = threading.Thread(target=look, daemon=True)
    if larger:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if larger:
            thread.join()
