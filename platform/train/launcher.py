"""`crossview train` and `crossview resume`: a run is resolved once, and trained in this process or by Ray workers."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.downstream.encoder import ClipEncoder
from crossview.platform import checkpoint, run_folder
from crossview.platform.config import Encoder, Experiment, is_trainer
from crossview.platform.evaluate.opened import control_folder
from crossview.platform.evaluate.runner import evaluate, show
from crossview.platform.evaluate.tasks import options_from
from crossview.platform.progress import Progress, console, warn
from crossview.platform.train.device import device_of, set_threads, wants_gpu, within_memory
from crossview.platform.train.frozen_embeddings import discard_embeddings, on_embeddings
from crossview.platform.train.loop import train
from crossview.platform.train.notice import TERMINATED, Notice, on_sigterm
from crossview.platform.train.resolve import ResolvedRun, check_new, frozen_part, saved
from crossview.platform.train.settings import Validation
from crossview.platform.train.state import Worker
from crossview.platform.train.status import Status, shown_on, status_writer
from crossview.platform.train.validation import check, is_missing


def start(
    folder: Path,
    method: str,
    experiment: Experiment[Any],
    *,
    in_process: bool,
    validation: Validation | None = None,
    until: int | None = None,
    planned: bool = False,
    command: str | None = None,
    controls: bool = False,
) -> Path:
    """Train a new run in `folder`; what can be refused is refused before the folder exists.

    `validation` names the tasks that score it while it trains. `until` ends it after that step, for `resume` to
    continue; for `planned` see `driver.fit`, for `command` `run_folder.create`. With `controls` what a trainer's result
    is compared with is trained after it, in `controls/` of its folder. SIGTERM ends training with a checkpoint
    of the current step, and then the process (SystemExit).
    """
    run = check_new(method, experiment, console.print)
    scored = (validation or Validation()).saved(method, experiment.every.evaluate)
    check(run, scored)
    more = {"controls": _possible_controls(run)} if controls else {}
    info = run_folder.create(folder, method, run.experiment, scored, command, more)
    run = replace(run, folder=folder.resolve(), info=info)
    try:
        _train(run, in_process, until, planned)
    except Exception:
        with contextlib.suppress(Exception):  # what went wrong first is what counts
            run_folder.discard_bare(folder)  # a model that cannot be built must not use the name up
        raise
    if until is None:
        _train_controls(run, in_process)
    return run.folder


def resume(folder: Path, *, in_process: bool, until: int | None = None, planned: bool = False) -> Path:
    """Resume a run from its latest checkpoint and train it to its end, or until after a step."""
    run = saved(folder.resolve())
    check(run, run.info.get("validation"))
    _train(run, in_process, until, planned)
    if until is None:
        _train_controls(run, in_process)
    return run.folder


def trains_here(method: str, experiment: Experiment[Any]) -> bool:
    """Whether a run is light enough for the command's own process, where it is not told otherwise."""
    return is_trainer(method) and experiment.method.light and experiment.compute.workers == 1


def controls_of(method: str, experiment: Experiment[Any]) -> dict[str, Experiment[Any]]:
    """What is trained to compare a trainer's run with, by name; none for a method, whose baselines need no training."""
    if not is_trainer(method):
        return {}
    encoder = experiment.encoder
    found = experiment.method.controls(encoder.weights if encoder.run else None)
    return {
        name: replace(
            experiment,
            method=control.config,
            encoder=Encoder() if control.weights is None else replace(encoder, weights=control.weights),
        )
        for name, control in found.items()
    }


def _possible_controls(run: ResolvedRun) -> list[str]:
    """Names of the controls of a new run, without those on an input that its encoder cannot embed."""
    assert run.initial is not None
    encoder = getattr(run.initial.model, "encoder", None)
    lacks_input = isinstance(encoder, ClipEncoder) and not encoder.has_input
    found = controls_of(run.method, run.experiment)
    return sorted(name for name, made in found.items() if not (lacks_input and made.encoder.weights == "input"))


