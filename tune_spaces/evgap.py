"""What is worth searching for EVGAP, in either step; the keys are the command line's own paths.

Scale and bias are where the learned ones start; step 1 ("pairs") has no bias, and there that value changes nothing.
"""

from __future__ import annotations

from ray import tune

SPACE = {
    "method.scale_init": tune.loguniform(2.0, 60.0),
    "method.bias_init": tune.uniform(-20.0, 0.0),
    "method.logits_lr": tune.loguniform(1.0, 30.0),
    "method.auxiliary": tune.loguniform(0.02, 2.0),
    "optim.lr": tune.loguniform(1e-4, 1e-2),
}
METRIC, MODE = "retrieval/R@1/seen", "max"
TASKS = ("retrieval",)
SCHEDULER, REDUCTION = "asha", 2
