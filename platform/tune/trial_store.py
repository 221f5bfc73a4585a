"""The progress of a search, as small files that are written atomically: all that is needed to resume it.

NAME/search.json                     what is searched, from which experiment
NAME/trials/0007/trial.json          the options of trial 7, written before it starts
NAME/trials/0007/reports.json        its scores, added to after each evaluation
NAME/trials/0007/end.json            how it ended; missing while it runs
NAME/trials/0007/NAME-0007-seed0/    its runs, one per seed
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossview import storage
from crossview.platform.run_folder import write_json

Ended = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one evaluation of a trial found; every number is a mean over the trial's seeds."""

    evaluation: int
    """From 1."""
    step: int
    objective: float
    """The trained row's value of the metric that is searched by."""
    per_seed: list[float]
    metrics: dict[str, float]
    """All downstream metrics of the trained row."""
    baselines: dict[str, dict[str, float]]
    """The same for its baselines, by row; computed at the first evaluation, since they do not train."""
    losses: dict[str, float]
    """Training losses, as last logged."""
    seconds: float
    """Training and evaluation so far, over all resumptions."""
    at: float
    """When it was reported, in seconds since 1970."""
    copied_from: int | None = None
    """Trial whose weights it took over just before, in population-based training."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the space, with its results."""

    number: int
    options: dict[str, Any]
    """Value by option path; empty for the preset, trial 0."""
    copied_from: int | None = None
    """In population-based training, the trial whose weights it last took over."""
    copied_at: int | None = None
    """Evaluation after which it did."""
    reports: list[Report] = field(default_factory=list)
    status: Ended | None = None
    """None while it runs, or was interrupted."""
    reason: str = ""
    """Why it failed."""

    @property
    def objective(self) -> float:
        """The last reported one; NaN before the first."""
        return self.reports[-1].objective if self.reports else float("nan")


class Journal:
    """The trials of one search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, number: int) -> Path:
        """Folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def run(self, number: int, seed: int) -> Path:
        """Run folder of a trial and seed; its name is unique over searches of different names."""
        return self.of(number) / f"{self.folder.name}-{number:04d}-seed{seed}"

    def trials(self) -> list[Trial]:
        """All that were started, by number."""
        return [self.trial(int(file.parent.name)) for file in sorted((self.folder / "trials").glob("*/trial.json"))]

    def trial(self, number: int) -> Trial:
        """One that was started."""
        folder = self.of(number)
        reports = [Report(**values) for values in _read(folder / "reports.json", [])]
        begun, end = _read(folder / "trial.json", {}), _read(folder / "end.json", {})
        return Trial(number=number, reports=reports, **begun, **end)

    def begin(
        self, number: int, options: dict[str, Any], copied_from: int | None = None, copied_at: int | None = None
    ) -> None:
        """Before a trial starts, and once it has taken over another's weights."""
        storage.make_folder(self.of(number))
        values = {"options": options, "copied_from": copied_from, "copied_at": copied_at}
        write_json(self.of(number) / "trial.json", values)

    def report(self, number: int, report: Report) -> None:
        """Add one."""
        file = self.of(number) / "reports.json"
        write_json(file, [*_read(file, []), asdict(report)])

    def end(self, number: int, status: Ended, reason: str = "") -> None:
        """The first end is final."""
        if not (self.of(number) / "end.json").exists():
            write_json(self.of(number) / "end.json", {"status": status, "reason": reason})


def _read(file: Path, missing: Any) -> Any:
    try:
        return storage.read_json(file, f"delete {file.parent}: the trial then starts anew", type(missing))
    except FileNotFoundError:
        return missing
