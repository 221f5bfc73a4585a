"""Ray Train around the loop: workers, restarts, and the progress line on the driver."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from crossview.datasets.catalog import Catalog
from crossview.datasets.mixture import Mixture
from crossview.datasets.plan import Plan
from crossview.platform import checkpoint, runs
from crossview.platform.config import Compute, Experiment, read
from crossview.platform.loop import Status, Worker, initial_model, plan_for, shares, total_steps, train
from crossview.platform.progress import Progress, console
from crossview.platform.stream import ACTOR_CPUS, TASK_CPUS

WORKER_CPUS = 0.5
"""CPUs that a training worker claims, so that two workers and their decoders fit on two cores."""


def start(run: Path, method: str, experiment: Experiment[Any], *, in_process: bool, until: int | None = None) -> Path:
    """Train a new run in folder `run`; what can be refused is refused before the folder exists.

    `until` ends it after that step, for `resume` to go on.
    """
    experiment = prepared(method, experiment)
    runs.create(run, method, experiment)
    try:
        return resume(run, in_process=in_process, until=until)
    except (ValueError, OSError):
        runs.discard_bare(run)  # a model that cannot be built must not use the name up
        raise


def prepared(method: str, experiment: Experiment[Any]) -> Experiment[Any]:
    """The experiment with absolute paths; raises ValueError for all that can be refused before it runs."""
    begin = checkpoint.resolve(experiment.init_from).resolve() if experiment.init_from else None
    experiment = replace(experiment, data=_absolute(experiment.data), init_from=begin)
    plan = plan_for(experiment)
    shares(experiment.optim, experiment.compute)
    total_steps(experiment.optim, plan.rows_per_epoch)
    _device(experiment.compute)
    # Bad weights are found here, and fetched once rather than by every worker.
    initial_model(method, experiment, console.print)
    return experiment


def resume(run: Path, *, in_process: bool, until: int | None = None) -> Path:
    """Go on with a run from its newest checkpoint to its end, or until after a step."""
    run = runs.require(run).resolve()
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
            _set_threads(experiment.compute)
            write = _status_writer(run)

            def tell(status: Status) -> None:
                line.update(status.step, status.note())
                write(status)

            train(run, Worker(_device(experiment.compute), in_process=True), plan, tell, until)
        else:
            _fit(run, experiment, plan, line, until)
    return run


def _same_recordings(run: Path, plan: Plan | Mixture) -> None:
    """Note in run.json which recordings the plan draws from; later, refuse others: the samples would be others too."""
    facts = [{k: v for k, v in asdict(r).items() if k not in ("path", "kind")} for r in plan.catalog.recordings]
    now = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    info = json.loads((run / "run.json").read_text())
    if "recordings" not in info:
        runs.write_json(run / "run.json", {**info, "recordings": now})
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
    from crossview.platform.features import cache

    begin = experiment.init_from
    weights = checkpoint.latest(run) or (checkpoint.resolve(begin) if begin else None)

    def cached(catalog: Catalog, folder: Path) -> Catalog:
        return cache(
            name,
            experiment.method,
            catalog,
            folder / "features",
            in_process=in_process,
            device=_device(experiment.compute).type,
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
    """Whether its workers train on GPUs."""
    return _device(compute).type == "cuda"


def _set_threads(compute: Compute) -> None:
    torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.workers))


def claims(workers: int, decode_actors: int) -> float:
    """CPUs that a group of training workers and its decoders take."""
    return workers * (WORKER_CPUS + decode_actors * ACTOR_CPUS) + TASK_CPUS


def check_room(compute: Compute, decode_actors: int, resources: dict[str, float], *, gpu: bool) -> None:
    """Refuse what the cluster can never place: Ray would wait for it without a word."""
    each = WORKER_CPUS + decode_actors * ACTOR_CPUS
    cpus, gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0)) if gpu else None
    if claims(compute.workers, decode_actors) > cpus:
        fit = max(0, int((cpus - TASK_CPUS) / each))
        raise ValueError(
            f"compute.workers {compute.workers} with data.decode_actors {decode_actors} each claim "
            f"{compute.workers * each:g} CPUs (and {TASK_CPUS:g} beside them), but the cluster has {cpus:g}: "
            f"{fit} such workers fit; lower either option, or join a larger cluster (RAY_ADDRESS)"
        )
    if gpus is not None and compute.workers > gpus:
        raise ValueError(
            f"compute.workers {compute.workers} need a GPU each, but the cluster has {gpus}; "
            f"pass --compute.workers {max(gpus, 1)} or --compute.device cpu"
        )


def _fit(run: Path, experiment: Experiment[Any], plan: Plan | Mixture, line: Progress, until: int | None) -> None:
    """Run the loop in Ray Train workers while this process shows their progress."""
    from crossview.platform.cluster import connect

    connect()
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from crossview.platform.verdict import Verdict

    compute = experiment.compute
    gpu = wants_gpu(compute)
    check_room(compute, experiment.data.decode_actors, ray.cluster_resources(), gpu=gpu)
    verdict = Verdict()
    trainer = TorchTrainer(
        _worker_loop,
        train_loop_config={"run": str(run), "plan": plan, "verdict": verdict, "until": until},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": WORKER_CPUS, **({"GPU": 1} if gpu else {})},
        ),
        run_config=RunConfig(
            # Ray silently resumes a name it has seen. Our own checkpoints say where to go on: a new name each time.
            name=f"ray-{time.time_ns()}",
            storage_path=str(run / "ray"),
            failure_config=FailureConfig(max_failures=compute.max_failures),
        ),
    )
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(run / "progress.json", line, stop), daemon=True)
    watcher.start()
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if (reason := verdict.read()) is not None:
            raise ValueError(reason) from error
        raise ChildProcessError(
            f"{run}: training stopped after {compute.max_failures} restarts (compute.max_failures): {error}\n"
            f"Mend the cause; from its newest checkpoint it goes on with `crossview resume {run}`"
        ) from error
    finally:
        stop.set()
        watcher.join()
    if (reason := verdict.read()) is not None:
        raise ValueError(reason)


def _worker_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker executes."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    run = Path(config["run"])
    _, experiment = read(run)
    _set_threads(experiment.compute)
    context = ray_train.get_context()
    worker = Worker(get_device(), context.get_world_rank(), context.get_world_size())
    verdict = config["verdict"]
    if verdict.read() is not None:  # the group was restarted after an error that a restart cannot mend
        return
    try:
        train(run, worker, config["plan"], _status_writer(run), config["until"])
    except (ValueError, OSError) as error:
        verdict.give(str(error))
        if worker.world > 1:  # the other ranks wait for this one: end the group
            raise


def _status_writer(run: Path) -> Callable[[Status], None]:
    """Keeps progress.json fresh for whoever watches the run, a few times a second at most."""
    last = 0.0

    def write(status: Status) -> None:
        nonlocal last
        if time.monotonic() - last > 0.3 or status.step == status.total:
            last = time.monotonic()
            with contextlib.suppress(OSError):  # it only informs; a full disk is told of where training must write
                runs.write_json(run / "progress.json", asdict(status))

    return write


def _watch(file: Path, line: Progress, stop: threading.Event) -> None:
    seen = file.read_text() if file.exists() else ""
    while not stop.wait(0.3):
        text = file.read_text() if file.exists() else ""
        if text and text != seen:
            seen = text
            status = Status(**json.loads(text))
            line.update(status.step, status.note())
    text = file.read_text() if file.exists() else ""
    if text and text != seen:
        status = Status(**json.loads(text))
        line.update(status.step, status.note())
