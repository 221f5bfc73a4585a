"""The training loop: one for all methods, plain torch, the same on a laptop and in a Ray Train worker."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.methods.method import Method, build
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.config import Compute, Data, Experiment, read
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.train.metrics import Metrics


@dataclass(frozen=True)
class Worker:
    """One rank's place in the run."""

    device: torch.device
    rank: int = 0
    world: int = 1
    in_process: bool = False
    """Decode in this process instead of Ray actors."""
    decode_apart: bool = False
    """Let Ray decode on nodes for that alone, even before one is up."""


@dataclass(frozen=True)
class Status:
    """What the progress line shows."""

    step: int
    total: int
    loss: float
    data_wait: float
    """Share of the time since the start spent waiting for data."""
    quarantined: int
    pid: int = field(default_factory=os.getpid)

    def note(self) -> str:
        """One short text for the end of the progress line."""
        bad = f", {self.quarantined} files quarantined" if self.quarantined else ""
        return f"loss {self.loss:.4f}, waits for data {self.data_wait:.0%}{bad}"


def total_steps(optim: Optim, rows_per_epoch: int) -> int:
    """Optimiser steps of the whole run; raises ValueError where an epoch is shorter than one batch and gives none."""
    if optim.steps is not None:
        return optim.steps
    steps = (optim.epochs or 0) * rows_per_epoch // optim.batch
    if steps == 0:
        raise ValueError(
            f"optim.epochs {optim.epochs} x {rows_per_epoch} samples per epoch are less than one batch of "
            f"{optim.batch}; lower --optim.batch or raise --optim.epochs"
        )
    return steps


def learning_rate(optim: Optim, step: int, total: int) -> float:
    """Linear warm-up, then constant, in steps, or half a cosine down to min_lr; a pure function of the step."""
    warmup = optim.warmup_steps if optim.warmup_share is None else round(optim.warmup_share * total)
    begin = 0 if optim.cosine_over == "run" else warmup
    if step < warmup:
        top = _decayed(optim, warmup, total, begin)
        if optim.warmup_lr is None:
            return top * (step + 1) / warmup
        return optim.warmup_lr + (top - optim.warmup_lr) * step / warmup
    return _decayed(optim, step, total, begin)


def _decayed(optim: Optim, step: int, total: int, begin: int) -> float:
    if optim.schedule == "constant":
        return optim.lr
    if optim.schedule == "steps":
        return optim.lr * optim.gamma ** sum(step >= round(share * total) for share in optim.milestones)
    done = (step - begin) / max(1, total - begin)
    return optim.min_lr + 0.5 * (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * min(1.0, done)))


Reach = Literal["sample", "pass", "workers"]


def shares(optim: Optim, compute: Compute, workers: int | None = None, reach: Reach = "pass") -> tuple[int, int]:
    """(samples per forward pass, passes per step) of one worker; raises ValueError where the batch does not divide.

    With fewer `workers` than configured, what `reach` names (see `Method.reach`) stays as configured: the samples of a
    forward pass, or of that pass on all workers; for "sample" a pass only never grows.
    """
    if optim.batch % compute.workers:
        raise ValueError(
            f"optim.batch {optim.batch} does not divide among compute.workers {compute.workers}; make it a multiple"
        )
    share = optim.batch // compute.workers
    micro = compute.micro_batch or share
    if share % micro:
        raise ValueError(
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
        raise ValueError(
            f"optim.batch {optim.batch} does not divide among {workers} of compute.workers {compute.workers} in passes "
            f"of {micro} samples; choose a batch that is a multiple"
        )
    return micro, fewer // micro


def worker_counts(optim: Optim, compute: Compute, reach: Reach) -> list[int]:
    """How many workers the run may go on with, most first: those from min_workers on that share the batch evenly."""
    counts = []
    for workers in range(compute.workers, (compute.min_workers or compute.workers) - 1, -1):
        with contextlib.suppress(ValueError):
            shares(optim, compute, workers, reach)
            counts.append(workers)
    return counts


def optimizer_for(model: Method, optim: Optim) -> torch.optim.Optimizer:
    """Adam with coupled, or AdamW with decoupled weight decay, or SGD with Nesterov's momentum."""
    groups = model.parameter_groups(optim.weight_decay)
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.momentum > 0)
    kind = torch.optim.Adam if optim.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=optim.lr, betas=optim.betas)


