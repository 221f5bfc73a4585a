"""Learning rate and length of a run; pure functions of its options."""

from __future__ import annotations

import math

from crossview.errors import UserError
from crossview.methods.recipe import Optim


def total_steps(optim: Optim, rows_per_epoch: int) -> int:
    """Optimiser steps of the whole run; raises ValueError where an epoch is shorter than one batch and gives none."""
    if optim.steps is not None:
        return optim.steps
    steps = (optim.epochs or 0) * rows_per_epoch // optim.batch
    if steps == 0:
        raise UserError(
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
