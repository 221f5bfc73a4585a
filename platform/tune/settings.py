"""What a search does, as typed on the command line. No torch, no ray: `--help` reads it."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Literal

from crossview.errors import UserError
from crossview.platform.evaluate.tasks import option_fields


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How trials are chosen, scheduled and scored."""

    trials: int = 16
    """Trials besides the unchanged preset, which is trial 0. A grid has one per point."""
    space: str | None = None
    """What varies: a name in tune_spaces/ (by default the method's own) or a Python file that defines SPACE."""
    search: Literal["random", "optuna", "grid"] = "random"
    """How values are chosen; a space that lists all its values is always a grid."""
    scheduler: Literal["asha", "pbt", "none"] | None = None
    """asha stops the worse trials early; pbt copies the better ones and changes their values while they train; None
    uses the space's own."""
    metric: str | None = None
    """Downstream metric to optimise, on `split`; None uses the space's own."""
    mode: Literal["max", "min"] | None = None
    tasks: tuple[str, ...] | None = None
    """Downstream tasks that score every trial; None uses the space's own."""
    split: str = "val"
    """Split that trials are scored on. Never test: use `--test` for that, once, at the end."""
    fit_split: str = "train"
    evaluations: int = 4
    """Number of evaluations of a trial, evenly spaced over its steps; the scheduler decides after each."""
    seeds: int = 1
    """Runs of each trial, with consecutive seeds from the experiment's own; the objective is their mean."""
    jobs: int | None = None
    """Trials that run at a time; None runs as many as fit on the cluster."""
    confirm: int = 5
    """Fresh seeds to train the preset and the winner with again, in full, and to compare them by; 0 skips this."""
    test: bool = False
    """Score those runs on the test split, once, after everything is chosen."""

    def __post_init__(self) -> None:
        for name in ("trials", "evaluations", "seeds"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"--jobs is {self.jobs}; it must be at least 1")
        if self.confirm < 0 or self.confirm == 1:
            raise UserError(f"--confirm is {self.confirm}; a comparison needs at least 2 seeds, and 0 skips it")
        if self.split == "test" or self.fit_split in ("test", self.split):
            raise UserError(
                f"--split is {self.split!r} and --fit-split {self.fit_split!r}; a search is scored on val, fitted on "
                "train, and never sees test: --test scores the winner there once"
            )
        if self.test and not self.confirm:
            raise UserError("--test is on with --confirm 0; it scores the confirmed runs: set --confirm 5")


def with_task_options() -> Settings:
    """The default settings, with a field for the options of every task, such as `phases`."""
    fields = [(name, kind, field) for name, kind, field in option_fields()]
    kind = make_dataclass("Settings", fields, bases=(Settings,), frozen=True, kw_only=True)
    kind.__doc__ = Settings.__doc__
    settings: Settings = kind()
    return settings