def initial_model(name: str, experiment: Experiment[Any], tell: Callable[[str], None] | None = None) -> Method:
    """The model before its first step; raises ValueError where the weights that it starts from do not fit it.

    `tell` is told what of those weights it does not take over.
    """
    if experiment.init_from is None:
        return build(name, experiment.method)
    source = checkpoint.resolve(experiment.init_from)
    model = build(name, checkpoint.without_pretrained(experiment.method))
    try:
        left_out = model.start_from(checkpoint.read_weights(source))
    except ValueError as error:
        raise ValueError(
            f"init_from is {source}; its weights do not fit this configuration of {name} ({error}): configure the "
            "network as that run's, or leave --init-from out"
        ) from error
    if tell:
        for line in left_out:
            tell(f"from {source.parent.parent.name}: {line}")
    return model


class Training:
    """Model, optimiser and what else a checkpoint has to hold to go on as if nothing had happened."""

    cast_cache = True
    """Whether autocast keeps the parameters that it has cast, for the length of a pass."""

    def __init__(self, run: Path, worker: Worker) -> None:
        self.run_dir, self.worker = run, worker
        self.run_info = json.loads((run / "run.json").read_text())
        self.name, self.experiment = read(run)
        torch.manual_seed(self.experiment.seed)
        self.start = checkpoint.latest(run)
        self.ema: dict[str, Tensor] | None = None
        state = None
        if self.start is None:
            self._begin()
        else:
            state = self._restore(self.start)
        self._place()
        self.optimizer = optimizer_for(self.model, self.experiment.optim)
        half = self.experiment.compute.precision == "float16"
        self.scaler = torch.amp.GradScaler(worker.device.type, enabled=half)
        self.step = 0
        if state:
            self._restore_progress(state)
        if self.ema is not None:
            named = dict(self.model.named_parameters())
            self.ema = {n: self._own(named[n], w) for n, w in self.ema.items()}

    def _place(self) -> None:
        """Bring the model to the device."""
        self.model.to(self.worker.device)

    def forward(self) -> nn.Module:
        """What a training step calls: the model, or its copies on all workers."""
        model = self.model.train()
        return DistributedDataParallel(model) if self.worker.world > 1 else model

    def _own(self, parameter: Tensor, tensor: Tensor) -> Tensor:
        """What this worker keeps of a whole tensor that belongs to a parameter, such as a moving average of it."""
        return tensor.to(parameter.device)

    def _whole(self, state: Any) -> Any:
        """A nested state as a checkpoint holds it."""
        return state

    def _exchange(self, parameters: list[nn.Parameter]) -> None:
        """Take the mean over workers of gradients that the backward pass has not exchanged."""

    def _clip(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the whole gradient down to `max_norm`; returns the norm that it had."""
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def _begin(self) -> None:
        self.model = initial_model(self.name, self.experiment)
        if self.experiment.optim.ema_decay is not None:
            self.ema = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}

    def _restore(self, start: Path) -> dict[str, Any]:
        """Build the model with the weights of a checkpoint; returns the rest of its state."""
        self.model = build(self.name, checkpoint.without_pretrained(self.experiment.method))
        weights = checkpoint.read_weights(start)
        state = checkpoint.read_train_state(start, torch.device("cpu"))
        if state["ema"]:
            self.ema = {n: weights[n] for n in state["raw"]}
            weights |= state["raw"]
        self.model.load_state_dict(weights, strict=True)
        return state

    def _restore_progress(self, state: dict[str, Any]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        optimizer = state["optimizer"]
        optimizer["state"] = {
            k: {name: self._own(parameters[k], v) if isinstance(v, Tensor) and v.ndim else v for name, v in of.items()}
            for k, of in optimizer["state"].items()
        }
        # The configuration's own settings: a member of a population that took over another's weights has others.
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(optimizer)
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if self.worker.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.worker.device)
        self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint of this step, on rank 0; where the model lies in parts, every rank has to take part."""
        weights, ema = self._whole(self.model.state_dict()), self._whole(self.ema)
        optimizer = self._whole(self.optimizer.state_dict())
        target = checkpoint.folder(self.run_dir, self.step)
        if self.worker.rank != 0 or checkpoint.is_complete(target):
            return
        state: dict[str, Any] = {
            "step": self.step,
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "ema": ema is not None,
            "raw": {},
        }
        if self.worker.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.worker.device)
        if ema is not None:
            state["raw"] = {n: weights[n] for n in ema}
            weights = weights | ema
        with checkpoint.needs_space(target, self.run_dir):
            checkpoint.save(target, self.model, weights, state, self.run_info, self.experiment.every.keep)

    def optimise(self, micro_batches: Iterator[Any], forward: nn.Module, passes: int, total: int) -> dict[str, Tensor]:
        """One optimiser step over `passes` micro batches; returns the losses (means over workers) and gradient norm."""
        optim, compute = self.experiment.optim, self.experiment.compute
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(optim, self.step, total) * group.get("lr_scale", 1.0)
        dtype = getattr(torch, compute.precision)
        sums: dict[str, Tensor] = {}
        for i in range(passes):
            quiet = isinstance(forward, DistributedDataParallel) and i + 1 < passes
            with forward.no_sync() if quiet else contextlib.nullcontext():  # type: ignore[operator]
                half = {"enabled": dtype != torch.float32, "cache_enabled": self.cast_cache}
                with torch.autocast(self.worker.device.type, dtype, **half):
                    losses = forward(next(micro_batches))
                self.scaler.scale(losses["loss"] / passes).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() / passes
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._exchange(trained)
        self.scaler.unscale_(self.optimizer)
        norm = self._clip(trained, optim.clip_norm or math.inf)
        # A scaler's first scales are too large on purpose: their steps are left out. Below 1 that is no excuse.
        scaled = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not torch.isfinite(sums["loss"]) or not (scaled or torch.isfinite(norm)):
            raise ValueError(
                f"step {self.step}: loss or gradient is not finite (loss {float(sums['loss'])}); lower --optim.lr, set "
                "--optim.clip-norm, or look for broken input with `crossview view`"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.scaler.is_enabled() or torch.isfinite(norm):  # else the scaler left the step out
            self._average(optim.ema_decay)
        self.step += 1
        return _mean_over_workers(sums) | {"grad_norm": norm.detach()}

    @torch.no_grad()
    def _average(self, decay: float | None) -> None:
        if self.ema is None or decay is None:
            return
        for name, parameter in self.model.named_parameters():
            if name in self.ema:
                self.ema[name].lerp_(parameter, 1 - decay)


def training_of(run: Path, worker: Worker) -> Training:
    """The training of a run from its newest checkpoint, or from the start, with its model whole or in parts."""
    _, experiment = read(run)
    if experiment.compute.parallel == "fsdp" and worker.world > 1:
        from crossview.platform.train.fsdp import Sharded  # seconds of imports that the others do without

        return Sharded(run, worker)
    return Training(run, worker)


def _mean_over_workers(values: dict[str, Tensor]) -> dict[str, Tensor]:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    stacked = torch.stack([v.float() for v in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, stacked / dist.get_world_size(), strict=True))


def plan_for(experiment: Experiment[Any], features: Callable[[Catalog, Path], Catalog] | None = None) -> Plan | Mixture:
    """The plan that the run executes; raises ValueError where a catalog cannot give what the method asks for.

    `features`, called with a catalog and its folder, gives the catalog of its cached features.
    """
    data, seed = experiment.data, experiment.seed
    sampling = experiment.method.sampling()
    whole = Catalog.load(data.catalog, data.root)
    chosen = features(whole, data.catalog) if features else whole
    plans = [Plan(training_part(chosen, data), sampling, seed, Labels(whole, sampling.labels))]
    for k, source in enumerate(data.mix):
        more = Catalog.load(source.catalog)
        chosen = features(more, source.catalog) if features else more
        asked = replace(sampling, pairing=source.pairing or sampling.pairing)
        plans.append(
            Plan(chosen.select(data.split), asked, int(np.random.SeedSequence((seed, k + 1)).generate_state(1)[0]))
        )
    if len(plans) == 1:
        return plans[0]
    shares = [source.share for source in data.mix]
    return Mixture(plans, [1 - sum(shares), *shares], seed)


def training_part(catalog: Catalog, data: Data) -> Catalog:
    """The recordings of the training split, cameras and actions; raises ValueError for one that is not there."""
    part = catalog.select(data.split)
    for option, column, wanted in (("views", "view", data.views), ("actions", "action", data.actions)):
        if wanted is None:
            continue
        known = {str(getattr(r, column)) for r in part.recordings}
        if not set(wanted) <= known:
            raise ValueError(
                f"data.{option} is {', '.join(wanted)}; split {data.split!r} of catalog {catalog.root} has "
                f"the {option} {', '.join(sorted(known))}: name some of these"
            )
        part = part.keep(lambda r, column=column, kept=frozenset(wanted): getattr(r, column) in kept)  # type: ignore[misc]
    return part


def train(
    run: Path,
    worker: Worker,
    plan: Plan | Mixture,
    on_step: Callable[[Status], None],
    until: int | None = None,
    leave: Callable[[], bool] | None = None,
) -> None:
    """Train the run in folder `run` from its newest checkpoint, or from the start, to its end.

    `until` ends it sooner, after that step and with a checkpoint; the schedule stays that of the whole run, so that
    stopping and going on changes nothing. `leave` is asked on every rank after each checkpoint; a true answer, the same
    on all, ends it there.
    """
    training = training_of(run, worker)
    optim, compute, every = training.experiment.optim, training.experiment.compute, training.experiment.every
    micro, passes = shares(optim, compute, worker.world, training.model.reach())
    total = total_steps(optim, plan.rows_per_epoch)
    forward = training.forward()
    with checkpoint.needs_space(run / "tensorboard", run):
        metrics = Metrics(run, training.step) if worker.rank == 0 else None
    stop = total if until is None else min(until, total)
    shard = Shard(
        start_step=training.step,
        stop_step=max(stop, training.step),
        batch=optim.batch,
        micro_batch=micro,
        rank=worker.rank,
        world=worker.world,
    )
    if training.step >= stop:
        return
    stream = Stream(
        plan,
        training.experiment.data,
        shard,
        device=worker.device,
        run_dir=run,
        in_process=worker.in_process,
        decode_apart=worker.decode_apart,
    )
    started = time.monotonic()
    with stream:
        batches = iter(stream)
        while training.step < stop:
            values = training.optimise(batches, forward, passes, total)
            last = training.step == stop
            if metrics and (training.step % every.log == 0 or last):
                wait = stream.wait_s / max(time.monotonic() - started, 1e-9)
                row = {k: float(v) for k, v in values.items()}
                rate = learning_rate(optim, training.step - 1, total)
                row |= {"lr": rate, "data_wait": wait, "quarantined": stream.quarantined}
                with checkpoint.needs_space(run / "tensorboard", run):
                    metrics.log(training.step, row)
                on_step(Status(training.step, total, row["loss"], wait, stream.quarantined))
            if training.step % every.checkpoint == 0 or last:
                if metrics:  # first: a checkpoint must not stand without the rows before it
                    with checkpoint.needs_space(run / "metrics.parquet", run):
                        metrics.flush()
                training.save()
                if leave and leave():
                    break
    if metrics:
        with checkpoint.needs_space(run / "metrics.parquet", run):
            metrics.close()
