"""What is worth searching for anticipation with TempAgg; the keys are the command line's own paths.

Without an encoder `encoder_lr` changes nothing.
"""

from __future__ import annotations

from ray import tune

SPACE = {
    "optim.lr": tune.loguniform(1e-5, 1e-3),
    "method.network.dropout": tune.uniform(0.1, 0.6),
    "method.network.past_attention": tune.choice([True, False]),
    "method.encoder_lr": tune.loguniform(0.01, 1.0),
}
METRIC, MODE = "anticipation/overall/action/all", "max"
TASKS = ("anticipation",)
SCHEDULER, REDUCTION = "asha", 2
