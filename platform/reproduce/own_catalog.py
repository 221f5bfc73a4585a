"""A study on a catalog of the user's, in place of its synthetic world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.datasets.teachers.store import DETECTIONS_FILE, FOLDER, Teachers
from crossview.errors import UserError
from crossview.methods.recipe import Recipe
from crossview.methods.study import Claim, Study
from crossview.platform.config import Data, Experiment, name_of
from crossview.platform.data.plan_builder import plan_for
from crossview.platform.evaluate.preflight import preflight
from crossview.platform.evaluate.tasks import make
from crossview.platform.reproduce.tables import Scores


def fit_to(study: Study, catalog: Path, protocol: str | None) -> tuple[Study, list[str]]:
    """The study on a catalog, and a sentence on everything of it that this catalog does not allow.

    All of its cameras are trained on; the numbers of classes are the catalog's, signals without a teacher beside the
    catalog are left out, and so are tasks and trainers whose labels it lacks. Raises UserError where a variant cannot
    be trained on it at all, or where nothing is left to score.
    """
    known = Catalog.load(catalog).under(protocol)
    if not all(r.has_pixels for r in known.recordings):
        raise UserError(f"--catalog {catalog}: it holds features; the bench trains on videos: pass a catalog of videos")
    teachers = Teachers.load(catalog / FOLDER)
    notes: list[str] = []
    variants = {}
    for name, recipe in study.variants.items():
        method, lost = _with_signals(_with_classes(recipe.method, known), teachers, catalog)
        variants[name] = replace(recipe, method=method)
        notes += [f"{name} is trained without the signals {', '.join(lost)}: no teacher's beside the catalog"] * bool(
            lost
        )
        plan_for(_experiment(variants[name], catalog, protocol))
    first = next(iter(variants.values()))
    experiment = _experiment(first, catalog, protocol)
    tasks = []
    for task in study.tasks:
        try:
            preflight(make((task,)), name_of(first.method), experiment, known, study.split, "train")
            tasks.append(task)
        except UserError as error:
            notes.append(f"{task} is left out: {error}")
    trainers = {}
    for name, recipe in study.trainers.items():
        kind = recipe.method.kind
        if kind in known.classes and any(s.name == kind for s in known.segments):
            trainers[name] = recipe
        else:
            notes.append(f"{name} is left out: the catalog has no segments of kind {kind!r}")
    if not tasks:
        raise UserError(f"--catalog {catalog}: no task of the study can be scored on it: {'; '.join(notes)}")
    fitted = replace(
        study,
        variants=variants,
        tasks=tuple(tasks),
        trainers=trainers,
        train_views=None,
        train_actions=None,
        teachers=None,
    )
    return fitted, notes


def scored_claims(study: Study, scores: Scores) -> tuple[Claim, ...]:
    """The claims in metrics that some row has: a catalog without a held-out camera gives none on such cameras."""
    return tuple(c for c in study.claims if any(c.metric in values for values in scores.values()))


def _experiment(recipe: Recipe, catalog: Path, protocol: str | None) -> Experiment[Any]:
    return Experiment(data=Data(catalog=catalog, protocol=protocol), method=recipe.method, optim=recipe.optim)


def _with_classes(method: Any, catalog: Catalog) -> Any:
    """Its classifiers with as many classes as the catalog has of their kinds."""
    classes = getattr(method, "classes", None)
    if not isinstance(classes, dict):
        return method
    known = {kind: len(names) for kind, names in catalog.classes.items()}
    known.setdefault("action", len({r.action for r in catalog.recordings}))
    return replace(method, classes={kind: known.get(kind, count) for kind, count in classes.items()})


def _with_signals(method: Any, teachers: Teachers, catalog: Path) -> tuple[Any, list[str]]:
    """Without losses on scores and boxes that no teacher gave; the names of those."""
    sampling = method.sampling()
    lost = [task for task in sampling.scores if teachers.classes(task) is None]
    if sampling.boxes and not (catalog / FOLDER / DETECTIONS_FILE).exists():
        lost += ["hand_map", "object_map"]
    if lost:
        method = replace(method, weights=replace(method.weights, **dict.fromkeys(lost, 0.0)))
    found = {f"{task}_classes": teachers.classes(task) for task in method.sampling().scores}
    return replace(method, **{name: n for name, n in found.items() if n and hasattr(method, name)}), lost
