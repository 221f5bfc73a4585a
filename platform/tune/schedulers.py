"""Ray Tune's part: which trials run, and which of them are stopped; fed from the journal after an interruption."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from crossview.platform.tune.samplers import Chooser
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial import comparable
from crossview.platform.tune.trial_store import Ended, Journal, Trial

HOPELESS = 3
"""Trials that fail before any other has a score, after which the search ends: the cause is not their options."""


def scheduler(search: Search, journal: Journal) -> TrialScheduler:
    """The scheduler of the search, which knows every score reported so far."""
    return Halving(search, journal) if search.scheduler == "asha" else FIFOScheduler()


class Halving(AsyncHyperBandScheduler):
    """ASHA, given what the journal holds: of finished trials at once, of an interrupted one when it resumes."""

    def __init__(self, search: Search, journal: Journal) -> None:
        super().__init__(
            time_attr="evaluation",
            metric="objective",
            mode=search.mode,
            max_t=search.evaluations,
            grace_period=1,
            reduction_factor=search.reduction,
        )
        self.sign, self.journal = search.sign, journal
        for number in (trial.number for trial in journal.trials() if trial.status is not None):
            ended: Any = SimpleNamespace(trial_id=f"ended-{number}", config={"trial": {"number": number}})
            self.on_trial_add(None, ended)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial starts, or resumes after its last report; its reports enter the rungs under its present id."""
        super().on_trial_add(tune_controller, trial)
        for report in self.journal.trial(trial.config["trial"]["number"]).reports:
            values = {"objective": comparable(report.objective, self.sign), "evaluation": report.evaluation}
            super().on_trial_result(tune_controller, trial, values)


class Proposer(Searcher):
    """Interrupted trials first, then the preset and new points; each is in the journal before it starts."""

    def __init__(self, search: Search, journal: Journal, chooser: Chooser) -> None:
        super().__init__()
        self.search, self.journal, self.chooser = search, journal, chooser
        begun = journal.trials()
        self.waiting = [trial.number for trial in begun if trial.status is None]
        self.next = search.first + len(begun)
        self.numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """What `trial.TrialActor` takes."""
        if self.waiting:
            number = self.waiting.pop(0)
        elif self.next < self.search.trials and (options := self._options(self.next)) is not None:
            number, self.next = self.next, self.next + 1
            self.journal.begin(number, dict(options))
        else:
            return Searcher.FINISHED
        self.numbers[trial_id] = number
        return {"trial": config(self.search, self.journal, number)}

    def _options(self, number: int) -> Any:
        return {} if number == 0 else self.chooser.choose(number)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report the trial to the chooser."""
        del result, error
        self.chooser.tell(self.journal.trial(self.numbers.pop(trial_id)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal holds all of it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal holds all of it."""


def config(search: Search, journal: Journal, number: int, until: int | None = None) -> dict[str, Any]:
    """What `trial.TrialActor` takes to run a trial up to an evaluation, by default the last."""
    return {"folder": str(journal.folder), "number": number, "until": until or search.evaluations}


class Watcher(Callback):
    """Records how trials end, counts them, and reports progress."""

    def __init__(self, search: Search, journal: Journal, tell: Callable[[Watcher], None]) -> None:
        self.search, self.journal, self.tell = search, journal, tell
        begun = journal.trials()
        self.ended = sum(trial.status is not None for trial in begun)
        self.evaluations = sum(len(trial.reports) for trial in begun)
        self.best: tuple[float, int] | None = None
        """(objective, trial) of the best last report; None while no report has a finite one."""
        self.failures: list[str] = []
        """Why trials have failed since this process resumed the search."""
        self.unwritable = ""
        """The storage's error, if it fails; trials then stay unfinished."""
        for trial in begun:
            self._compare(trial)

    def _compare(self, trial: Trial) -> None:
        value, sign = trial.objective, self.search.sign
        if math.isfinite(value) and (self.best is None or value * sign > self.best[0] * sign):
            self.best = value, trial.number

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """One evaluation more."""
        del iteration, trials, info
        if "objective" not in result:  # it has failed
            return
        self.evaluations += 1
        self._compare(self.journal.trial(trial.config["trial"]["number"]))
        self.tell(self)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """At its end, or stopped by the scheduler."""
        del iteration, trials, info
        number = trial.config["trial"]["number"]
        known = self.journal.trial(number)
        done = bool(known.reports) and known.reports[-1].evaluation >= self.search.evaluations
        if done or known.status == "failed" or self.search.scheduler != "pbt":  # a population pauses after each round
            self._end(number, "finished" if done else "stopped", "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its process died more often than is allowed, or the storage fails."""
        del iteration, trials, info
        error = trial.get_error()
        cause = getattr(error, "cause", error)
        text = str(cause or "its process died").strip().splitlines()[-1]
        if isinstance(cause, OSError) and not isinstance(cause, ChildProcessError):
            self.unwritable = text
        else:
            self._end(trial.config["trial"]["number"], "failed", text)

    def _end(self, number: int, status: Ended, reason: str) -> None:
        self.journal.end(number, status, reason)
        known = self.journal.trial(number)
        if known.status == "failed":
            self.failures.append(known.reason)
        self.ended += 1
        self.tell(self)

    @property
    def hopeless(self) -> bool:
        """Whether so many have failed, and none has a score, that the others will fail too."""
        return self.evaluations == 0 and len(self.failures) >= min(HOPELESS, self.search.count)


class Hopeless(Stopper):
    """Ends a search whose trials all fail, or whose storage does."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is ended here."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Asked in every round."""
        return self.watcher.hopeless or bool(self.watcher.unwritable)
