"""Learning rate against batch size, for any method and scored by that method's own metric: a grid, nothing stopped."""

from __future__ import annotations

from ray import tune

SPACE = {
    "optim.lr": tune.grid_search([3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]),
    "optim.batch": tune.grid_search([4, 8, 16]),
}
SCHEDULER = "none"
