"""`crossview tune`: settle the search, print the plan, run the trials with Ray Tune, confirm and report the winner."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.errors import UserError
from crossview.platform.cluster.connect import connect, ray_storage
from crossview.platform.cluster.resources import nodes
from crossview.platform.config import Experiment
from crossview.platform.progress import Progress, console
from crossview.platform.train.resolve import frozen_part
from crossview.platform.tune import space as spaces
from crossview.platform.tune import spec, validate
from crossview.platform.tune.capacity import Room, claimed_by_trial, plan
from crossview.platform.tune.confirm import confirm, winner
from crossview.platform.tune.pbt import rounds
from crossview.platform.tune.report import publish
from crossview.platform.tune.samplers import chooser
from crossview.platform.tune.schedulers import Hopeless, Proposer, Watcher, scheduler
from crossview.platform.tune.settings import Settings
from crossview.platform.tune.space import Space
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial import TrialActor
from crossview.platform.tune.trial_store import Journal

MAX_FAILURES = 2
"""Times that a trial whose process died is restarted, from its latest checkpoint."""


def start(folder: Path, method: str, experiment: Experiment[Any], settings: Settings) -> Path:
    """A new search in `folder`; invalid settings are refused before the folder exists. Returns its report."""
    search, space = validate.settle(method, experiment, settings)
    room = _room(search)
    spec.write(folder, search)
    return _go(folder.resolve(), search, space, room)


def resume(folder: Path) -> Path:
    """Resume an interrupted search: finished trials stay, the others resume from their checkpoints."""
    search = spec.read(folder)
    space = spaces.load(search.space, search.method)
    if space.describe() != search.domains:
        raise UserError(
            f"{folder}: its space {search.space} has changed to {space.describe()} from {search.domains}. "
            "Restore it, or start a new search"
        )
    return _go(folder.resolve(), search, space, _room(search))


def _room(search: Search) -> Room:
    """Compute and print what runs where."""
    connect()
    room = plan(search, nodes(), gpu=search.device == "cuda")
    seeds = f" x {search.seeds} seeds" if search.seeds > 1 else ""
    preset = "" if search.first else "the preset and "
    console.print(
        f"plan: {preset}{search.trials - 1} trials{seeds} of {search.method}, {search.search} over "
        f"{len(search.domains)} options ({search.space}), {search.scheduler}; {search.evaluations} evaluations each on "
        f"{search.split} by {search.metric}\n"
        f"trials: {room}; the cluster has {room.cluster}",
        highlight=False,
        soft_wrap=True,
    )
    return room


def _go(folder: Path, search: Search, space: Space, room: Room) -> Path:
    try:
        return _to_its_end(folder, search, space, room)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume the search with `crossview tune --resume {folder}`") from None


def _to_its_end(folder: Path, search: Search, space: Space, room: Room) -> Path:
    journal = Journal(folder)
    _share_features(search, room)
    _run_trials(folder, search, space, journal, room)
    trials = journal.trials()
    if any(trial.status is None for trial in trials):
        raise KeyboardInterrupt
    best = winner(search, trials)
    if best is None:
        failed = [trial.reason for trial in trials if trial.status == "failed"]
        raise UserError(
            f"{folder}: no trial has a score, {len(failed)} failed, the last one with: {failed[-1] if failed else ''}"
        )
    if search.confirm:
        confirm(search, journal, best, room)
    return publish(folder)


def _share_features(search: Search, room: Room) -> None:
    """Compute frozen features of all splits once, before parallel trials would each start to."""
    data, seed = search.experiment.data, search.experiment.seed
    if not data.cache_features:
        return
    name, config, weights = frozen_part(search.method, search.experiment)
    from crossview.platform.data.feature_cache import cache

    for folder, root in ((data.catalog, data.root), *((source.catalog, None) for source in data.mix)):
        catalog = Catalog.load(folder, root)
        cache(
            name,
            config,
            catalog,
            folder / "features",
            data=data,
            seed=seed,
            actors=max(1, room.gpus) * room.at_a_time,
            device=search.device,
            weights=weights,
        )


def _run_trials(folder: Path, search: Search, space: Space, journal: Journal, room: Room) -> None:
    begun = journal.trials()
    total = search.count * search.evaluations
    with Progress(f"tuning {search.method}", search.count, "trials", sum(t.status is not None for t in begun)) as line:

        def tell(watcher: Watcher) -> None:
            best = f"best {watcher.best[0]:.4f} (trial {watcher.best[1]})" if watcher.best else ""
            failed = f", {len(watcher.failures)} failed" if watcher.failures else ""
            line.update(watcher.ended, f"{watcher.evaluations} of at most {total} evaluations, {best}{failed}")

        watcher = Watcher(search, journal, tell)
        tell(watcher)
        if watcher.ended >= search.count:
            return
        run = partial(_fit, search, room, folder / "ray", watcher)
        if search.scheduler == "pbt":
            for members in rounds(search, space, journal):
                run({"trial": tune.grid_search(members)}, None, None)
        else:
            proposer = Proposer(search, journal, chooser(search, space, begun))
            run({}, proposer, scheduler(search, journal))
    if (folder / "ray").is_dir():
        storage.remove(folder / "ray")
    if watcher.unwritable:
        raise OSError(f"{watcher.unwritable}; once that is fixed, resume with `crossview tune --resume {folder}`")
    if watcher.hopeless:
        raise UserError(
            f"{folder}: the first {len(watcher.failures)} trials all failed and none has a score, so the search ended; "
            f"the last one failed with: {watcher.failures[-1]}"
        )


def _fit(
    search: Search,
    room: Room,
    own: Path,
    watcher: Watcher,
    param_space: dict[str, Any],
    proposer: Searcher | None,
    decides: TrialScheduler | None,
) -> None:
    """Run trials with Ray Tune. The journal is the record of what is done; Ray's own record is discarded at the end."""
    tune.Tuner(
        tune.with_resources(TrialActor, claimed_by_trial(search, room)),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            scheduler=decides,
            search_alg=proposer,
            num_samples=1 if proposer is None else -1,
            max_concurrent_trials=room.at_a_time,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=f"ray-{time.time_ns()}",  # Ray silently resumes a name that it has seen
            **ray_storage(own),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs have their own
            callbacks=[watcher],
            stop=Hopeless(watcher),
            verbose=0,
        ),
    ).fit()
