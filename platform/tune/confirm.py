"""The winner against the preset on fresh seeds, each trained in full: whether it is better by more than luck."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossview import storage
from crossview.downstream.paired import Decision, decide
from crossview.errors import UserError
from crossview.platform.cluster.run_queue import Job, run_side_by_side
from crossview.platform.evaluate.opened import TRAINED
from crossview.platform.progress import Progress
from crossview.platform.run_folder import write_json
from crossview.platform.tune.capacity import Room, claimed_by_trial
from crossview.platform.tune.overrides import with_options
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial import Scores, score, train_part
from crossview.platform.tune.trial_store import Journal, Trial

PRESET, WINNER = "preset", "winner"
FRESH = 1000
"""Added to the experiment's seed, so that no seed of a trial is used again."""
FAILED = "failed"
"""Key of the reason, in place of scores."""


@dataclass(frozen=True)
class Confirmed:
    """Scores of both on one split, one per seed."""

    split: str
    scores: dict[str, list[Scores]]
    """By variant, preset and winner."""
    failures: list[str] = field(default_factory=list)
    """Runs that could not be trained or scored, with their reasons; their scores are missing."""

    @property
    def claims(self) -> int:
        """That these runs decide: the winner against the preset, and it, or else the preset, against baselines."""
        return 0 if self.failures else len(self.scores)

    def values(self, variant: str, metric: str, row: str = TRAINED) -> list[float]:
        """One per seed; NaN where there is none."""
        return [rows.get(row, {}).get(metric, math.nan) for rows in self.scores[variant]]

    def over_preset(self, search: Search, claims: int) -> Decision:
        """Whether the winner is better than the preset, as one of so many claims; a gain is above 0 where it is."""
        return decide(self._signed(search, WINNER), {PRESET: self._signed(search, PRESET)}, claims)

    def over_baselines(self, search: Search, variant: str, claims: int) -> Decision | None:
        """Whether a variant is better than each of its baselines; None if no baseline has the metric."""
        rows = dict.fromkeys(row for of in self.scores[variant] for row, known in of.items() if search.metric in known)
        rivals = {row: self._signed(search, variant, row) for row in rows if row != TRAINED}
        return decide(self._signed(search, variant), rivals, claims) if rivals else None

    def _signed(self, search: Search, variant: str, row: str = TRAINED) -> list[float]:
        return [search.sign * value for value in self.values(variant, search.metric, row)]


def winner(search: Search, trials: list[Trial]) -> Trial | None:
    """The best by the last score among those that were trained in full, else among all that have one."""
    scored = [trial for trial in trials if math.isfinite(trial.objective)]
    whole = [trial for trial in scored if trial.reports[-1].evaluation == search.evaluations]
    return max(whole or scored, key=lambda trial: search.sign * trial.objective, default=None)


def confirm(search: Search, journal: Journal, best: Trial, room: Room) -> None:
    """Train and score what is missing, in parallel; on test only once all of val is done."""
    variants = {PRESET: {}, **({WINNER: best.options} if best.number else {})}
    jobs = [(variant, options, seed) for variant, options in variants.items() for seed in _seeds(search)]
    for split in (search.split, *(("test",) if search.test else ())):
        todo = [job for job in jobs if not storage.is_file(_file(journal, job[0], job[2], split))]
        if todo:
            _side_by_side(search, journal, todo, split, room)


def confirmed(search: Search, journal: Journal, split: str) -> Confirmed | None:
    """The scores on a split; None until they are complete."""
    scores: dict[str, list[Scores]] = {}
    failures: list[str] = []
    for variant in (PRESET, WINNER):
        files = [_file(journal, variant, seed, split) for seed in _seeds(search)]
        if files and all(storage.is_file(file) for file in files):
            found = [storage.read_json(file, "delete it and resume the search") for file in files]
            failures += [f"{variant}: {of[FAILED]}" for of in found if FAILED in of]
            scores[variant] = [of for of in found if FAILED not in of]
    return Confirmed(split, scores, failures) if PRESET in scores else None


def _seeds(search: Search) -> range:
    first = search.experiment.seed + FRESH
    return range(first, first + search.confirm)


def _file(journal: Journal, variant: str, seed: int, split: str) -> Path:
    return journal.folder / "confirm" / f"{variant}-seed{seed}-{split}.json"


def _side_by_side(
    search: Search, journal: Journal, todo: list[tuple[str, dict[str, Any], int]], split: str, room: Room
) -> None:
    claimed = claimed_by_trial(search, room)
    jobs = [
        Job(f"{variant}-{seed}", (str(journal.folder), search, variant, options, seed, split))
        for variant, options, seed in todo
    ]
    with Progress(f"fresh seeds on {split}", len(jobs), "runs") as line:
        run_side_by_side(
            _one,
            jobs,
            room.at_a_time,
            cpus=claimed["CPU"],
            gpus=claimed.get("GPU", 0),
            tell=line.update,
            resume=f"crossview tune --resume {journal.folder}",
        )


def _one(folder: str, search: Search, variant: str, options: dict[str, Any], seed: int, split: str) -> None:
    """Train one run to its end, if it has not finished, and score it on a split."""
    journal = Journal(storage.as_path(folder))
    experiment = replace(with_options(search.method, search.experiment, options), seed=seed)
    run = journal.folder / "confirm" / f"{journal.folder.name}-{variant}-seed{seed}"
    found: dict[str, Any]
    try:
        train_part(run, search, experiment, None)
        found = score(run, search, split, baselines=True)
    except UserError as error:
        found = {FAILED: str(error)}
    write_json(_file(journal, variant, seed, split), found)
