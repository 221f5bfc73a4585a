"""A run in Ray Train: a group of workers, what replaces it when it breaks, and the progress line on the driver."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.autoscaler.sdk import request_resources
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from crossview import storage
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.methods.method import build
from crossview.platform import checkpoint
from crossview.platform.cluster import resources
from crossview.platform.cluster.connect import connect, ray_storage
from crossview.platform.config import Experiment, read
from crossview.platform.progress import Progress, console
from crossview.platform.train.launcher import look_s, set_threads, status_writer, wants_gpu
from crossview.platform.train.loop import Status, Worker, total_steps, train, worker_counts
from crossview.platform.train.verdict import Verdict

LOOK_S = 10.0
"""How often a group that is smaller than configured looks for room to grow."""
NOTICED_S = 20.0
"""After this time Ray knows that a node is gone whose workers have been missed."""


@dataclass(frozen=True)
class Job:
    """What every group of one run is given."""

    run: Path
    experiment: Experiment[Any]
    plan: Plan | Mixture
    until: int | None
    verdict: Verdict
    gpu: bool

    def trainer(self, workers: int, failures: FailureConfig) -> TorchTrainer:
        """A group of `workers` that goes on from the newest checkpoint."""
        config = {"run": str(self.run), "plan": self.plan, "verdict": self.verdict, "until": self.until}
        return TorchTrainer(
            _worker_loop,
            train_loop_config=config | {"decode_apart": resources.decoding_apart()},
            torch_config=TorchConfig(backend="nccl" if self.gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=self.gpu, resources_per_worker=resources.per_worker(gpu=self.gpu)
            ),
            run_config=RunConfig(
                # Ray silently resumes a name it has seen. Our checkpoints say where to go on: a new name each time.
                name=f"ray-{time.time_ns()}",
                **ray_storage(self.run / "ray"),
                failure_config=failures,
            ),
        )

    def finished(self) -> bool:
        """Whether its last checkpoint stands."""
        total = total_steps(self.experiment.optim, self.plan.rows_per_epoch)
        newest = checkpoint.latest(self.run)
        return newest is not None and newest.name >= checkpoint.folder(self.run, min(total, self.until or total)).name

    def room(self, counts: list[int], running: int = 0) -> int:
        """The first of `counts` workers for which the cluster has room now, beside a group of `running` ones."""
        actors, free = self.experiment.data.decode_actors, resources.free()
        if resources.DECODE_CPUS in free:
            free[resources.DECODE_CPUS] -= running * actors * resources.ACTOR_CPUS
        return resources.fitting(counts, actors, free, gpu=self.gpu)


def fit(
    run: Path, experiment: Experiment[Any], plan: Plan | Mixture, line: Progress, until: int | None, *, planned: bool
) -> None:
    """Run the loop in Ray Train workers while this process shows their progress.

    `planned` says that the cluster is known to have room: a search's driver sees what its autoscaler may add, a trial's
    process does not.
    """
    connect()
    compute = experiment.compute
    gpu = wants_gpu(compute)
    counts = _sizes(run, experiment)
    if not planned:
        least = replace(compute, min_workers=counts[-1]) if counts else compute
        resources.check_room(least, experiment.data.decode_actors, resources.capacity(), gpu=gpu)
    job = Job(run, experiment, plan, until, Verdict(), gpu)
    with _shown(run / "progress.json", line):
        try:
            if compute.min_workers is None:
                job.trainer(compute.workers, FailureConfig(max_failures=compute.max_failures)).fit()
            else:
                _fit_elastic(job, counts)
        except TrainingFailedError as error:
            if (reason := job.verdict.read()) is not None:
                raise ValueError(reason) from error
            raise ChildProcessError(
                f"{run}: training stopped after {compute.max_failures} restarts (compute.max_failures): {error}\n"
                f"Mend the cause; from its newest checkpoint it goes on with `crossview resume {run}`"
            ) from error
    if (reason := job.verdict.read()) is not None:
        raise ValueError(reason)


def _sizes(run: Path, experiment: Experiment[Any]) -> list[int]:
    """How many workers an elastic group may have, most first, so that all share the batch evenly; else none."""
    if experiment.compute.min_workers is None:
        return []
    name, _ = read(run)
    reach = build(name, checkpoint.without_pretrained(experiment.method)).reach()
    return worker_counts(experiment.optim, experiment.compute, reach)


def _fit_elastic(job: Job, counts: list[int]) -> None:
    """One group after the other, each as large as there is room for, until the run is done.

    Ray's own elastic groups take any size that fits; here the size must share the batch evenly and leave room for
    decoding. A group that broke with one of its nodes is no failure.
    """
    compute = job.experiment.compute
    failed, tried = 0, counts
    once = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)  # type: ignore[call-arg]
    request_resources(bundles=[resources.per_worker(gpu=job.gpu)] * compute.workers)  # what is lost is started anew
    try:
        while not job.finished():
            workers, nodes = _await_room(job, tried), _nodes()
            tried = counts
            console.print(f"{job.run.name}: {workers} of {compute.workers} workers")
            job.verdict.set_stage("starting")
            larger = [count for count in counts if count > workers]
            try:
                with _looking(job, workers, larger):
                    job.trainer(workers, once).fit()
            except TrainingFailedError as error:
                console.print(f"{job.run.name}: the group ended: {str(error).strip().splitlines()[-1]}")
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
            console.print(f"{job.run.name}: waiting for room for {counts[-1]} workers")
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


def _worker_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker executes."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    run = storage.as_path(config["run"])
    _, experiment = read(run)
    set_threads(experiment.compute)
    context, device, verdict = ray_train.get_context(), get_device(), config["verdict"]
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and FSDP's mesh take the current one
    worker = Worker(device, context.get_world_rank(), context.get_world_size(), decode_apart=config["decode_apart"])
    if verdict.read() is not None:  # the group was restarted after an error that a restart cannot mend
        return
    try:
        train(run, worker, config["plan"], _telling(run, verdict), config["until"], leave=_leave(worker, verdict))
    except (ValueError, OSError) as error:
        verdict.give(str(error))
        if worker.world > 1:  # the other ranks wait for this one: end the group
            raise


def _telling(run: Path, verdict: Verdict) -> Callable[[Status], None]:
    """Writes progress, and says that the group trains once it does: its decoders then have claimed their share."""
    write, trains = status_writer(run), False

    def tell(status: Status) -> None:
        nonlocal trains
        if not trains:
            verdict.set_stage("training")
            trains = True
        write(status)

    return tell


def _leave(worker: Worker, verdict: Verdict) -> Callable[[], bool]:
    """Whether the driver asks the group to end here: as rank 0 hears it, for all."""

    def asked() -> bool:
        heard = torch.tensor(float(worker.rank == 0 and verdict.stage() == "leaving"), device=worker.device)
        if worker.world > 1:
            dist.broadcast(heard, 0)
        return bool(heard)

    return asked


@contextlib.contextmanager
def _shown(file: Path, line: Progress) -> Iterator[None]:
    """Meanwhile keep the progress line at what the workers write to `file`."""
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(file, line, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _progress(file: Path) -> str:
    """What progress.json says, nothing where it cannot be read now."""
    try:
        with storage.named(file):
            return file.read_text() if file.exists() else ""
    except OSError:
        return ""


def _watch(file: Path, line: Progress, stop: threading.Event) -> None:
    seen = _progress(file)
    last = False
    while not last:
        last = stop.wait(look_s(file))
        text = _progress(file)
        if text and text != seen:
            seen = text
            status = Status(**json.loads(text))
            line.update(status.step, status.note())
