"""What is worth searching for fine-tuning; the keys are the command line's own paths."""

from __future__ import annotations

from ray import tune

SPACE = {
    "optim.lr": tune.loguniform(1e-4, 5e-3),
    "optim.weight_decay": tune.loguniform(5e-3, 0.2),
    "method.layer_decay": tune.uniform(0.6, 1.0),
    "method.dropout": tune.choice([0.0, 0.25, 0.5]),
    "method.augmentation.magnitude": tune.uniform(3.0, 10.0),
}
METRIC, MODE = "recognition/top1", "max"
TASKS = ("recognition",)
SCHEDULER, REDUCTION = "asha", 2
