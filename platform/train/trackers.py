"""Where logged metrics go beside the Parquet table: TensorBoard and, if asked for, Weights & Biases or MLflow."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from crossview import storage
from crossview.errors import UserError
from crossview.platform import run_folder
from crossview.platform.config import flat
from crossview.platform.train.tensorboard import TensorBoard

PROJECT = "crossview"
"""Of wandb, and MLflow's experiment, unless the tracker's own environment variable names another."""
CLOSE_S = 60.0
"""Time that a tracker has at the end of training to send what it has not sent yet."""
Row = tuple[int, Mapping[str, float]]


class Tracker(Protocol):
    """Takes the metrics of one run, in the process of rank 0."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics after an optimiser step."""

    def flush(self) -> None:
        """Called before each checkpoint: rows before it are not logged again."""

    def close(self) -> None:
        """Training ends here, for good or until it is resumed."""


def check_tracker(name: str | None) -> None:
    """Raise ValueError if the package of the tracker that a run asks for is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise UserError(
            f"--track {name}: the package {name} is not installed; install it with `pip install 'crossview[{name}]'`, "
            "or leave the option out: RUN/metrics.parquet and TensorBoard have the same metrics"
        )


def open_trackers(run: Path, info: dict[str, Any], start: int, warn: Callable[[str], None]) -> list[Tracker]:
    """TensorBoard from step `start` on, and the tracker that the run asks for; `info` is what run.json holds."""
    found: list[Tracker] = [TensorBoard(run / "tensorboard", start)]
    name = info["experiment"].get("track")
    if name is not None:
        found.append(Background(name, lambda: _SERVICES[name](run, info), warn))
    return found


class Background:
    """A tracker in a thread of its own, so that neither its failures nor a slow network stop training.

    `begin` starts it, and `warn` is told of the first failure.
    """

    def __init__(
        self, name: str, begin: Callable[[], Tracker], warn: Callable[[str], None], close_s: float = CLOSE_S
    ) -> None:
        self._name, self._begin, self._close_s = name, begin, close_s
        self._tell: Callable[[str], None] | None = warn
        self._rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Queue a row; kept for later while the tracker is slow."""
        if self._thread.is_alive():
            self._rows.put((step, dict(values)))

    def flush(self) -> None:
        """Rows are sent as they come."""

    def close(self) -> None:
        """Wait until everything is sent, for a limited time."""
        self._rows.put(None)
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            self._warn(f"did not take all metrics within {self._close_s:g} s of the end, so the last are missing there")

    def _work(self) -> None:
        try:
            tracker = self._begin()
        except Exception as error:
            self._warn(f"could not be started, so this run is not logged there ({_text(error)})")
            return
        while True:
            row = self._rows.get()
            try:
                if row is None:
                    tracker.close()
                    return
                tracker.log(*row)
            except Exception as error:
                self._warn(f"failed, so metrics are missing there ({_text(error)})")
                if row is None:
                    return

    def _warn(self, what: str) -> None:
        tell, self._tell = self._tell, None
        if tell:
            tell(f"--track {self._name}: {self._name} {what}; training goes on")


class Wandb:
    """A run of Weights & Biases, which its environment variables configure, such as WANDB_MODE=offline."""

    def __init__(self, run: Path, info: dict[str, Any]) -> None:
        import wandb

        kept = _kept_id(run, "wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=kept or _keep(run, "wandb", uuid.uuid4().hex[:12]),
            resume="allow",
            dir=run if storage.is_local(run) else storage.cache_folder(),
            config=info,
            allow_val_change=True,
            settings=wandb.Settings(console="off", quiet=True),  # neither takes our output nor adds to it
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row; steps that wandb has already are ignored there."""
        self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Its own process sends."""

    def close(self) -> None:
        """Wait until everything is uploaded, or written in offline mode."""
        self._run.finish()


class Mlflow:
    """A run of MLflow on the server that MLFLOW_TRACKING_URI names, else in `mlflow.db` beside the run's folder."""

    def __init__(self, run: Path, info: dict[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place and not storage.is_local(run):
            raise UserError(
                f"{run} is not on this machine; set MLFLOW_TRACKING_URI to the server that takes its metrics"
            )
        self._client = MlflowClient(place or f"sqlite:///{run.parent / 'mlflow.db'}")
        kept = _kept_id(run, "mlflow")
        if kept is not None:
            self._id = kept
            self._client.update_run(kept, status="RUNNING")
            return
        facts = {name: value for name, value in info.items() if name != "experiment"}
        created = self._client.create_run(self._experiment(), run_name=run.name, tags=_texts(facts))
        self._id = _keep(run, "mlflow", created.info.run_id)
        options = [Param(name, value) for name, value in _texts(info["experiment"]).items()]
        for first in range(0, len(options), 100):  # as many as a request takes
            self._client.log_batch(self._id, params=options[first : first + 100])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row; characters that a metric's name may not have become `_`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(re.sub(r"[^\w. /:-]", "_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def flush(self) -> None:
        """Each row is a request."""

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)


_SERVICES: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow}


def _kept_id(run: Path, tracker: str) -> str | None:
    file = run / "tracker.json"
    found: str | None = json.loads(storage.read_text(file)).get(tracker) if storage.is_file(file) else None
    return found


def _keep(run: Path, tracker: str, name: str) -> str:
    """Note the id under which the run continues there once it is resumed."""
    run_folder.write_json(run / "tracker.json", {tracker: name})
    return name


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values as texts by dotted name, as long as MLflow takes them."""
    return {name: str(value)[:500] for name, value in flat(values)}


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
