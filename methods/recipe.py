"""A recipe: a method's configuration and how it is optimised. No torch: `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

from crossview.datasets.sampling.spec import Sampling
from crossview.errors import UserError


class MethodConfig(Protocol):
    """A frozen dataclass named `Config` in `methods/<name>/config.py`."""

    def sampling(self) -> Sampling:
        """The batch that the method trains on."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Base of the factors of a method's losses, all of them numbers; raises ValueError below 0 and where all are 0."""

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if value < 0:
                raise UserError(f"weights.{name} is {value}; it must be 0 or more")
        if not any(values.values()):
            raise UserError(f"weights: {', '.join(values)} are all 0; at least one must be above 0")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How the loss is minimised."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """adam and sgd couple weight decay with the gradient (L2); adamw does not."""
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    """Of adam and adamw."""
    momentum: float = 0.9
    """Of sgd, which is Nesterov's."""
    schedule: Literal["constant", "cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = ()
    """Of "steps": shares of the run after which the rate is multiplied by `gamma`."""
    gamma: float = 0.1
    warmup_steps: int = 0
    warmup_share: float | None = None
    """The warm-up as a share of the run, in place of `warmup_steps`."""
    warmup_lr: float | None = None
    """Rate at step 0, from which the warm-up rises to `lr`; None takes the first of `warmup_steps` equal steps."""
    min_lr: float = 0.0
    """Where the cosine ends."""
    cosine_over: Literal["rest", "run"] = "rest"
    """rest starts the cosine after the warm-up; run lets it span the whole run, and the warm-up rises to its value
    there, as in PySlowFast."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights and evaluate that."""
    batch: int = 8
    """Samples per optimiser step, over all workers and accumulation steps."""
    epochs: int | None = None
    """Passes over the plan; give this or `steps`."""
    steps: int | None = None
    """Optimiser steps."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise UserError(
                f"optim: epochs is {self.epochs} and steps is {self.steps}; give exactly one of them, and None for the "
                "other"
            )
        for name in ("lr", "batch", "epochs", "steps", "clip_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"optim.{name} is {value}; it must be above 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(f"optim.ema_decay is {self.ema_decay}; it must be between 0 and 1")
        if self.warmup_steps < 0:
            raise UserError(f"optim.warmup_steps is {self.warmup_steps}; it must be 0 or more")
        if self.warmup_share is not None and (self.warmup_steps or not 0 <= self.warmup_share < 1):
            raise UserError(
                f"optim.warmup_share is {self.warmup_share} and warmup_steps {self.warmup_steps}; a share is in "
                "[0, 1) and replaces steps: set one of them"
            )
        if self.warmup_lr is not None and not 0 <= self.warmup_lr <= self.lr:
            raise UserError(f"optim.warmup_lr is {self.warmup_lr}; it must be between 0 and optim.lr {self.lr}")
        if not 0 <= self.momentum < 1:
            raise UserError(f"optim.momentum is {self.momentum}; it must be in [0, 1)")
        if (self.schedule == "steps") != bool(self.milestones) or any(not 0 < m < 1 for m in self.milestones):
            raise UserError(
                f"optim.milestones is {self.milestones} with schedule {self.schedule!r}; 'steps' takes shares of the "
                "run, each between 0 and 1, and the other schedules take none"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a preset returns: `presets()` in `methods/<name>/config.py` maps a name to a function that returns one."""

    method: Any
    """A `MethodConfig`, or a downstream trainer's `TrainerConfig`."""
    optim: Optim = field(default_factory=lambda: Optim(steps=100))


def values_of(options: Any) -> str:
    """The fields of a dataclass as errors show them: "width 64, heads 4"."""
    return ", ".join(f"{name} {value}" for name, value in vars(options).items())
