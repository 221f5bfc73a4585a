"""What a published table fixes: a method's configuration and how it is optimised. No torch: `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from crossview.datasets.sampling import Sampling


class MethodConfig(Protocol):
    """A frozen dataclass named `Config` in `methods/<name>/config.py`."""

    def sampling(self) -> Sampling:
        """The batch that the method trains on."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How the loss is minimised."""

    optimizer: Literal["adam", "adamw"] = "adamw"
    """adam couples weight decay with the gradient (L2); adamw does not."""
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = 0
    min_lr: float = 0.0
    """Where the cosine ends."""
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
            raise ValueError(f"optim: epochs is {self.epochs} and steps is {self.steps}; give exactly one of them")
        for name in ("lr", "batch", "epochs", "steps", "clip_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"optim.{name} is {value}; it must be above 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"optim.ema_decay is {self.ema_decay}; it must lie between 0 and 1")
        if self.warmup_steps < 0:
            raise ValueError(f"optim.warmup_steps is {self.warmup_steps}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a preset returns: `presets()` in `methods/<name>/config.py` maps a name to a function that returns one."""

    method: MethodConfig
    optim: Optim = field(default_factory=lambda: Optim(steps=100))
