"""What an evaluation needs and the catalog lacks, found before anything is embedded or trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.plan import Plan
from crossview.downstream.task import Facts, Mode, SamplePart, Task
from crossview.errors import UserError
from crossview.methods.example_batch import example_batch
from crossview.methods.method import build
from crossview.platform import checkpoint
from crossview.platform.config import Experiment
from crossview.platform.evaluate.facts import check_splits, facts_of, wanted

Tasks = Mapping[str, Task[Any, Any]]
"""By name."""


def preflight(
    tasks: Tasks, method: str, experiment: Experiment[Any], catalog: Catalog, split: str, fit_split: str
) -> Facts:
    """The facts of an evaluation; `catalog` holds all splits of the run's protocol.

    Raises ValueError that lists everything that any of the tasks lacks, and for a split that one of them cannot use.
    """
    fitted = check_splits(tasks.values(), split, fit_split)
    problems = [
        text for name in dict.fromkeys((split, *([fit_split] if fitted else ()))) for text in _absent(catalog, name)
    ]
    _refuse(problems)
    facts = facts_of(method, experiment.data, catalog, split, fit_split, fitted=fitted)
    for task in tasks.values():
        found = list(task.check(facts))
        problems += found or _undrawable(task, experiment, catalog, facts)
    _refuse(problems)
    return facts


def direction(metric: str, tasks: Tasks, method: str, experiment: Experiment[Any], facts: Facts) -> Mode:
    """Which end of a metric is better; raises ValueError for a metric that none of the tasks will report."""
    known: dict[str, Mode] = {}
    for task in tasks.values():
        known |= task.options.metrics()
    if metric not in known:  # tasks without a fixed list are run on noise
        for task in tasks.values():
            if task.options.reads == "samples" and not task.options.metrics():
                known |= dict.fromkeys(metrics_on_noise(task, method, experiment), "max")
    if metric not in known:
        raise UserError(
            f"metric {metric!r}: no task of {', '.join(tasks)} reports it; they report {', '.join(known)}: choose one "
            "of these, or other --tasks"
        )
    if metric.endswith("/held_out") and all(r.view in facts.seen for r in facts.test):
        raise UserError(
            f"metric {metric!r}: split {facts.split!r} has no held-out camera; hold one out with --data.views, or "
            "choose the metric that ends in /seen"
        )
    return known[metric]


def metrics_on_noise(task: Task[Any, Any], method: str, experiment: Experiment[Any]) -> list[str]:
    """What a task that reads samples reports of an untrained network and a batch of noise."""
    model = build(method, checkpoint.without_pretrained(experiment.method)).eval()
    batch = example_batch(experiment.method.sampling(), 4)
    part = SamplePart(split="", recordings=(), seen=frozenset(), encoder=model, batch=batch)
    return list(task.score(task.predict(None, part), part))


def _absent(catalog: Catalog, split: str) -> Iterator[str]:
    try:
        catalog.select(split)
    except UserError as error:
        yield str(error)


def _undrawable(task: Task[Any, Any], experiment: Experiment[Any], catalog: Catalog, facts: Facts) -> list[str]:
    """The problem where a task that reads samples would find none to draw."""
    if task.options.reads != "samples":
        return []
    sampling = experiment.method.sampling()
    try:
        labels = Labels(catalog, sampling.labels)  # of all splits, as in training
        Plan(wanted(task, catalog.select(facts.split), facts), sampling, 0, labels)
    except UserError as error:
        return [f"no samples can be drawn from split {facts.split!r} as in training: {error}"]
    return []


def _refuse(problems: list[str]) -> None:
    """Raise ValueError for these; several are numbered, a line each."""
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        lines = "".join(f"\n{k}. {problem}" for k, problem in enumerate(problems, 1))
        raise UserError(f"{len(problems)} things are missing for this evaluation:{lines}")
