"""Model, optimiser and what else a run has to keep to resume exactly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crossview.errors import UserError
from crossview.methods.recipe import Optim
from crossview.methods.trained import Trained
from crossview.platform import checkpoint
from crossview.platform.models import build_model
from crossview.platform.train import optimizer_state
from crossview.platform.train.blocks import set_up_blocks
from crossview.platform.train.lr_schedule import learning_rate
from crossview.platform.train.resolve import ResolvedRun, initialised


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


def optimizer_for(model: Trained, optim: Optim) -> torch.optim.Optimizer:
    """Adam with coupled, or AdamW with decoupled weight decay, or SGD with Nesterov's momentum."""
    groups = model.parameter_groups(optim.weight_decay)
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.momentum > 0)
    kind = torch.optim.Adam if optim.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=optim.lr, betas=optim.betas)


class Training:
    """Model, optimiser and all other state that a checkpoint needs for an exact resume."""

    cast_cache = True
    """Whether autocast keeps the parameters that it has cast, for the length of a pass."""

    def __init__(self, run: ResolvedRun, worker: Worker) -> None:
        self.run, self.worker, self.experiment = run, worker, run.experiment
        torch.manual_seed(self.experiment.seed)
        self.start = checkpoint.latest(run.folder)
        self.ema: dict[str, Tensor] | None = None
        state = None
        if self.start is None:
            self._begin()
        else:
            state = self._restore(self.start)
        set_up_blocks(self.model, self.experiment.compute)
        self._place()
        self.optimizer = optimizer_for(self.model, self.experiment.optim)
        half = self.experiment.compute.precision == "float16"
        self.scaler = torch.amp.GradScaler(worker.device.type, enabled=half)
        self.step = 0
        if state and self.start:
            self._restore_progress(state, self.start / "train_state.pt")
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
        initial = self.run.initial or initialised(self.run.method, self.experiment)
        self.model = initial.model
        torch.set_rng_state(initial.rng)
        if self.experiment.optim.ema_decay is not None:
            self.ema = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}

    def _restore(self, start: Path) -> dict[str, Any]:
        """Build the model with the weights of a checkpoint; returns the rest of its state."""
        self.model = build_model(self.run.method, self.experiment)
        weights = checkpoint.read_weights(start)
        state = checkpoint.read_train_state(start, torch.device("cpu"))
        if state["ema"]:
            self.ema = {n: weights[n] for n in state["raw"]}
            weights |= state["raw"]
        self.model.load_state_dict(weights, strict=True)
        return state

    def _restore_progress(self, state: dict[str, Any], file: Path) -> None:
        optimizer_state.restore(self.optimizer, self.model, state["optimizer"], self._own, file)
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if self.worker.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.worker.device)
        self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint of this step, on rank 0; where the model is sharded, every rank has to take part."""
        self.saving()()

    def saving(self, *, copied: bool = False) -> Callable[[], None]:
        """What writes the checkpoint of this step: at once, or `copied` to host memory also while training goes on."""
        weights, ema = self._whole(self.model.state_dict()), self._whole(self.ema)
        optimizer = self._whole(optimizer_state.by_name(self.optimizer, self.model))
        if self.worker.rank != 0:
            return lambda: None
        if copied:
            frozen = checkpoint.frozen_names(self.model)  # these do not change
            weights = {n: w if n in frozen else _copy(w) for n, w in weights.items()}
            optimizer, ema = _copy(optimizer), _copy(ema)
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
        target, run, keep = checkpoint.folder(self.run.folder, self.step), self.run, self.experiment.every.keep

        def write() -> None:
            if not checkpoint.is_complete(target):
                with checkpoint.needs_space(target, run.folder):
                    checkpoint.save(target, self.model, weights, state, run.info, keep)

        return write

    def optimise(self, micro_batches: Iterator[Any], forward: nn.Module, passes: int, total: int) -> dict[str, Tensor]:
        """One optimiser step over `passes` micro batches; returns this worker's losses and the gradient's norm."""
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
            raise UserError(
                f"step {self.step}: loss or gradient is not finite (loss {float(sums['loss'])}); lower --optim.lr, set "
                "--optim.clip-norm, or look for broken input with `crossview view`"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.scaler.is_enabled() or torch.isfinite(norm):  # else the scaler left the step out
            self._average(optim.ema_decay)
        self.step += 1
        return sums | {"grad_norm": norm.detach()}

    @torch.no_grad()
    def _average(self, decay: float | None) -> None:
        if self.ema is None or decay is None:
            return
        for name, parameter in self.model.named_parameters():
            if name in self.ema:
                self.ema[name].lerp_(parameter, 1 - decay)


def _copy(state: Any) -> Any:
    """A nested state whose tensors are copies in host memory."""
    if isinstance(state, dict):
        return {k: _copy(v) for k, v in state.items()}
    if isinstance(state, list):
        return [_copy(v) for v in state]
    return state.detach().to("cpu", copy=True) if isinstance(state, Tensor) else state
