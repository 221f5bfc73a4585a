"""A run from its start or its newest checkpoint: what is refused beforehand, and where the loop then runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.platform import checkpoint, run_folder
from crossview.platform.cluster.resources import capacity, joined
from crossview.platform.config import Compute, Experiment, read
from crossview.platform.progress import Progress, console
from crossview.platform.train.loop import Status, Worker, initial_model, plan_for, shares, total_steps, train


def start(
    run: Path,
    method: str,
    experiment: Experiment[Any],
    *,
    in_process: bool,
    until: int | None = None,
    planned: bool = False,
) -> Path:
    """Train a new run in folder `run`; what can be refused is refused before the folder exists.

    `until` ends it after that step, for `resume` to go on; for `planned` see `group.fit`.
    """
    experiment = prepared(method, experiment)
    run_folder.create(run, method, experiment)
    try:
        return resume(run, in_process=in_process, until=until, planned=planned)
    except (ValueError, OSError):
        with contextlib.suppress(Exception):  # what went wrong first is what counts
            run_folder.discard_bare(run)  # a model that cannot be built must not use the name up
        raise


def prepared(method: str, experiment: Experiment[Any]) -> Experiment[Any]:
    """The experiment with absolute paths; raises ValueError for all that can be refused before it runs."""
    begin = checkpoint.resolve(experiment.init_from).resolve() if experiment.init_from else None
    experiment = replace(experiment, data=_absolute(experiment.data), init_from=begin)
    plan = plan_for(experiment)
    shares(experiment.optim, experiment.compute)
    total_steps(experiment.optim, plan.rows_per_epoch)
    if not joined():  # else its workers compute elsewhere
        _device(experiment.compute)
    # Bad weights are found here, and fetched once rather than by every worker.
    initial_model(method, experiment, console.print)
    return experiment


def resume(run: Path, *, in_process: bool, until: int | None = None, planned: bool = False) -> Path:
    """Go on with a run from its newest checkpoint to its end, or until after a step."""
    run = run_folder.require(run).resolve()
    name, experiment = read(run)
    plan = plan_for(experiment)
    if experiment.data.cache_features:
        plan = _on_features(run, name, experiment, in_process)
    _same_recordings(run, plan)
    total = total_steps(experiment.optim, plan.rows_per_epoch)
    begun = checkpoint.latest(run)
    done = int(begun.name.removeprefix("step-")) if begun else 0
    if done >= min(total, until or total):
        console.print(f"{run}: all {min(total, until or total)} steps are done already")
        return run
    with Progress(f"training {name}", total, "steps", done) as line:
        if in_process:
            set_threads(experiment.compute)
            write = status_writer(run)

            def tell(status: Status) -> None:
                line.update(status.step, status.note())
                write(status)

            train(run, Worker(_device(experiment.compute), in_process=True), plan, tell, until)
        else:
            from crossview.platform.train.worker_group import fit

            fit(run, experiment, plan, line, until, planned=planned)
    return run


def _same_recordings(run: Path, plan: Plan | Mixture) -> None:
    """Note in run.json which recordings the plan draws from; later, refuse others: the samples would be others too."""
    facts = [{k: v for k, v in asdict(r).items() if k not in ("path", "kind")} for r in plan.catalog.recordings]
    now = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    info = json.loads((run / "run.json").read_text())
    if "recordings" not in info:
        run_folder.write_json(run / "run.json", {**info, "recordings": now})
    elif info["recordings"] != now:
        raise ValueError(
            f"{run}: the recordings that it would train on now ({len(facts)}) are not those that it began with: the "
            "catalog was made again, or files of it were mended or broken in between. Restore them, or start a new "
            f"run from these weights with `crossview train METHOD --from {run} --init-from {run}`"
        )


def _absolute(data: Any) -> Any:
    """Workers run elsewhere: a relative path would mean another folder there."""
    mix = tuple(replace(source, catalog=source.catalog.resolve()) for source in data.mix)
    return replace(data, catalog=data.catalog.resolve(), root=data.root.resolve() if data.root else None, mix=mix)


def _on_features(run: Path, name: str, experiment: Experiment[Any], in_process: bool) -> Plan | Mixture:
    """The plan on features of the frozen part that the run trains with, computed where the run computes."""
    from crossview.platform.data.feature_cache import cache

    compute = experiment.compute
    device = _device(compute).type if in_process else "cuda" if wants_gpu(compute) else "cpu"

    begin = experiment.init_from
    weights = checkpoint.latest(run) or (checkpoint.resolve(begin) if begin else None)

    def cached(catalog: Catalog, folder: Path) -> Catalog:
        return cache(
            name,
            experiment.method,
            catalog,
            folder / "features",
            in_process=in_process,
            device=device,
            actors=experiment.compute.workers,
            data=experiment.data,
            weights=weights,
        )

    return plan_for(experiment, cached)


def _device(compute: Compute) -> torch.device:
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but torch sees no GPU here; pass --compute.device cpu or auto")
    cuda = compute.device != "cpu" and torch.cuda.is_available()
    if compute.precision == "float16" and not cuda:
        raise ValueError("compute.precision float16 needs a GPU; pass --compute.precision bfloat16 or float32")
    return torch.device("cuda" if cuda else "cpu")


def wants_gpu(compute: Compute) -> bool:
    """Whether its workers train on GPUs: this machine's, or those of the cluster that is joined and may grow."""
    if not joined():
        return _device(compute).type == "cuda"
    from crossview.platform.cluster.connect import connect

    connect()
    gpu = compute.device == "cuda" or (compute.device == "auto" and capacity().get("GPU", 0) > 0)
    if compute.precision == "float16" and not gpu:
        raise ValueError(
            "compute.precision float16 needs GPUs, but the cluster has none; pass --compute.precision bfloat16"
        )
    return gpu


def set_threads(compute: Compute) -> None:
    """Give torch in this process its share of the machine's cores."""
    torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.workers))


def look_s(run: Path) -> float:
    """Seconds between two looks at progress.json: a few a second, but requests to an object store cost money."""
    return 0.3 if storage.is_local(run) else 10.0


def status_writer(run: Path) -> Callable[[Status], None]:
    """Keeps progress.json fresh for whoever watches the run."""
    last, pause_s = 0.0, look_s(run)

    def write(status: Status) -> None:
        nonlocal last
        if time.monotonic() - last > pause_s or status.step == status.total:
            last = time.monotonic()
            with contextlib.suppress(OSError):  # it only informs; a full disk is told of where training must write
                run_folder.write_json(run / "progress.json", asdict(status), patience_s=0)

    return write
