"""The result of a search: its trials as a table, best first, and the winner as a configuration."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa

from crossview.platform.config import to_dict
from crossview.platform.run_folder import write_json
from crossview.platform.tune.overrides import with_options
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial import best_row
from crossview.platform.tune.trial_store import Trial


def ranked(search: Search, trials: list[Trial]) -> list[Trial]:
    """Trained in full before stopped ones, each by the last score; without a score last."""

    def place(trial: Trial) -> tuple[int, float]:
        value = search.sign * trial.objective
        return (len(trial.reports), value) if math.isfinite(value) else (-1, 0.0)

    return sorted(trials, key=place, reverse=True)


def best_baseline(search: Search, trial: Trial) -> tuple[str, float] | None:
    """A trial's best baseline by the objective; None if no baseline has that metric."""
    if not trial.reports:
        return None
    return best_row(trial.reports[-1].baselines, search.metric, search.sign)


def table(search: Search, trials: list[Trial]) -> pa.Table:
    """A line per trial, best first: how it ended, its scores, losses and seconds, and its options as columns."""
    lines = []
    for trial in ranked(search, trials):
        last = trial.reports[-1] if trial.reports else None
        baseline = best_baseline(search, trial)
        lines.append(
            {
                "trial": trial.number,
                "status": trial.status or "running",
                "evaluations": len(trial.reports),
                "step": last.step if last else 0,
                search.metric: trial.objective,
                "best baseline": baseline[0] if baseline else None,
                "baseline": baseline[1] if baseline else None,
                "seconds": last.seconds if last else 0.0,
                "reason": trial.reason,
                **{path: _column(trial.options.get(path)) for path in search.domains},
                **{f"loss/{name}": value for name, value in (last.losses if last else {}).items()},
                **{name: v for name, v in (last.metrics if last else {}).items() if name != search.metric},
            }
        )
    columns = list(dict.fromkeys(name for line in lines for name in line))
    return pa.Table.from_pylist([{name: line.get(name) for name in columns} for line in lines])


def _column(value: object) -> object:
    """A table's column has one type: what is no number becomes text."""
    return value if value is None or (isinstance(value, int | float) and not isinstance(value, bool)) else str(value)


def write_best(search: Search, best: Trial, file: Path) -> Path:
    """The winner's configuration, for `crossview train METHOD --from`."""
    write_json(file, to_dict(search.method, with_options(search.method, search.experiment, best.options)))
    return file
