"""What is worth searching for Ego-Exo's pre-training; the keys are the command line's own paths."""

from __future__ import annotations

from ray import tune

SPACE = {
    "method.weights.ego": tune.loguniform(0.01, 1.0),  # the action loss keeps its weight
    "method.weights.object": tune.loguniform(0.05, 5.0),
    "method.weights.hand_map,method.weights.object_map": tune.loguniform(0.1, 10.0),
    "method.ego_temperature": tune.loguniform(0.5, 8.0),
    "method.object_temperature": tune.loguniform(0.5, 4.0),
    "optim.lr": tune.loguniform(1e-2, 1.0),
}
METRIC, MODE = "few_clips/accuracy/ego", "max"
TASKS = ("few_clips",)
SCHEDULER, REDUCTION = "asha", 2
