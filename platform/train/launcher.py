"""A run from its start or its newest checkpoint: what is refused beforehand, and where the loop then runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.platform import checkpoint, run_folder
from crossview.platform.cluster.resources import joined
from crossview.platform.config import Experiment, read
from crossview.platform.data.plan_builder import plan_for
from crossview.platform.progress import Progress, console
from crossview.platform.train.batch_layout import shares
from crossview.platform.train.device import device_of, set_threads, wants_gpu
from crossview.platform.train.loop import train
from crossview.platform.train.lr_schedule import total_steps
from crossview.platform.train.state import Worker, initial_model
from crossview.platform.train.status import Status, status_writer


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
        device_of(experiment.compute)
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

            train(run, Worker(device_of(experiment.compute), in_process=True), plan, tell, until)
        else:
            from crossview.platform.train.driver import fit

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
    device = device_of(compute).type if in_process else "cuda" if wants_gpu(compute) else "cpu"

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
