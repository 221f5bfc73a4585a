"""A search with everything settled: what the command line says, completed by the space, kept as `search.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossview import storage
from crossview.errors import UserError
from crossview.platform import run_folder
from crossview.platform.config import Experiment, from_dict, to_dict

FILE = "search.json"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, and how."""

    method: str
    experiment: Experiment[Any]
    """The preset, which every trial changes."""
    space: str
    """Name or file."""
    domains: dict[str, str]
    """The space as text."""
    metric: str
    mode: Literal["max", "min"]
    tasks: tuple[str, ...]
    options: dict[str, dict[str, Any]]
    """Of the tasks, by name."""
    split: str
    fit_split: str
    search: Literal["random", "optuna", "grid"]
    scheduler: Literal["asha", "pbt", "none"]
    reduction: int
    trials: int
    """Numbers end below this; trial 0 is the preset."""
    evaluations: int
    seeds: int
    jobs: int | None
    device: Literal["cuda", "cpu"]
    """What trials train and are scored on: the driver sees the whole cluster, a trial's process its node alone."""
    confirm: int
    test: bool

    @property
    def first(self) -> int:
        """The first trial: population-based training changes every member, so the unchanged preset is none."""
        return 1 if self.scheduler == "pbt" else 0

    @property
    def count(self) -> int:
        """How many trials there are."""
        return self.trials - self.first

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.mode == "max" else -1

    @property
    def threads(self) -> int:
        """Torch threads of each process that trains; a trial of one process claims as many CPUs."""
        return self.experiment.compute.threads or 1


def write(folder: Path, search: Search) -> None:
    """Make the search's folder; raises ValueError if the name is taken."""
    try:
        storage.make_folder(folder, exist_ok=False)
    except FileExistsError:
        raise UserError(
            f"--name {folder.name}: {folder} exists already; a name is used once. Choose another, or resume that "
            f"search: crossview tune --resume {folder}"
        ) from None
    values = {k: v for k, v in vars(search).items() if k not in ("method", "experiment")}
    experiment = to_dict(search.method, search.experiment)
    run_folder.write_json(folder / FILE, {"search": values, "experiment": experiment, **run_folder.record()})


def read(folder: Path) -> Search:
    """The search of a folder; raises ValueError if there is none."""
    file = folder / FILE
    if not storage.is_file(file):
        raise UserError(f"{folder}: not a search ({FILE} is missing); pass one that `crossview tune` made")
    values = storage.read_json(file, "restore it from a copy, or start a new search")
    try:
        method, experiment = from_dict(values["experiment"])
        found = {"options": {}, **values["search"]}
        return Search(method=method, experiment=experiment, **found | {"tasks": tuple(found["tasks"])})
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{file}: not a search ({error}); restore it from a copy, or start a new search") from error
