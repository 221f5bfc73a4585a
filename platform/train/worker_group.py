"""A run in Ray Train: what a group of workers is given, and what each of them executes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.cluster import resources
from crossview.platform.cluster.connect import ray_storage
from crossview.platform.train.device import set_threads, within_memory
from crossview.platform.train.loop import train
from crossview.platform.train.notice import Looks
from crossview.platform.train.resolve import ResolvedRun
from crossview.platform.train.state import Worker
from crossview.platform.train.status import status_writer
from crossview.platform.train.validation import is_missing
from crossview.platform.train.verdict import Verdict


@dataclass(frozen=True)
class Job:
    """What every group of one run is given."""

    run: ResolvedRun
    until: int | None
    verdict: Verdict
    gpu: bool

    def trainer(self, workers: int, failures: FailureConfig) -> TorchTrainer:
        """A group of `workers` that trains from the latest checkpoint on."""
        config = {"run": self.run, "verdict": self.verdict, "until": self.until}
        return TorchTrainer(
            _worker_loop,
            train_loop_config=config | {"decode_apart": resources.decoding_apart()},
            torch_config=TorchConfig(backend="nccl" if self.gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=self.gpu, resources_per_worker=resources.per_worker(gpu=self.gpu)
            ),
            run_config=RunConfig(
                # Ray silently resumes a name it has seen. Our checkpoints say where to resume: a new name each time.
                name=f"ray-{time.time_ns()}",
                **ray_storage(self.run.folder / "ray"),
                failure_config=failures,
            ),
        )

    def finished(self) -> bool:
        """Whether its last checkpoint is there, and scored if it is to be."""
        last = min(self.run.total_steps, self.until or self.run.total_steps)
        newest = checkpoint.latest(self.run.folder)
        reached = newest is not None and newest.name >= checkpoint.folder(self.run.folder, last).name
        return reached and not is_missing(self.run, last)

    def room(self, counts: list[int], running: int = 0) -> int:
        """The first of `counts` workers for which the cluster has room now, beside a group of `running` ones."""
        actors, free = self.run.experiment.data.actors, resources.free()
        if resources.DECODE_CPUS in free:
            free[resources.DECODE_CPUS] -= running * actors * resources.ACTOR_CPUS
        return resources.fitting(counts, actors, free, gpu=self.gpu)


def _worker_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker executes."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    run: ResolvedRun = config["run"]
    set_threads(run.experiment.compute)
    context, device, verdict = ray_train.get_context(), get_device(), config["verdict"]
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and FSDP's mesh take the current one
    worker = Worker(device, context.get_world_rank(), context.get_world_size(), decode_apart=config["decode_apart"])
    if verdict.read() is not None:  # the group was restarted after an error that a restart cannot fix
        return
    try:
        looks = Looks(_asked(worker, verdict), device)
        with within_memory(run.folder, run.method, run.experiment.compute):
            train(run, worker, status_writer(run.folder), config["until"], leave=looks.leave)
    except (UserError, OSError) as error:
        verdict.give(str(error))
        if worker.world > 1:  # the other ranks wait for this one: end the group
            raise


def _asked(worker: Worker, verdict: Verdict) -> Callable[[], bool]:
    """Whether the driver asks the group to end, or a node of the group is about to be taken away.

    Says that the group trains once it does: its decoders then have claimed their share.
    """
    from ray.train import get_preemption_info

    def asked() -> bool:
        preempted = get_preemption_info() is not None  # on every rank: Ray waits for all of them
        stage = verdict.stage() if worker.rank == 0 else None
        if stage == "starting":
            verdict.set_stage("training")
        return preempted or stage == "leaving"

    return asked
