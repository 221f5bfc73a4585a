"""From a configuration to the plan of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.errors import UserError
from crossview.platform.config import Data, Experiment


def load_catalog(data: Data) -> Catalog:
    """The run's own catalog, all splits of its protocol."""
    return Catalog.load(data.catalog, data.root).under(data.protocol)


def load_catalogs(data: Data) -> tuple[Catalog, ...]:
    """The catalogs that a run draws from, each under its protocol: the main one, then those of `data.mix`."""
    further = (Catalog.load(source.catalog).under(source.protocol) for source in data.mix)
    return load_catalog(data), *further


def build_plan(
    experiment: Experiment[Any], catalogs: Sequence[Catalog], labelled: Catalog | None = None
) -> Plan | Mixture:
    """The plan of a run over `catalogs`, in the order of `load_catalogs`.

    `labelled` numbers the classes where the main catalog is a part of it. Raises ValueError where a catalog cannot give
    what the method asks for.
    """
    data, seed, sampling = experiment.data, experiment.seed, experiment.method.sampling()
    main, *further = catalogs
    plans = [Plan(training_part(main, data), sampling, seed, Labels(labelled or main, sampling.labels))]
    for k, (source, catalog) in enumerate(zip(data.mix, further, strict=True)):
        asked = replace(sampling, pairing=source.pairing or sampling.pairing)
        own_seed = int(np.random.SeedSequence((seed, k + 1)).generate_state(1)[0])
        plans.append(Plan(catalog.select(data.split), asked, own_seed))
    if len(plans) == 1:
        return plans[0]
    shares = [source.share for source in data.mix]
    return Mixture(plans, [1 - sum(shares), *shares], seed)


def plan_for(experiment: Experiment[Any]) -> Plan | Mixture:
    """`build_plan` over the catalogs that the experiment names."""
    return build_plan(experiment, load_catalogs(experiment.data))


def training_part(catalog: Catalog, data: Data) -> Catalog:
    """The recordings of the training split, cameras and actions; raises ValueError for one that is not there."""
    part = catalog.select(data.split)
    for option, column, wanted in (("views", "view", data.views), ("actions", "action", data.actions)):
        if wanted is None:
            continue
        known = {str(getattr(r, column)) for r in part.recordings}
        if not set(wanted) <= known:
            raise UserError(
                f"data.{option} is {', '.join(wanted)}; split {data.split!r} of catalog {catalog.root} has "
                f"the {option} {', '.join(sorted(known))}: name some of these"
            )
        part = part.keep(lambda r, column=column, kept=frozenset(wanted): getattr(r, column) in kept)  # type: ignore[misc]
    return part
