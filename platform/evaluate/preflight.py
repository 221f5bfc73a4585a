"""What an evaluation needs and the catalog lacks, found before anything is embedded or trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling
from crossview.downstream.task import Facts, Mode, SamplePart, Task
from crossview.downstream.test_views import ClassifierOptions
from crossview.errors import UserError
from crossview.methods.example_batch import example_batch
from crossview.methods.method import Method, model_class
from crossview.platform.config import Experiment, is_trainer
from crossview.platform.data.plan_builder import feature_plan
from crossview.platform.evaluate.clip_predictions import ClipUnits
from crossview.platform.evaluate.facts import check_splits, facts_of, of_views, wanted
from crossview.platform.models import build_model

Tasks = Mapping[str, Task[Any, Any]]
"""By name."""


def preflight(
    tasks: Tasks,
    method: str,
    experiment: Experiment[Any],
    catalog: Catalog,
    split: str,
    fit_split: str,
    metric: str | None = None,
) -> Facts:
    """The facts of an evaluation; `catalog` holds all splits of the run's protocol.

    Raises ValueError that lists everything that any of the tasks lacks, and for a split that one of them cannot use.
    `metric` is one that checkpoints or trials are compared by.
    """
    fitted = check_splits(tasks.values(), split, fit_split)
    _refuse([text for name, task in tasks.items() for text in _unsuited(name, task, method, experiment)])
    problems = [
        text for name in dict.fromkeys((split, *([fit_split] if fitted else ()))) for text in _absent(catalog, name)
    ]
    _refuse(problems)
    facts = facts_of(method, experiment, catalog, split, fit_split, fitted=fitted)
    if metric is not None:
        problems += _unreported(metric, modes(metric, tasks, method, experiment), facts, tasks)
    for task in tasks.values():
        found = list(task.check(facts))
        problems += found or _undrawable(task, experiment, catalog, facts)
    _refuse(problems)
    return facts


def modes(metric: str, tasks: Tasks, method: str, experiment: Experiment[Any]) -> dict[str, Mode]:
    """Which end of each metric of the tasks is better; of tasks without a fixed list only if `metric` is no other's."""
    known: dict[str, Mode] = {}
    for task in tasks.values():
        known |= task.options.metrics()
    if metric not in known:
        for task in tasks.values():
            if task.options.reads == "samples" and not task.options.metrics():
                known |= dict.fromkeys(metrics_on_noise(task, method, experiment), "max")
    return known


def metrics_on_noise(task: Task[Any, Any], method: str, experiment: Experiment[Any]) -> list[str]:
    """What a task that reads samples reports of an untrained network and a batch of noise."""
    model = build_model(method, experiment).eval()
    batch = example_batch(experiment.method.sampling(), 4)
    part = SamplePart(split="", recordings=(), seen=frozenset(), encoder=model, batch=batch)
    return list(task.score(task.predict(None, part), part))


def _unreported(metric: str, known: Mapping[str, Mode], facts: Facts, tasks: Tasks) -> Iterator[str]:
    if metric not in known:
        yield (
            f"metric {metric!r}: no task of {', '.join(tasks)} reports it; they report {', '.join(known)}: choose one "
            "of these, or other --tasks"
        )
    elif metric.endswith("/held_out") and all(r.view in facts.seen for r in facts.test):
        yield (
            f"metric {metric!r}: split {facts.split!r} has no held-out camera; hold one out with --data.views, or "
            "choose the metric that ends in /seen"
        )
    elif metric.endswith("/seen") and not any(r.view in facts.seen for r in facts.test):
        yield (
            f"metric {metric!r}: split {facts.split!r} has no camera that was trained on; choose the metric that ends "
            "in /held_out"
        )


def _absent(catalog: Catalog, split: str) -> Iterator[str]:
    try:
        catalog.select(split)
    except UserError as error:
        yield str(error)


def _undrawable(task: Task[Any, Any], experiment: Experiment[Any], catalog: Catalog, facts: Facts) -> list[str]:
    """The problem where a task that reads samples or predictions would find none to draw."""
    sampling = experiment.sampling()
    if task.options.reads == "predictions":
        splits = (facts.split, *([facts.fit_split] if task.options.fitted else []))
        views = {facts.split: task.options.views}
        return [text for split in splits for text in _unpredictable(experiment, catalog, split, views.get(split))]
    if task.options.reads != "samples":
        return []
    try:
        labels = Labels(catalog, sampling.labels, sampling.label_options)  # of all splits, as in training
        Plan(wanted(task, catalog.select(facts.split), facts), sampling, 0, labels)
    except UserError as error:
        return [f"no samples can be drawn from split {facts.split!r} as in training: {error}"]
    return []


def _unpredictable(
    experiment: Experiment[Any], catalog: Catalog, split: str, views: tuple[str, ...] | None
) -> Iterator[str]:
    try:
        part, spec = of_views(catalog.select(split), views), experiment.sampling()
        if isinstance(spec, Sampling):
            ClipUnits.of(part, spec, catalog, every=views is not None)
        else:
            feature_plan(part, spec, 0, catalog, experiment.data, test=True)
    except UserError as error:
        yield f"split {split!r} has nothing to predict: {error}"


def _unsuited(name: str, task: Task[Any, Any], method: str, experiment: Experiment[Any]) -> Iterator[str]:
    """The problem where a task cannot score runs of this method or trainer."""
    if task.options.reads == "predictions":
        if isinstance(task.options, ClassifierOptions) and not is_trainer(method):
            if model_class(method).class_scores is Method.class_scores or not experiment.sampling().labels:
                yield (
                    f"task {name!r} scores classifiers, and this run of {method!r} has none; train one with `crossview "
                    f"train {name}`, with this as its --encoder.run"
                )
        elif name != method:
            yield (
                f"task {name!r} scores runs of the downstream trainer {name!r}, and this is one of {method!r}; train "
                f"one with `crossview train {name}`, with this as its --encoder.run"
            )
    elif is_trainer(method):
        yield (
            f"task {name!r} scores embeddings of a method, and {method!r} is a downstream trainer; leave out --tasks"
        )


def _refuse(problems: list[str]) -> None:
    """Raise ValueError for these; several are numbered, a line each."""
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        lines = "".join(f"\n{k}. {problem}" for k, problem in enumerate(problems, 1))
        raise UserError(f"{len(problems)} things are missing for this evaluation:{lines}")
