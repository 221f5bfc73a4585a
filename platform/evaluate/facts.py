"""What a task knows from the catalog before anything is embedded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.downstream.task import Facts, Recorded, Task
from crossview.errors import UserError
from crossview.methods.method import Method, model_class
from crossview.platform.config import Experiment, is_trainer
from crossview.platform.data.cameras import trained_on


def ordered(catalog: Catalog) -> Catalog:
    """Ego before exo, each by path: ties in retrieval go to the first."""
    recordings = sorted(catalog.recordings, key=lambda r: (r.perspective != "ego", r.path, r.id))
    return replace(catalog, recordings=tuple(recordings))


def _seen(method: str, experiment: Experiment[Any], catalog: Catalog) -> frozenset[str]:
    """Of a method, all cameras that it was given, so that the tasks of methods of either perspective compare."""
    if is_trainer(method):
        return trained_on(experiment, catalog)
    data = experiment.data
    return frozenset(data.views or (r.view for r in catalog.select(data.split).recordings))


def facts_of(
    method: str, experiment: Experiment[Any], catalog: Catalog, split: str, fit_split: str, *, fitted: bool
) -> Facts:
    """Facts of an evaluation, of both splits with `fitted`; raises ValueError for a split without recordings."""
    return Facts(
        method=method,
        catalog=str(catalog.place),
        split=split,
        fit_split=fit_split,
        test=recorded(ordered(catalog.select(split))),
        train=recorded(ordered(catalog.select(fit_split))) if fitted else (),
        seen=_seen(method, experiment, catalog),
        actions=frozenset(experiment.data.actions or (r.action for r in catalog.recordings)),
        measures=not is_trainer(method) and model_class(method).measures is not Method.measures,
    )


def of_views(catalog: Catalog, views: tuple[str, ...] | None) -> Catalog:
    """The recordings of these cameras, or all; raises ValueError for a camera that is not there."""
    if views is None:
        return catalog
    known = {r.view for r in catalog.recordings}
    if not set(views) <= known:
        raise UserError(
            f"views is {', '.join(views)}; the evaluated split has the cameras {', '.join(sorted(known))}: name "
            "some of these"
        )
    return catalog.keep(lambda r: r.view in views)


def recorded(catalog: Catalog) -> tuple[Recorded, ...]:
    """The catalog's recordings, in their order."""
    return tuple(_one(r, catalog) for r in catalog.recordings)


def wanted(task: Task[Any, Any], catalog: Catalog, facts: Facts) -> Catalog:
    """The recordings that a task uses, in their order."""
    known = {r.id: r for r in recorded(catalog)}
    return replace(catalog, recordings=tuple(r for r in catalog.recordings if task.wants(known[r.id], facts)))


def check_splits(tasks: Iterable[Task[Any, Any]], split: str, fit_split: str) -> bool:
    """Whether any task fits something; raises ValueError if it would fit on evaluated recordings."""
    fitted = any(task.options.fitted for task in tasks)
    if fitted and fit_split in (split, "test"):
        fix = "--split val" if split == fit_split == "train" else "--fit-split train"
        raise UserError(
            f"--split is {split!r} and --fit-split {fit_split!r}; classifiers are fitted on videos that are not "
            f"evaluated, and never on test: pass {fix}"
        )
    return fitted


def _one(r: Recording, catalog: Catalog) -> Recorded:
    return Recorded(
        id=r.id,
        dataset=r.dataset,
        scene=r.scene,
        view=r.view,
        perspective=r.perspective,
        subject=r.subject,
        action=r.action,
        start_s=r.start_s,
        end_s=r.end_s,
        frame_labels={
            name: frozenset(np.unique(by[r.id]).tolist()) for name, by in catalog.frame_labels.items() if r.id in by
        },
    )
