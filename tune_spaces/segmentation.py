"""What is worth searching for a segmentation model; the keys are the command line's own paths."""

from __future__ import annotations

from ray import tune

SPACE = {
    "optim.lr": tune.loguniform(3e-5, 3e-3),
    "optim.weight_decay": tune.loguniform(1e-5, 1e-2),
    "optim.batch": tune.choice([4, 8, 16]),
    "method.chunk": tune.choice([10, 20, 30]),
}
METRIC, MODE = "segmentation/mean", "max"
TASKS = ("segmentation",)
SCHEDULER, REDUCTION = "asha", 2
