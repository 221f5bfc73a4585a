"""What is worth searching for BYOV; the keys are the command line's own paths."""

from __future__ import annotations

from ray import tune

SPACE = {
    "method.stm_ratio": tune.uniform(0.1, 1.0),
    "method.msm_ratio": tune.uniform(0.2, 0.8),
    "method.mcm_ratio": tune.uniform(0.4, 0.9),
    "optim.lr": tune.loguniform(1e-6, 1e-2),
    "optim.weight_decay": tune.loguniform(1e-6, 1e-1),
}
METRIC, MODE = "phase_f1/ego2exo", "max"
