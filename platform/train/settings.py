"""What scores a run while it trains, as typed on the command line. No torch, no ray: `--help` reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from typing import Any

from crossview.errors import UserError
from crossview.platform.evaluate.tasks import (
    check_names,
    default_tasks,
    given_options,
    option_fields,
    options_from,
)

SCORES = "val/"
"""Begins the names of downstream metrics among a run's metrics, which only some rows have."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Downstream tasks that score a run while it trains, and on which splits."""

    tasks: tuple[str, ...] | None = None
    """Downstream tasks that score the run: each time of `--every.evaluate`, and at its end. Each has options of its own
    below, as for `crossview evaluate`."""
    split: str = "val"
    """Split that the tasks score. Never test: use `crossview evaluate RUN --split test`, once."""
    fit_split: str = "train"
    """Split that the tasks fit classifiers on."""

    def __post_init__(self) -> None:
        if self.tasks is not None:
            check_names(self.tasks)
        if self.split == "test":
            raise UserError(
                "--split is test; a run is never scored on test while it trains: choose val, and score the trained run "
                "once with `crossview evaluate RUN --split test`"
            )

    def saved(self, method: str, every: int | None) -> dict[str, Any] | None:
        """What run.json holds; None if no task scores the run. Tasks that are not named are the default ones."""
        if self.tasks is None and not every:
            return None
        names = default_tasks(method) if self.tasks is None else self.tasks
        options = {name: dataclasses.asdict(of) for name, of in given_options(self).items() if name in names}
        return {"tasks": list(names), "split": self.split, "fit_split": self.fit_split, "options": options}


def with_task_options(saved: Mapping[str, Any] | None = None) -> Validation:
    """The settings of a run, or the default ones, with a field for the options of every task, such as `phases`."""
    kind = make_dataclass("Validation", option_fields(), bases=(Validation,), frozen=True, kw_only=True)
    kind.__doc__ = Validation.__doc__
    values: dict[str, Any] = {}
    if saved is not None:
        values = {"tasks": tuple(saved["tasks"]), "split": saved["split"], "fit_split": saved["fit_split"]}
        values |= {name: options_from(name, of) for name, of in saved["options"].items()}
    settings: Validation = kind(**values)
    return settings
