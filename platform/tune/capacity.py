"""What trials claim, and how many fit at a time: computed and printed before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossview.errors import UserError
from crossview.platform.cluster.resources import check_room, claims, total
from crossview.platform.tune.spec import Search

SPARE_CPUS = 0.01
"""What a trial of several workers claims itself, while its group trains."""


@dataclass(frozen=True)
class Room:
    """How the cluster is shared."""

    cpus: float
    """That one trial claims, its training workers and decoders included."""
    gpus: int
    """Likewise."""
    at_a_time: int
    cluster: str
    """The resources of the cluster, as text."""

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"{self.at_a_time} at a time, each with {self.cpus:g} CPU{'s' if self.cpus != 1 else ''}{gpus}"


def plan(search: Search, nodes: Sequence[Mapping[str, float]], *, gpu: bool) -> Room:
    """How a search shares the nodes of a cluster; raises ValueError, saying what would fit, if no trial does.

    A trial of one process must fit on one node; a group of workers is spread.
    """
    compute, actors = search.experiment.compute, search.experiment.data.actors
    many = compute.workers > 1
    cpus = SPARE_CPUS + claims(compute.workers, actors) if many else float(search.threads)
    gpus = compute.workers if gpu else 0
    resources = total(nodes)
    have, have_gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0))
    cluster = f"{have:g} CPUs and {have_gpus} GPUs"
    places = [resources] if many else nodes
    fit = sum(_fitting(place, cpus, gpus) for place in places)
    if fit < 1:
        largest = int(max(place.get("CPU", 0.0) for place in places))
        less = (
            f"compute.workers {compute.workers} with data.decode_actors {actors}: lower either"
            if many
            else f"compute.threads {search.threads}, and the largest node has {largest} CPUs: pass --compute.threads "
            f"{max(1, largest)} or fewer"
        )
        raise UserError(
            f"one trial claims {cpus:g} CPUs and {gpus} GPUs, but the cluster has {cluster}; it claims as much because "
            f"of {less}, or join a larger cluster (RAY_ADDRESS)"
        )
    if many:
        check_room(compute, actors, resources, gpu=gpu)
    if search.jobs is not None and search.jobs > fit:
        raise UserError(
            f"--jobs is {search.jobs}, but only {fit} trials of {cpus:g} CPUs and {gpus} GPUs fit on {cluster} at a "
            f"time; pass --jobs {fit} or leave it out"
        )
    at_a_time = min(fit, search.jobs or fit, search.count)
    return Room(cpus, gpus, at_a_time, cluster)


def _fitting(place: Mapping[str, float], cpus: float, gpus: int) -> int:
    fit = math.floor(place.get("CPU", 0.0) / cpus + 1e-9)
    return min(fit, int(place.get("GPU", 0.0)) // gpus) if gpus else fit


def claimed_by_trial(search: Search, room: Room) -> dict[str, float]:
    """Resources of the trial's own process; a group of workers claims its own."""
    if search.experiment.compute.workers > 1:
        return {"CPU": SPARE_CPUS}
    return {"CPU": room.cpus, **({"GPU": room.gpus} if room.gpus else {})}
