"""The driver's side of a run in Ray Train: starting its workers, showing their progress, telling how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ray.train import TrainingFailedError

from crossview import storage
from crossview.errors import UserError
from crossview.platform.cluster import resources
from crossview.platform.cluster.connect import connect
from crossview.platform.progress import Progress, console
from crossview.platform.train.batch_layout import worker_counts
from crossview.platform.train.device import wants_gpu
from crossview.platform.train.elastic import fit_elastic, fit_fixed
from crossview.platform.train.notice import Notice
from crossview.platform.train.resolve import ResolvedRun
from crossview.platform.train.status import Status, look_s, shown_on
from crossview.platform.train.verdict import Verdict
from crossview.platform.train.worker_group import Job

POLL_S = 0.5


def fit(run: ResolvedRun, line: Progress, until: int | None, notice: Notice, *, planned: bool) -> None:
    """Run the loop in Ray Train workers while this process shows their progress, to its end or until notice is given.

    A group that ends before, because one of its nodes is about to be taken away, is followed by another. `planned` says
    that the cluster is known to have room: a search's driver sees what its autoscaler may add, a trial's process does
    not.
    """
    connect()
    compute = run.experiment.compute
    gpu = wants_gpu(compute)
    run, actors = _with_decoders(run, gpu=gpu, planned=planned)
    counts = [] if compute.min_workers is None else worker_counts(run.experiment.optim, compute, run.reach())
    if not planned:
        least = replace(compute, min_workers=counts[-1]) if counts else compute
        resources.check_room(least, actors, resources.capacity(), gpu=gpu)
    job = Job(run.for_workers(), until, Verdict(), gpu)
    with _shown(run.folder / "progress.json", line), _passed_on(notice, job.verdict):
        try:
            if compute.min_workers is None:
                fit_fixed(job, notice)
            else:
                fit_elastic(job, counts, notice)
        except TrainingFailedError as error:
            if (reason := job.verdict.read()) is not None:
                raise UserError(reason) from error
            raise ChildProcessError(
                f"{run.folder}: training stopped after {compute.max_failures} restarts (compute.max_failures): "
                f"{error}\nFix the cause, then resume from the latest checkpoint with `crossview resume {run.folder}`"
            ) from error
    if (reason := job.verdict.read()) is not None:
        raise UserError(reason)


def _with_decoders(run: ResolvedRun, *, gpu: bool, planned: bool) -> tuple[ResolvedRun, int]:
    """The run with its number of decode actors per worker, which is printed; in a search it is one unless it is set."""
    data, workers = run.experiment.data, run.experiment.compute.workers
    actors = data.decode_actors or (
        1 if planned else resources.planned_decoders(workers, resources.capacity(), gpu=gpu)
    )
    if not planned:
        where = f"nodes with the resource {resources.DECODE!r}" if resources.decoding_apart() else "the cluster's nodes"
        console.print(f"decoding: {actors} Ray actor{'s' * (actors > 1)} per worker, on {where}", highlight=False)
    experiment = replace(run.experiment, data=replace(data, decode_actors=actors))
    return replace(run, experiment=experiment), actors


@contextlib.contextmanager
def _passed_on(notice: Notice, verdict: Verdict) -> Iterator[None]:
    """Meanwhile ask the workers to leave once notice is given; before they train, nothing is lost by ending at once."""
    stop = threading.Event()

    def pass_on() -> None:
        while not stop.wait(POLL_S):
            if notice.given and verdict.stage() == "starting":
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if notice.given:
                verdict.set_stage("leaving")

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _shown(file: Path, line: Progress) -> Iterator[None]:
    """Meanwhile keep the progress line at what the workers write to `file`."""
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(file, line, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _progress(file: Path) -> str:
    """What progress.json says, nothing where it cannot be read now."""
    try:
        with storage.named(file):
            return file.read_text() if file.exists() else ""
    except OSError:
        return ""


def _watch(file: Path, line: Progress, stop: threading.Event) -> None:
    seen, show = _progress(file), shown_on(line)
    last = False
    while not last:
        last = stop.wait(look_s(file))
        text = _progress(file)
        if text and text != seen:
            seen = text
            show(Status(**json.loads(text)))
