"""What a search varies: a file of `tune_spaces/`, or one of the user's, checked before anything runs."""

from __future__ import annotations

import importlib.util
import itertools
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ray.tune.search.sample import Categorical, Domain

from crossview.errors import UserError
from crossview.platform.config import Experiment
from crossview.platform.evaluate.tasks import task_names
from crossview.platform.tune.overrides import Options, paths_of, plain, with_options

TRIES = 100
"""Samples drawn in place of one that the method's configuration refuses."""


@dataclass(frozen=True)
class Space:
    """Domains by option path, and what the file says of the search over them."""

    name: str
    domains: dict[str, Domain]
    grid: bool
    """Whether the file lists every value (`grid_search`), so that all combinations are run."""
    metric: str | None
    """None leaves it to the method's own file."""
    mode: str
    tasks: tuple[str, ...]
    scheduler: str
    reduction: int
    """Of ASHA: one in so many trials is promoted from rung to rung."""

    def sample(self, seed: tuple[int, ...]) -> Options:
        """One random point; a pure function of the seed."""
        state = np.random.RandomState(np.random.SeedSequence(seed).generate_state(4))
        return {path: plain(domain.sample(random_state=state)) for path, domain in self.domains.items()}

    def points(self) -> Iterator[Options]:
        """Every combination of the listed values; raises ValueError if a domain is a range."""
        values = []
        for path, domain in self.domains.items():
            if not isinstance(domain, Categorical):
                raise UserError(
                    f"space {self.name}: {path} is {describe(domain)}, which has no list of values; a grid takes "
                    "tune.choice or tune.grid_search: change it, or leave out --search grid"
                )
            values.append([plain(value) for value in domain.categories])
        for point in itertools.product(*values):
            yield dict(zip(self.domains, point, strict=True))

    def paths(self) -> list[str]:
        """Every option that varies."""
        return [path for key in self.domains for path in paths_of(key)]

    def describe(self) -> dict[str, str]:
        """The domains as text, to be stored and compared."""
        return {path: describe(domain) for path, domain in self.domains.items()}


def names() -> list[str]:
    """The files of `tune_spaces/`."""
    import crossview.tune_spaces

    return sorted(m.name for m in pkgutil.iter_modules(crossview.tune_spaces.__path__))


def load(space: str, method: str) -> Space:
    """The space of a name in `tune_spaces/` or of a Python file; raises ValueError saying what it lacks.

    What a space of no single method leaves out (metric, mode, tasks) is the method's own.
    """
    module = _module(space)
    raw = getattr(module, "SPACE", None)
    if not isinstance(raw, dict) or not raw or not all(isinstance(path, str) for path in raw):
        raise UserError(f"space {space}: it must define SPACE, a dict of option path, a text, to a domain of ray.tune")
    domains = {path: _domain(space, path, value) for path, value in raw.items()}
    own = module if hasattr(module, "METRIC") else _module(method)
    for name in ("METRIC", "MODE", "TASKS"):
        if not hasattr(own, name):
            raise UserError(f"space {own.__name__.rpartition('.')[2]}: it must define {name} beside SPACE")
    if own.MODE not in ("max", "min"):
        raise UserError(f"space {space}: MODE is {own.MODE!r}; it must be 'max' or 'min'")
    if not isinstance(own.TASKS, tuple | list):
        raise UserError(f"space {space}: TASKS is {own.TASKS!r}; it must be a tuple of names of tasks")
    unknown = [task for task in own.TASKS if task not in task_names()]
    if unknown:
        raise UserError(f"space {space}: TASKS names {unknown[0]!r}; choose from {', '.join(task_names())}")
    chosen, reduction = getattr(module, "SCHEDULER", "asha"), getattr(module, "REDUCTION", 2)
    if chosen not in ("asha", "pbt", "none"):
        raise UserError(f"space {space}: SCHEDULER is {chosen!r}; choose from 'asha', 'pbt', 'none'")
    if not isinstance(reduction, int) or reduction < 2:
        raise UserError(f"space {space}: REDUCTION is {reduction!r}; one trial in so many is promoted: 2 or more")
    return Space(
        name=space if space in names() else str(Path(space).resolve()),
        domains=domains,
        grid=all(isinstance(value, dict) for value in raw.values()),
        metric=own.METRIC,
        mode=own.MODE,
        tasks=tuple(own.TASKS),
        scheduler=chosen,
        reduction=reduction,
    )


def _module(space: str) -> ModuleType:
    if space in names():
        return importlib.import_module(f"crossview.tune_spaces.{space}")
    file = Path(space)
    if file.suffix != ".py" or not file.is_file():
        raise UserError(
            f"--space {space}: neither a name in tune_spaces/ ({', '.join(names())}) nor a Python file; a file defines "
            "SPACE, METRIC, MODE and TASKS, as those do"
        )
    spec = importlib.util.spec_from_file_location(f"crossview_space_{file.stem}", file.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"--space {space}: the file cannot be run ({type(error).__name__}: {error})") from error
    return module


def _domain(space: str, path: str, value: Any) -> Domain:
    if isinstance(value, Domain):
        if isinstance(value, Categorical):
            fine = bool(value.categories)
        else:
            fine = getattr(value, "lower", 0) <= getattr(value, "upper", 0)
        if not fine:
            raise UserError(
                f"space {space}: {path} is {describe(value)}, which holds no value; give a choice or a range"
            )
        return value
    if isinstance(value, dict) and set(value) == {"grid_search"} and value["grid_search"]:
        return Categorical(list(value["grid_search"])).uniform()
    raise UserError(
        f"space {space}: {path} is {value!r}; it must be a domain of ray.tune, such as tune.uniform(0.2, 0.8), "
        "tune.loguniform, tune.choice or tune.grid_search"
    )


def describe(domain: Domain) -> str:
    """E.g. "loguniform(0.0001, 0.01)"."""
    if isinstance(domain, Categorical):
        return f"choice({', '.join(repr(value) for value in domain.categories)})"
    kind = type(domain.get_sampler()).__name__.lstrip("_").lower()
    return f"{kind}({getattr(domain, 'lower', '')}, {getattr(domain, 'upper', '')})"


def check(space: Space, method: str, experiment: Experiment[Any], seed: int) -> None:
    """Refuse a space with an unknown path, and one of whose samples the method's configuration takes none."""
    found: list[str] = []
    for attempt in range(TRIES):
        options = next(space.points()) if space.grid and attempt == 0 else space.sample((seed, attempt))
        try:
            with_options(method, experiment, options)
            return
        except UserError as error:
            if "option path" in str(error):
                raise UserError(f"space {space.name}: {error}") from error
            found.append(str(error))
    raise UserError(
        f"space {space.name}: all of {TRIES} samples are invalid for {method}, the last one with: {found[-1]}; "
        "change the domains or the options that they go with"
    )
