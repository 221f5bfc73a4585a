"""Population-based training (Jaderberg et al., arXiv 1711.09846) in rounds.

All members train up to an evaluation; then the worst copy the weights of the best and change their options. Rounds are
used instead of Ray's own scheduler, because a member must not train while another copies its runs, and because the
journal alone determines what is copied: an interrupted round is repeated exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.search.sample import Categorical, Domain

from crossview import storage
from crossview.platform import checkpoint, run_folder
from crossview.platform.config import Experiment, to_dict
from crossview.platform.tune.overrides import Options, plain, with_options
from crossview.platform.tune.samplers import Random
from crossview.platform.tune.schedulers import config
from crossview.platform.tune.space import TRIES, Space
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial import comparable, placed
from crossview.platform.tune.trial_store import Journal, Trial
from crossview.storage.tables import read_table, write_table

QUANTILE = 0.25
"""Share of the members that copy, and of those that are copied from."""
RESAMPLED = 0.25
"""Chance that an option is sampled again; else it is multiplied by one of FACTORS, or takes a neighbour in its list."""
FACTORS = (0.8, 1.2)


def rounds(search: Search, space: Space, journal: Journal) -> Iterator[list[dict[str, Any]]]:
    """Round by round, what `trial.TrialActor` takes to bring every member that is behind up to that evaluation."""
    chosen = Random(search, space)
    for number in range(search.first, search.trials):
        if not (journal.of(number) / "trial.json").exists():
            options = chosen.choose(number)
            assert options is not None  # `space.check` has seen a valid one
            journal.begin(number, dict(options))
    for evaluation in range(1, search.evaluations + 1):
        trials = journal.trials()
        if evaluation > 1:
            if _behind(trials, evaluation - 1):  # the round before was interrupted
                return
            for exchange in exchanges(search, chosen, trials, evaluation - 1):
                # All copies are made before any donor trains on; those of an interrupted round are not made again.
                copier = exchange.copier
                if copier.status is None and len(copier.reports) < evaluation and copier.copied_at != evaluation - 1:
                    take_over(journal, search, exchange, evaluation - 1)
        if behind := _behind(trials, evaluation):
            yield [config(search, journal, number, evaluation) for number in behind]


def _behind(trials: list[Trial], evaluation: int) -> list[int]:
    """Members that have not reached an evaluation."""
    return [trial.number for trial in trials if trial.status is None and len(trial.reports) < evaluation]


@dataclass(frozen=True)
class Exchange:
    """A member takes over another's weights."""

    copier: Trial
    donor: Trial
    options: dict[str, Any]
    """The donor's, changed."""


def exchanges(search: Search, chosen: Random, members: list[Trial], evaluation: int) -> list[Exchange]:
    """Who copies whom after an evaluation; a function of the scores at it alone, whatever has failed since."""
    scored = [trial for trial in members if len(trial.reports) >= evaluation]

    def score(trial: Trial) -> float:
        return search.sign * comparable(trial.reports[evaluation - 1].objective, search.sign)

    order = sorted(scored, key=lambda trial: (score(trial), trial.number), reverse=True)
    count = min(len(order) // 2, max(1, round(QUANTILE * len(order))))
    best, worst = order[:count], order[len(order) - count :]
    found = []
    for trial in worst:
        rng = np.random.default_rng((search.experiment.seed, evaluation, trial.number))
        donor = best[int(rng.integers(len(best)))]
        if score(donor) > score(trial):
            found.append(Exchange(trial, donor, explored(chosen, donor.options, rng)))
    return found


def explored(chosen: Random, options: Options, rng: np.random.Generator) -> dict[str, Any]:
    """The donor's options, each changed; as they are where no change is valid."""
    for _ in range(TRIES):
        state = np.random.RandomState(int(rng.integers(2**31)))
        changed = {path: _changed(domain, options[path], rng, state) for path, domain in chosen.space.domains.items()}
        if chosen.valid(changed):
            return changed
    return dict(options)


def _changed(domain: Domain, value: Any, rng: np.random.Generator, state: np.random.RandomState) -> Any:
    if rng.random() < RESAMPLED:
        return plain(domain.sample(random_state=state))
    if isinstance(domain, Categorical):
        place = domain.categories.index(value) + int(rng.choice((-1, 1)))
        return domain.categories[min(max(place, 0), len(domain.categories) - 1)]
    moved = min(max(value * float(rng.choice(FACTORS)), domain.lower), domain.upper)  # type: ignore[attr-defined]
    return round(moved) if isinstance(value, int) else moved


def take_over(journal: Journal, search: Search, exchange: Exchange, evaluation: int) -> None:
    """Replace a member's runs by the donor's after an evaluation, under the new options."""
    copier, donor, options = exchange.copier, exchange.donor, exchange.options
    changed = with_options(search.method, search.experiment, options)
    for seed in range(changed.seed, changed.seed + search.seeds):
        source, run = journal.run(donor.number, seed), journal.run(copier.number, seed)
        own = placed(search, replace(changed, seed=seed))
        _fork(source, run, donor.reports[evaluation - 1].step, search.method, own)
    journal.begin(copier.number, options, donor.number, evaluation)


def _fork(source: Path, run: Path, step: int, method: str, experiment: Experiment[Any]) -> None:
    """Let a run continue from another run's checkpoint of a step, with its history."""
    checkpoint.copy(checkpoint.folder(source, step), run)
    write_table(read_table(source / "metrics.parquet"), run / "metrics.parquet")
    info = storage.read_json(run / "run.json", "restore it from a copy, or start a new search")
    run_folder.write_json(run / "run.json", {**info, "experiment": to_dict(method, experiment)})
