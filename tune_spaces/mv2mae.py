"""What is worth searching for MV2MAE's pre-training; the keys are the command line's own paths."""

from __future__ import annotations

from ray import tune

SPACE = {
    "method.masking.ratio": tune.uniform(0.4, 0.9),
    "method.motion.temperature": tune.loguniform(5.0, 200.0),
    "method.weights.cross": tune.loguniform(0.1, 10.0),  # the two same-view losses have weight 1
    "optim.lr": tune.loguniform(3e-4, 1e-2),
    "optim.weight_decay": tune.loguniform(1e-2, 0.3),
}
METRIC, MODE = "action_probe/linear/seen", "max"
TASKS = ("action_probe",)
SCHEDULER, REDUCTION = "asha", 2