def _train_controls(run: ResolvedRun, in_process: bool) -> None:
    """Train the controls that run.json names to their end, and score the run beside those that are new."""
    before = {name: checkpoint.latest(control_folder(run.folder, name)) for name in run.info.get("controls", ())}
    wanted = controls_of(run.method, run.experiment)
    for name in before:
        folder = control_folder(run.folder, name)
        if (folder / "run.json").exists():
            resume(folder, in_process=in_process)
        else:
            every = replace(wanted[name].every, evaluate=None, best=None)
            experiment = replace(wanted[name], every=every, init_from=None)
            command = run_folder.training_command(folder, run.method)
            start(folder, run.method, experiment, in_process=in_process, command=command)
    trained = {name: checkpoint.latest(control_folder(run.folder, name)) for name in before} != before
    if trained and "validation" in run.info:
        scored = run.info["validation"]
        evaluate(
            run.folder,
            split=scored["split"],
            fit_split=scored["fit_split"],
            tasks=scored["tasks"],
            options={name: options_from(name, of) for name, of in scored["options"].items()},
            in_process=True,
        )


def _train(run: ResolvedRun, in_process: bool, until: int | None, planned: bool) -> Path:
    if run.experiment.data.cache_features:
        run = _on_features(run, in_process)
    run = run.with_recordings_noted()
    total = run.total_steps
    begun = checkpoint.latest(run.folder)
    done = int(begun.name.removeprefix("step-")) if begun else 0
    if done >= min(total, until or total) and not is_missing(run, done):
        console.print(f"{run.folder}: all {min(total, until or total)} steps are done already")
        return run.folder
    run = on_embeddings(run, in_process=in_process)
    with on_sigterm() as notice, Progress(f"training {run.method}", total, "steps", done) as line:
        if in_process:
            _in_this_process(run, line, until, notice)
        else:
            from crossview.platform.train.driver import fit

            fit(run, line, until, notice, planned=planned)
    if notice.given:
        console.print(
            f"{run.folder}: ended by SIGTERM; the latest checkpoint is {checkpoint.latest(run.folder)}. Resume with "
            f"`crossview resume {run.folder}`"
        )
        raise SystemExit(TERMINATED)
    if until is None or until >= total:
        discard_embeddings(run)
    if "validation" in run.info and until is None:
        validation = run.info["validation"]
        show(run.folder, validation["split"], next(iter(run.catalogs[0].protocols)), validation["tasks"])
    return run.folder


def _in_this_process(run: ResolvedRun, line: Progress, until: int | None, notice: Notice) -> None:
    compute, write, show = run.experiment.compute, status_writer(run.folder), shown_on(line)
    if compute.workers > 1:
        warn([f"this process alone trains, in place of the {compute.workers} of compute.workers; leave out --debug"])
    set_threads(compute)

    def tell(status: Status) -> None:
        show(status)
        write(status)

    with within_memory(run.folder, run.method, compute):
        train(run, Worker(device_of(compute), in_process=True), tell, until, leave=lambda: notice.given)


def _on_features(run: ResolvedRun, in_process: bool) -> ResolvedRun:
    """The run on features of the frozen part that it trains with, computed where it trains."""
    from crossview.platform.data.feature_cache import cache

    experiment, compute = run.experiment, run.experiment.compute
    name, config, weights = frozen_part(run.method, experiment)
    if not is_trainer(run.method):
        weights = checkpoint.latest(run.folder) or weights
    device = device_of(compute).type if in_process else "cuda" if wants_gpu(compute) else "cpu"

    def cached(catalog: Catalog, folder: Path) -> Catalog:
        return cache(
            name,
            config,
            catalog,
            folder / "features",
            in_process=in_process,
            device=device,
            actors=compute.workers,
            data=experiment.data,
            weights=weights,
        )

    return run.on_features(cached)
