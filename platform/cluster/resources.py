"""What a cluster has, what it may grow to, what training claims of it, and on which of its nodes decoding runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from crossview.errors import UserError
from crossview.platform.config import Compute

WORKER_CPUS = 0.5
"""CPUs that a training worker claims, so that two workers and their decoders fit on two cores."""
ACTOR_CPUS = 0.25
"""CPUs that a decode actor claims: on two cores the trainers and their decoders must all be placed."""
MOST_DECODERS = 8
"""Decode actors per training worker that are planned at most."""
TASK_CPUS = 0.05
"""CPUs that a task claims which cuts positions into blocks."""
DECODE = "decode"
"""Resource that a cluster's CPU-only nodes declare (`resources: {"decode": 1000}`): decoding runs on them alone, and an
autoscaler starts them for it."""
DECODE_CPUS = "decode CPU"
"""Key of `capacity`: CPUs of the nodes that declare DECODE."""
AUTOSCALING = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's description on the head node, on which submitted jobs run."""


def claims(workers: int, decode_actors: int) -> float:
    """CPUs that a group of training workers and its decoders take."""
    return workers * (WORKER_CPUS + decode_actors * ACTOR_CPUS) + TASK_CPUS


def per_worker(*, gpu: bool) -> dict[str, float]:
    """Resources that one training worker claims."""
    return {"CPU": WORKER_CPUS, **({"GPU": 1} if gpu else {})}


def joined() -> bool:
    """Whether workers may compute on other machines: RAY_ADDRESS names a cluster, or this process is a trial on one."""
    return "RAY_ADDRESS" in os.environ or "RAY_RAYLET_PID" in os.environ


def capacity() -> dict[str, float]:
    """Resources of the connected cluster by name, counting what its autoscaler may still add."""
    have, most = total(_alive()), total(_allowed())
    return {name: max(have.get(name, 0.0), most.get(name, 0.0)) for name in have | most}


def nodes() -> list[Mapping[str, float]]:
    """Resources of each node that is up, or of each that the cluster's description allows where these have more."""
    return max(_alive(), _allowed(), key=lambda found: total(found).get("CPU", 0.0))


def free() -> dict[str, float]:
    """Resources that nothing claims now, by name; of DECODE_CPUS all that there are and may be."""
    import ray

    return {**ray.available_resources(), **{k: v for k, v in capacity().items() if k == DECODE_CPUS}}


def total(nodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sums by name over nodes."""
    sums: dict[str, float] = {}
    for node in nodes:
        more = {DECODE_CPUS: node.get("CPU", 0.0)} if node.get(DECODE) else {}
        for name, amount in {**node, **more}.items():
            sums[name] = sums.get(name, 0.0) + amount
    return sums


def _alive() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _allowed() -> list[Mapping[str, float]]:
    """What `ray up` described, for whoever has joined that cluster; not for one of this process's own."""
    return _most(AUTOSCALING.expanduser()) if joined() else []


def _most(file: Path) -> list[Mapping[str, float]]:
    """Nodes that a cluster's description allows at most, by their resources; none where this is not its head node."""
    if not file.is_file():
        return []
    described = yaml.safe_load(file.read_text())
    nodes: list[Mapping[str, float]] = []
    for name, kind in described.get("available_node_types", {}).items():
        head = name == described.get("head_node_type")
        limit = described.get("max_workers", 0)
        count = min(kind.get("max_workers", 0 if head else limit), limit) + head
        nodes += [kind.get("resources", {})] * count
    return nodes


def check_room(compute: Compute, decode_actors: int, resources: Mapping[str, float], *, gpu: bool) -> None:
    """Refuse what the cluster can never place, as `capacity` says: Ray would wait for it without a word."""
    workers = compute.min_workers or compute.workers
    each = WORKER_CPUS + decode_actors * ACTOR_CPUS
    cpus, gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0)) if gpu else None
    option = "compute.min_workers" if compute.min_workers else "compute.workers"
    asked = f"{option} {workers} with data.decode_actors {decode_actors} each"
    if claims(workers, decode_actors) > cpus:
        fit = max(0, int((cpus - TASK_CPUS) / each))
        raise UserError(
            f"{asked} claim {workers * each:g} CPUs (and {TASK_CPUS:g} beside them), but the cluster has {cpus:g}: "
            f"{fit} such workers fit; lower either option, or join a larger cluster (RAY_ADDRESS)"
        )
    decoding = workers * decode_actors * ACTOR_CPUS
    if decoding > resources.get(DECODE_CPUS, decoding):
        raise UserError(
            f"{asked} claim {decoding:g} CPUs for decoding, but the nodes that declare the resource {DECODE!r} have "
            f"{resources[DECODE_CPUS]:g}; lower either option, or allow more such nodes"
        )
    if gpus is not None and workers > gpus:
        raise UserError(
            f"{option} {workers} need a GPU each, but the cluster has {gpus}; "
            f"pass --{option} {max(gpus, 1)} or --compute.device cpu"
        )


def planned_decoders(workers: int, resources: Mapping[str, float], *, gpu: bool) -> int:
    """Decode actors per training worker: one for each CPU that training leaves, up to `MOST_DECODERS`.

    All CPUs of nodes that declare DECODE, else all but one per worker. On a CPU a worker's own threads take the rest.
    """
    beside = resources.get("CPU", 0.0) - workers if gpu else 0.0
    left = resources.get(DECODE_CPUS, beside)
    return max(1, min(MOST_DECODERS, int(left / workers)))


def fitting(counts: Iterable[int], decode_actors: int, resources: Mapping[str, float], *, gpu: bool) -> int:
    """The first of `counts` workers that these resources can place, or 0."""
    for workers in counts:
        try:
            check_room(Compute(workers=workers), decode_actors, resources, gpu=gpu)
        except UserError:
            continue
        return workers
    return 0


def decoding_apart() -> bool:
    """Whether some nodes of the connected cluster, there or still to be started, are meant for decoding."""
    return DECODE_CPUS in capacity()


def decode_options(*, apart: bool) -> dict[str, Any]:
    """Where Ray places decode actors: on nodes that declare DECODE if the cluster has such (`apart`).

    Else on those without a GPU if others have one, as long as they are up; else anywhere.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if apart or any(node["Resources"].get(DECODE) for node in nodes):
        return {"resources": {DECODE: 0.001}}
    plain = [n for n in nodes if not n["Resources"].get("GPU") and n["Resources"].get("CPU", 0.0) >= ACTOR_CPUS]
    if not plain or not any(node["Resources"].get("GPU") for node in nodes):
        return {}
    ids = ",".join(node["NodeID"] for node in plain)
    return {"label_selector": {"ray.io/node-id": f"in({ids})"}, "fallback_strategy": [{"label_selector": {}}]}
