"""Invalid searches are refused here, within seconds and before anything is written."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.downstream.task import Facts, Mode, SamplePart, Task
from crossview.errors import UserError
from crossview.methods.example_batch import example_batch
from crossview.methods.method import build
from crossview.platform import checkpoint
from crossview.platform.config import Experiment
from crossview.platform.evaluate.facts import check_splits, facts_of
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
    metrics = _metrics(search, tasks)
    if search.metric not in metrics:
        raise UserError(
            f"metric {search.metric!r}: no task of {', '.join(search.tasks)} reports it; they report "
            f"{', '.join(metrics)}: choose one with --metric, or other --tasks"
        )
    if settings.metric and settings.mode is None:
        search = replace(search, mode=metrics[search.metric])
    _check_data(search, tasks, checked.catalogs[0])
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


def _metrics(search: Search, tasks: dict[str, Task[Any, Any]]) -> dict[str, Mode]:
    """What the tasks report; for an unknown metric, tasks without a fixed list are run on noise."""
    known: dict[str, Mode] = {}
    for task in tasks.values():
        known |= task.options.metrics()
    if search.metric not in known:
        for task in tasks.values():
            if task.options.reads == "samples" and not task.options.metrics():
                known |= dict.fromkeys(metrics_on_noise(task, search.method, search.experiment), "max")
    return known


def metrics_on_noise(task: Task[Any, Any], method: str, experiment: Experiment[Any]) -> list[str]:
    """What a task that reads samples reports of an untrained network and a batch of noise."""
    model = build(method, checkpoint.without_pretrained(experiment.method)).eval()
    batch = example_batch(experiment.method.sampling(), 4)
    part = SamplePart(split="", recordings=(), seen=frozenset(), encoder=model, batch=batch)
    return list(task.score(task.predict(None, part), part))


def _check_data(search: Search, tasks: dict[str, Task[Any, Any]], catalog: Catalog) -> None:
    """The splits and what the tasks need of them."""
    data, fit_split = search.experiment.data, search.fit_split
    for split in (search.split, *(("test",) if search.test else ())):
        fitted = check_splits(tasks.values(), split, fit_split)
        facts = facts_of(search.method, data, catalog, split, fit_split, fitted=fitted)
        if split == search.split:
            _check_cameras(search.metric, facts)
        for task in tasks.values():
            task.check(facts)


def _check_cameras(metric: str, facts: Facts) -> None:
    if metric.endswith("/held_out") and all(r.view in facts.seen for r in facts.test):
        raise UserError(
            f"metric {metric!r}: split {facts.split!r} has no held-out camera; hold one out with "
            "--data.views, or optimise the metric that ends in /seen"
        )
