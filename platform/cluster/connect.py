"""Connecting to Ray, once, with the settings that Crossview needs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

# Ray's uv hook would rebuild the environment in every worker; the project is installed where its workers run.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # report() blocks up to this long
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Ray Tune's tables; `verbose=0` silences the older output alone
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # a search keeps its own journal
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that fails has no objective
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from pyarrow.fs import FSSpecHandler, PyFileSystem

from crossview import storage

OBJECT_STORE_BYTES = 2 * 1024**3
STARTS = 3
"""Ray gives its own processes 15 s to come up; what they import is in memory at the next try."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS or a submitted job names, else start one on this machine.

    Afterwards the terminal shows Ray's warnings alone; its log files keep everything.
    """
    _quieten()
    if ray.is_initialized():
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
        return
    start_here(object_store_memory=OBJECT_STORE_BYTES)


def start_here(**options: Any) -> None:
    """Start Ray on this machine; raises OSError where it does not come up in STARTS tries, as on an overloaded one."""
    for start in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",  # else Ray joins whatever cluster was last started on this machine
                include_dashboard=False,
                logging_level=logging.WARNING,
                log_to_driver=False,
                **options,
            )
        except Exception as error:
            if type(error) not in (Exception, RuntimeError):  # what Ray raises where its processes start too late
                raise
            ray.shutdown()
            if start < STARTS:
                continue
            raise OSError(
                f"Ray did not start on this machine ({str(error).strip().splitlines()[0]}); if it is overloaded, end "
                "other processes and try again, or pass --debug to work without Ray where the command has it"
            ) from error
        return


def _quieten() -> None:
    """Keep Ray's own progress output off the terminal, which shows ours."""
    import ray.data  # its import sets its loggers up

    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.WARNING)
    # These warn of what is wanted: no bars of Ray's own, a token that shuts others out of the cluster, and a journal of
    # a search in place of Ray's.
    quiet = ("ray.data._internal.progress", "ray._private.authentication", "ray.tune.analysis.experiment_analysis")
    for name in quiet:
        logging.getLogger(name).setLevel(logging.ERROR)


def ray_storage(folder: Path) -> dict[str, Any]:
    """Where Ray keeps its own few files of a run or a search: beside it, which all nodes see."""
    if storage.is_local(folder):
        return {"storage_path": str(folder)}
    path, filesystem = storage.filesystem(folder)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem))}
