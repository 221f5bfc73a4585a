"""Which cameras a run was trained on, by its own configuration and by those of the weights that it began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.sequences import Past, Sequences
from crossview.datasets.sampling.spec import Sampling
from crossview.errors import UserError
from crossview.platform import checkpoint, config
from crossview.platform.config import Experiment
from crossview.platform.data.plan_builder import load_catalogs

Cameras = dict[str, list[str]]
"""Names by dataset: those of one dataset are no cameras of another."""


def trained_on(experiment: Experiment[Any], catalog: Catalog) -> frozenset[str]:
    """Cameras of a run's main catalog that it trains on: of its split, views and actions, and as its samples ask."""
    return frozenset(r.view for r in _drawn(experiment, catalog))


def seen_by(run: Path) -> Cameras | None:
    """Cameras that the weights of a run or checkpoint have been trained on; None if a catalog or a run is gone."""
    try:
        _, experiment = config.read(checkpoint.resolve(run))
        main, *further = load_catalogs(experiment.data)
        drawn = _drawn(experiment, main)
        for catalog in further:
            drawn += catalog.select(experiment.data.split).recordings
    except (UserError, OSError):
        return None
    before = {} if experiment.init_from is None else seen_by(experiment.init_from)
    if before is None:
        return None
    found = {dataset: set(cameras) for dataset, cameras in before.items()}
    for r in drawn:
        found.setdefault(r.dataset, set()).add(r.view)
    return {dataset: sorted(cameras) for dataset, cameras in sorted(found.items())}


def pretraining(experiment: Experiment[Any], tested: Catalog) -> dict[str, Any]:
    """What `PredictionPart` says of a run's encoder, or of the weights that it began with."""
    encoder, begin = experiment.encoder, experiment.init_from
    found = encoder.cameras if encoder.run is not None else None if begin is None else seen_by(begin)
    names = None if found is None else [found.get(r.dataset, []) for r in tested.recordings]
    return {
        "encoder_seen": None if names is None else frozenset(name for of in names for name in of),
        "encoded": encoder.run is not None or begin is not None,
    }


def _drawn(experiment: Experiment[Any], catalog: Catalog) -> list[Recording]:
    sides, data = _perspectives(experiment.sampling()), experiment.data
    return [
        r
        for r in catalog.select(data.split).recordings
        if sides & {"any", r.perspective}
        and (data.views is None or r.view in data.views)
        and (data.actions is None or r.action in data.actions)
    ]


def _perspectives(sampling: Sampling | Sequences | Past) -> set[str]:
    if isinstance(sampling, Sampling):
        return {view.perspective for view in sampling.views.values()}
    return set(sampling.views) if isinstance(sampling, Sequences) else {"any"}
