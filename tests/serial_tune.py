"""Ray Tune's part of a search without Ray: its trials take turns in this process, each evaluation a turn.

What trains, scores, proposes, stops and writes the journal is the platform's own; only processes are missing, so that
a search takes seconds and can be interrupted at a chosen place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from crossview.platform.tune import runner
from crossview.platform.tune.capacity import Room, plan
from crossview.platform.tune.schedulers import Watcher
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial import TrialActor


@dataclass
class Turns:
    """Runs trials in turns, and counts the evaluations of all searches."""

    before: Callable[[int], None] = lambda evaluation: None
    """Called before each evaluation with how many were begun; what it raises interrupts the search there."""
    evaluations: int = 0

    def fit(
        self,
        search: Search,
        room: Room,
        own: Path,
        watcher: Watcher,
        param_space: dict[str, Any],
        proposer: Searcher | None,
        decides: TrialScheduler | None,
    ) -> None:
        """Stands in for `runner._fit`."""
        waiting = self._proposed(param_space, proposer)
        decides = decides or FIFOScheduler()
        running: list[Trial] = []
        while True:
            while len(running) < room.at_a_time and (trial := next(waiting, None)) is not None:
                decides.on_trial_add(None, trial)  # type: ignore[arg-type]
                running.append(trial)
            if not running:
                return
            for trial in list(running):
                if watcher.hopeless:
                    return
                if self._turn(trial, watcher, decides):
                    running.remove(trial)
                    watcher.on_trial_complete(0, [], trial)
                    if proposer is not None:
                        proposer.on_trial_complete(trial.trial_id)

    def _turn(self, trial: Trial, watcher: Watcher, decides: TrialScheduler) -> bool:
        """One evaluation of a trial; whether it was its last."""
        self.before(self.evaluations)
        self.evaluations += 1
        result = trial.actor.step()
        watcher.on_trial_result(0, [], trial, result)
        if result["done"]:
            return True
        return decides.on_trial_result(None, trial, result) == TrialScheduler.STOP  # type: ignore[arg-type]

    def _proposed(self, param_space: dict[str, Any], proposer: Searcher | None) -> Iterator[Trial]:
        if proposer is None:
            for given in param_space["trial"]["grid_search"]:
                yield Trial(f"member-{given['number']}", {"trial": given})
            return
        for number in count():
            config = proposer.suggest(f"trial-{number}")
            if config == Searcher.FINISHED:
                return
            yield Trial(f"trial-{number}", config)


class Trial:
    """What schedulers and callbacks read of Ray's trials."""

    def __init__(self, trial_id: str, config: dict[str, Any]) -> None:
        self.trial_id, self.config = trial_id, config
        self.actor = TrialActor.__new__(TrialActor)  # Ray's own constructor would start a logger
        self.actor.setup(config)


def take_turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """From now on searches of this process run their trials here, as on a node of four CPUs."""
    turns = Turns()
    monkeypatch.setattr(runner, "_fit", turns.fit)
    monkeypatch.setattr(runner, "_room", lambda search: plan(search, [{"CPU": 4.0}], gpu=False))
    return turns
