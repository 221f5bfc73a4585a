"""The training loop: one for all methods, plain torch, the same on a laptop and in a Ray Train worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from crossview.platform import checkpoint
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.train.batch_layout import shares
from crossview.platform.train.checkpoint_writer import CheckpointWriter
from crossview.platform.train.lr_schedule import learning_rate
from crossview.platform.train.metrics import Interval, Metrics
from crossview.platform.train.profiler import labelled, profiled
from crossview.platform.train.resolve import ResolvedRun
from crossview.platform.train.state import Training, Worker
from crossview.platform.train.status import Status
from crossview.platform.train.trackers import open_trackers
from crossview.platform.train.validation import Validator, is_due


def training_of(run: ResolvedRun, worker: Worker) -> Training:
    """The training of a run from its latest checkpoint, or from the start, with its model whole or sharded."""
    if run.experiment.compute.parallel == "fsdp" and worker.world > 1:
        from crossview.platform.train.fsdp import Sharded  # seconds of imports that the others do without

        return Sharded(run, worker)
    return Training(run, worker)


def train(
    run: ResolvedRun,
    worker: Worker,
    on_step: Callable[[Status], None],
    until: int | None = None,
    leave: Callable[[], bool] | None = None,
) -> None:
    """Train a run from its latest checkpoint, or from the start, to its end.

    `until` ends it sooner, after that step and with a checkpoint; the schedule stays that of the whole run, so that
    stopping and resuming changes nothing. `leave` is asked on every rank after each step; a true answer, the same on
    all, ends it there, with a checkpoint too.
    """
    training = training_of(run, worker)
    optim, compute, every = run.experiment.optim, run.experiment.compute, run.experiment.every
    micro, passes = shares(optim, compute, worker.world, training.model.reach())
    total, folder = run.total_steps, run.folder
    forward = training.forward()
    warnings: list[str] = []
    status: Status | None = None
    with checkpoint.needs_space(folder / "tensorboard", folder):
        trackers = open_trackers(folder, run.info, training.step, warnings.append) if worker.rank == 0 else []
        metrics = Metrics(folder, training.step, trackers) if worker.rank == 0 else None
    validate = Validator(run, worker)
    validate(training.step, metrics)
    stop = total if until is None else min(until, total)
    shard = Shard(
        start_step=training.step,
        stop_step=max(stop, training.step),
        batch=optim.batch,
        micro_batch=micro,
        rank=worker.rank,
        world=worker.world,
    )
    stream = Stream(
        run.plan,
        run.experiment.data,
        shard,
        device=worker.device,
        run_dir=folder,
        in_process=worker.in_process,
        decode_apart=worker.decode_apart,
    )
    started = time.monotonic()
    interval = Interval(worker.device, training.step)
    traced = profiled(folder, compute.profile if worker.rank == 0 else None, worker.device)
    with stream, CheckpointWriter(background=compute.async_checkpoint) as writer, traced as profile:
        batches = labelled(iter(stream)) if profile else iter(stream)
        while training.step < stop:
            values = training.optimise(batches, forward, passes, total)
            if profile:
                profile.step()
            last, due = training.step == stop, is_due(run, training.step)
            if training.step % every.log == 0 or last or due:
                row = interval.row(values, training.step, optim.batch)
                if metrics:
                    wait = stream.wait_s / max(time.monotonic() - started, 1e-9)
                    rate, bad = learning_rate(optim, training.step - 1, total), stream.quarantined
                    row |= {"lr": rate, "data_wait": wait, "quarantined": bad}
                    with checkpoint.needs_space(folder / "tensorboard", folder):
                        metrics.log(training.step, row)
                    status = Status(
                        training.step,
                        total,
                        row["loss"],
                        wait,
                        bad,
                        row["samples_per_s"],
                        "scoring the checkpoint" if due else "",
                        tuple(warnings),
                    )
                    on_step(status)
            leaving = leave is not None and not last and leave()
            if training.step % every.checkpoint == 0 or last or due or leaving:
                if metrics:  # first: a checkpoint must not exist without the rows before it
                    with checkpoint.needs_space(folder / "metrics.parquet", folder):
                        metrics.flush()
                writer.write(training)
            if leaving:  # what is due then is scored when training goes on
                break
            if due:
                writer.wait()
                began = time.monotonic()
                validate(training.step, metrics)
                spent = time.monotonic() - began
                started, interval.started = started + spent, interval.started + spent
                if status:
                    status = replace(status, doing="")
                    on_step(status)
    if metrics:
        with checkpoint.needs_space(folder / "metrics.parquet", folder):
            metrics.close()
        if status and len(warnings) > len(status.warnings):  # closing a tracker gave one
            on_step(replace(status, warnings=tuple(warnings)))
