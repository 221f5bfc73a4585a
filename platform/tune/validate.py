"""Invalid searches are refused here, within seconds and before anything is written."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from crossview.downstream.task import Task
from crossview.errors import UserError
from crossview.platform.config import Experiment
from crossview.platform.evaluate.preflight import modes, preflight
from crossview.platform.evaluate.tasks import given_options, make
from crossview.platform.progress import console
from crossview.platform.train.device import wants_gpu
from crossview.platform.train.resolve import check_new
from crossview.platform.tune import space as spaces
from crossview.platform.tune.samplers import Grid
from crossview.platform.tune.settings import Settings
from crossview.platform.tune.space import Space
from crossview.platform.tune.spec import Search

FIXED = ("data.", "compute.", "optim.batch", "optim.steps", "optim.epochs", "seed", "init_from")
"""Options that cannot change while a run trains."""


def settle(method: str, experiment: Experiment[Any], settings: Settings) -> tuple[Search, Space]:
    """The whole search; raises ValueError naming the option or file that is wrong."""
    if experiment.every.evaluate:
        raise UserError(
            f"every.evaluate is {experiment.every.evaluate}; a search scores its trials itself (--evaluations): pass "
            "--every.evaluate 0 --every.best None"
        )
    checked = check_new(method, experiment, console.print)
    experiment = checked.experiment
    space = spaces.load(settings.space or method, method)
    spaces.check(space, method, experiment, experiment.seed)
    _check_planned(space)
    tasks = _tasks(settings, space)
    search = Search(
        method=method,
        experiment=experiment,
        space=space.name,
        domains=space.describe(),
        metric=settings.metric or space.metric or "",
        mode=settings.mode or space.mode,  # type: ignore[arg-type]
        tasks=tuple(tasks),
        options={name: asdict(task.options) for name, task in tasks.items()},
        split=settings.split,
        fit_split=settings.fit_split,
        search="grid" if space.grid else settings.search,
        scheduler=settings.scheduler or space.scheduler,  # type: ignore[arg-type]
        reduction=space.reduction,
        trials=settings.trials + 1,
        evaluations=settings.evaluations,
        seeds=settings.seeds,
        jobs=settings.jobs,
        device="cuda" if wants_gpu(experiment.compute) else "cpu",
        confirm=settings.confirm,
        test=settings.test,
    )
    if search.search == "grid":
        search = replace(search, trials=len(Grid(search, space).points) + 1)
    _check_scheduler(search, space)
    _check_evaluations(search, checked.total_steps)
    catalog, fit_split = checked.catalogs[0], search.fit_split
    for split in (search.split, *(("test",) if search.test else ())):
        preflight(tasks, method, experiment, catalog, split, fit_split, search.metric)
    if settings.metric and settings.mode is None:
        search = replace(search, mode=modes(search.metric, tasks, method, experiment)[search.metric])
    return search, space


def _tasks(settings: Settings, space: Space) -> dict[str, Task[Any, Any]]:
    """What scores every trial, with the options that were typed."""
    names = settings.tasks or space.tasks
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise UserError(f"tasks: {doubled[0]!r} is named twice; name each task once")
    return make(names, given_options(settings))


def _check_planned(space: Space) -> None:
    """What trials claim is planned before any starts, so it is the same for all."""
    for path in space.paths():
        if path.startswith("compute.") or path == "data.decode_actors":
            raise UserError(
                f"space {space.name}: {path} cannot vary, since the cluster is shared out before the first trial; set "
                f"it for all trials with --{path.replace('_', '-')}, and take it out of the space"
            )


def _check_evaluations(search: Search, steps: int) -> None:
    if search.evaluations > steps:
        raise UserError(
            f"--evaluations is {search.evaluations}, but a trial trains for {steps} steps; pass --evaluations {steps} "
            "or fewer, or train longer (--optim.steps)"
        )


def _check_scheduler(search: Search, space: Space) -> None:
    if search.scheduler != "pbt":
        return
    if search.search != "random":
        raise UserError(
            f"--scheduler pbt with --search {search.search}: population-based training chooses its own values from "
            "random ones; leave out --search, and use a space that is not a grid"
        )
    fixed = [path for path in space.paths() if path.startswith(FIXED)]
    if fixed:
        raise UserError(
            f"space {space.name}: {fixed[0]} cannot change while a run trains, as --scheduler pbt would; remove it "
            "from the space, or use asha"
        )
    begun = [path for path in space.paths() if path.endswith("_init")]
    if begun:
        raise UserError(
            f"space {space.name}: {begun[0]} is where a learnt value starts, so it has no effect on copied weights, as "
            "with --scheduler pbt; remove it from the space, or use asha"
        )
    if search.evaluations < 2:
        raise UserError("--evaluations is 1 with --scheduler pbt; it copies the better trials between evaluations")
