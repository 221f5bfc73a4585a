"""What is worth searching for BYOV; the keys are the command line's own paths."""

from __future__ import annotations

from ray import tune

SPACE = {
    "method.msm_ratio": tune.uniform(0.2, 0.8),
    "method.mcm_ratio": tune.uniform(0.4, 0.9),
    "method.stm_ratio": tune.uniform(0.1, 1.0),
    "method.weights.mcm_ego,method.weights.mcm_exo": tune.loguniform(0.1, 10.0),  # MSM's are 1
    "optim.lr": tune.loguniform(1e-4, 1e-2),
    "optim.weight_decay": tune.loguniform(1e-3, 0.3),
}
METRIC, MODE = "phase_f1/ego2exo", "max"
TASKS = ("phases",)
SCHEDULER, REDUCTION = "asha", 2
