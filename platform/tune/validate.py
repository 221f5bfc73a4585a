"""What can be refused of a search is refused here, within seconds and before anything is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from crossview.methods.example_batch import example_batch
from crossview.methods.method import build
from crossview.platform import checkpoint
from crossview.platform.config import Experiment
from crossview.platform.data.plan_builder import load_catalog
from crossview.platform.evaluate import phases
from crossview.platform.evaluate.task import METRICS, Task
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
    search = Search(
        method=method,
        experiment=experiment,
        space=space.name,
        domains=space.describe(),
        metric=settings.metric or space.metric or "",
        mode=settings.mode or space.mode,  # type: ignore[arg-type]
        tasks=settings.tasks or space.tasks,
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
    _check_metric(search)
    _check_data(search)
    return search, space


def _check_planned(space: Space) -> None:
    """What trials claim is planned before any begins, so it is the same for all."""
    for path in space.paths():
        if path.startswith("compute.") or path == "data.decode_actors":
            raise ValueError(
                f"space {space.name}: {path} cannot vary, since the cluster is shared out before the first trial; set "
                f"it for all trials with --{path.replace('_', '-')}, and take it out of the space"
            )


def _check_evaluations(search: Search, steps: int) -> None:
    doubled = [task for task in search.tasks if search.tasks.count(task) > 1]
    if doubled:
        raise ValueError(f"tasks: {doubled[0]!r} is named twice; name each task once")
    if search.evaluations > steps:
        raise ValueError(
            f"--evaluations is {search.evaluations}, but a trial trains for {steps} steps; pass --evaluations {steps} "
            "or fewer, or train longer (--optim.steps)"
        )


def _check_scheduler(search: Search, space: Space) -> None:
    if search.scheduler != "pbt":
        return
    if search.search != "random":
        raise ValueError(
            f"--scheduler pbt with --search {search.search}: population-based training chooses its own values from "
            "random ones; leave out --search, and take a space that is no grid"
        )
    fixed = [path for path in space.paths() if path.startswith(FIXED)]
    if fixed:
        raise ValueError(
            f"space {space.name}: {fixed[0]} cannot change while a run trains, as --scheduler pbt does; take it out of "
            "the space, or use asha"
        )
    begun = [path for path in space.paths() if path.endswith("_init")]
    if begun:
        raise ValueError(
            f"space {space.name}: {begun[0]} is where a learnt value starts, so it does nothing to weights that are "
            "copied, as --scheduler pbt does; take it out of the space, or use asha"
        )
    if search.evaluations < 2:
        raise ValueError("--evaluations is 1 with --scheduler pbt; it copies the better trials between evaluations")


def _check_metric(search: Search) -> None:
    """Downstream tasks have fixed metrics; those of "measures" are the method's, told of a batch of noise."""
    known = [metric for task in search.tasks for metric in METRICS.get(task, ())]
    if "measures" in search.tasks and search.metric not in known:
        known += _measures(search.method, search.experiment)
    if search.metric not in known:
        raise ValueError(
            f"metric {search.metric!r}: no task of {', '.join(search.tasks)} reports it; they report "
            f"{', '.join(known)}: choose one with --metric, or other --tasks"
        )


def _measures(method: str, experiment: Experiment[Any]) -> list[str]:
    model = build(method, checkpoint.without_pretrained(experiment.method)).eval()
    with torch.no_grad():
        return [f"measures/{name}" for name in model.measures(example_batch(experiment.method.sampling(), 4))]


def _check_data(search: Search) -> None:
    """The splits and what the tasks need of them."""
    data = search.experiment.data
    catalog = load_catalog(data)
    parts = [catalog.select(split) for split in (search.fit_split, search.split, *(("test",) if search.test else ()))]
    tasks: tuple[Task, ...] = search.tasks
    if "phases" in tasks:
        for part in parts:
            phases.require_labels(part)
    if search.metric.endswith("/held_out"):
        seen = set(data.views or (r.view for r in catalog.select(data.split).recordings))
        if all(r.view in seen for r in parts[1].recordings):
            raise ValueError(
                f"metric {search.metric!r}: split {search.split!r} shows no camera that training leaves out; hold one "
                "out with --data.views, or optimise the metric that ends in /seen"
            )
