"""From a configuration to the plan of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.feature_plan import FeaturePlan
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.past_plan import PastPlan
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.sequence_plan import SequencePlan
from crossview.datasets.sampling.sequences import Past, Sequences
from crossview.datasets.sampling.spec import Sampling
from crossview.errors import UserError
from crossview.platform.config import Data, Experiment
from crossview.platform.data.decoder import AnyPlan


def load_catalog(data: Data) -> Catalog:
    """The run's own catalog, all splits of its protocol."""
    return Catalog.load(data.catalog, data.root).under(data.protocol)


def load_catalogs(data: Data) -> tuple[Catalog, ...]:
    """The catalogs that a run draws from, each under its protocol: the main one, then those of `data.mix`."""
    further = (Catalog.load(source.catalog).under(source.protocol) for source in data.mix)
    return load_catalog(data), *further


def build_plan(experiment: Experiment[Any], catalogs: Sequence[Catalog], labelled: Catalog | None = None) -> AnyPlan:
    """The plan of a run over `catalogs`, in the order of `load_catalogs`.

    `labelled` numbers the classes where the main catalog is a part of it. Raises ValueError where a catalog cannot give
    what the method asks for.
    """
    data, seed, sampling = experiment.data, experiment.seed, experiment.sampling()
    main, *further = catalogs
    if isinstance(sampling, Sequences | Past):
        return feature_plan(training_part(main, data), sampling, seed, labelled or main, data)
    labels = Labels(labelled or main, sampling.labels, sampling.label_options)
    part = training_part(main, data)
    try:
        plans = [Plan(part, sampling, seed, labels)]
    except UserError as error:
        raise _by_choice(error, main, data, sampling) from error
    for k, (source, catalog) in enumerate(zip(data.mix, further, strict=True)):
        asked = replace(sampling, pairing=source.pairing or sampling.pairing)
        own_seed = int(np.random.SeedSequence((seed, k + 1)).generate_state(1)[0])
        plans.append(Plan(catalog.select(data.split), asked, own_seed))
    if len(plans) == 1:
        return plans[0]
    shares = [source.share for source in data.mix]
    return Mixture(plans, [1 - sum(shares), *shares], seed)


def feature_plan(
    part: Catalog, spec: Sequences | Past, seed: int, labelled: Catalog, data: Data, *, test: bool = False
) -> FeaturePlan:
    """The plan of a trainer that reads features; classes are numbered as in `labelled`, which `part` is a part of."""
    if data.mix:
        raise UserError("data.mix: a downstream trainer draws from one catalog; leave it out")
    if isinstance(spec, Sequences) and spec.kind in labelled.frame_labels:  # whose classes have numbers and no names
        return SequencePlan(part, spec, seed, test=test)
    labels = Labels(labelled, spec.labels, spec.label_options)
    if isinstance(spec, Past):
        return PastPlan(part, spec, seed, labels, test=test)
    return SequencePlan(part, spec, seed, labels, test=test)


def _by_choice(error: UserError, catalog: Catalog, data: Data, sampling: Sampling) -> UserError:
    """The error of a plan, or one that names --data.views and --data.actions where they are the cause of it."""
    chosen = {"views": data.views, "actions": data.actions}
    given = [f"--data.{name} {shlex.join(values)}" for name, values in chosen.items() if values is not None]
    if not given:
        return error
    whole = catalog.select(data.split)
    try:
        Plan(whole, sampling, 0, Labels(catalog, sampling.labels, sampling.label_options))
    except UserError:
        return error
    wanted = ", ".join(f"{name} ({view.perspective})" for name, view in sampling.views.items())
    cameras = ", ".join(sorted({f"{r.view} ({r.perspective})" for r in whole.recordings}))
    return UserError(
        f"{' and '.join(given)}: with these recordings alone nothing can be drawn for the views {wanted} and the "
        f"pairing {sampling.pairing!r}, but it can from all of split {data.split!r}: name more of its cameras, which "
        f"are {cameras}"
        + (f", or more of its {len({r.action for r in whole.recordings})} actions" if data.actions else "")
    )


def plan_for(experiment: Experiment[Any]) -> AnyPlan:
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
                f"data.{option} is {', '.join(wanted)}; split {data.split!r} of catalog {catalog.place} has "
                f"the {option} {', '.join(sorted(known))}: name some of these"
            )
        part = part.keep(lambda r, column=column, kept=frozenset(wanted): getattr(r, column) in kept)  # type: ignore[misc]
    return part
