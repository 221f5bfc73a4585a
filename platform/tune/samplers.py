"""How the options of the next trial are chosen; every chooser can be rebuilt from a journal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import optuna
from ray.tune.search.optuna import OptunaSearch

from crossview.errors import UserError
from crossview.platform.tune.overrides import Options, paths_of, with_options
from crossview.platform.tune.space import TRIES, Space
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial_store import Trial


class Chooser(ABC):
    """Proposes points of the space that the method's configuration accepts."""

    def __init__(self, search: Search, space: Space) -> None:
        self.search, self.space = search, space

    @abstractmethod
    def choose(self, number: int) -> Options | None:
        """Options of a new trial; None if no valid ones are found."""

    def tell(self, trial: Trial) -> None:  # noqa: B027 - most do not learn
        """A trial has ended."""

    def valid(self, options: Options) -> bool:
        """Whether the method's configuration accepts them."""
        try:
            with_options(self.search.method, self.search.experiment, options)
        except UserError:
            return False
        return True


class Random(Chooser):
    """Samples that depend on the experiment's seed and the trial's number alone."""

    def choose(self, number: int) -> Options | None:
        """The first valid one of a sequence of samples."""
        samples = (self.space.sample((self.search.experiment.seed, number, attempt)) for attempt in range(TRIES))
        return next((options for options in samples if self.valid(options)), None)


class Grid(Chooser):
    """All combinations that are valid, in their order."""

    def __init__(self, search: Search, space: Space) -> None:
        super().__init__(search, space)
        self.points = [point for point in space.points() if self.valid(point)]

    def choose(self, number: int) -> Options | None:
        """The point of this place; trial 0 is the preset."""
        return self.points[number - 1] if number <= len(self.points) else None


class Optuna(Chooser):
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) from Optuna, given all trials started so far."""

    def __init__(self, search: Search, space: Space, begun: list[Trial]) -> None:
        super().__init__(search, space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Another seed after an interruption: the same one would propose the same points again.
        sampler = optuna.samplers.TPESampler(seed=search.experiment.seed + len(begun), constant_liar=True)
        self.study = optuna.create_study(direction="maximize" if search.mode == "max" else "minimize", sampler=sampler)
        self.distributions = OptunaSearch.convert_search_space(dict(space.domains))
        self.asked: dict[int, Any] = {}
        for trial in begun:
            if trial.status is not None:
                self.tell(trial)
            elif trial.options:
                self._add(trial.options, optuna.trial.TrialState.RUNNING, None)
                self.asked[trial.number] = len(self.study.trials) - 1

    def choose(self, number: int) -> Options | None:
        """The estimator's proposal; an invalid point is reported to it as a failure."""
        for _ in range(TRIES):
            asked = self.study.ask(self.distributions)
            if self.valid(asked.params):
                self.asked[number] = asked
                return asked.params
            self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
        return None

    def tell(self, trial: Trial) -> None:
        """The value of a trial that was asked for, or was run before an interruption."""
        asked = self.asked.pop(trial.number, None)
        ok = np.isfinite(trial.objective)
        state = optuna.trial.TrialState.COMPLETE if ok else optuna.trial.TrialState.FAIL
        value = trial.objective if ok else None
        if asked is not None:
            self.study.tell(asked, value, state=state)
        elif ok and (params := self._params(trial)) is not None:
            self._add(params, state, value)

    def _add(self, params: Options, state: Any, value: float | None) -> None:
        self.study.add_trial(
            optuna.trial.create_trial(params=dict(params), distributions=self.distributions, value=value, state=state)
        )

    def _params(self, trial: Trial) -> dict[str, Any] | None:
        """The trial's place in the space; of the preset, its own values, where they are in it."""
        if trial.options:
            return trial.options
        values = {path: _value(self.search.experiment, paths_of(path)[0]) for path in self.distributions}
        return values if all(_inside(self.distributions[path], value) for path, value in values.items()) else None


def _inside(distribution: Any, value: Any) -> bool:
    if value is None:
        return False
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:  # no choice of the list
        return False


def _value(experiment: Any, path: str) -> Any:
    for part in path.split("."):
        experiment = getattr(experiment, part)
    return experiment


def chooser(search: Search, space: Space, begun: list[Trial]) -> Chooser:
    """The one that the search asks for."""
    if search.search == "optuna":
        return Optuna(search, space, begun)
    return Grid(search, space) if search.search == "grid" else Random(search, space)
