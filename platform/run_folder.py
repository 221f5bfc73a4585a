"""Run folders: a name is used once, every write is atomic, and run.json says what was run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossview import storage
from crossview.errors import UserError
from crossview.platform.config import Experiment, to_dict

PACKAGES = ("crossview", "torch", "ray", "timm", "av", "decord", "numpy", "scikit-learn")


def write_json(path: Path, values: Any, *, patience_s: float | None = None) -> None:
    """Write the file whole or not at all, as `storage.write` does."""
    storage.write_text(path, json.dumps(values, indent=2) + "\n", patience_s=patience_s)


def create(
    run: Path,
    method: str,
    experiment: Experiment[Any],
    validation: dict[str, Any] | None = None,
    command: str | None = None,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the folder of a new run and write its run.json, returned here; raises ValueError where the name is taken.

    `command` makes the run; None is this process's own command line. `more` is noted too.
    """
    try:
        storage.make_folder(run, exist_ok=False)
    except FileExistsError:
        raise UserError(
            f"--name {run.name}: {run} exists already; a name is used once. Choose another, or resume that run with "
            f"`crossview resume {run}`"
        ) from None
    scored = {} if validation is None else {"validation": validation}
    info = {"experiment": to_dict(method, experiment), **scored, **(more or {}), **record(command)}
    write_json(run / "run.json", info, patience_s=0)
    return info


def record(command: str | None = None) -> dict[str, Any]:
    """The command, by default the one that was typed, when, and with which code."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"command": command or shlex.join(["crossview", *sys.argv[1:]]), "created": created, **provenance()}


def training_command(run: Path, method: str) -> str:
    """What trains a run of a study or search again; it is made in a process of Ray's, whose arguments are Ray's own."""
    return shlex.join(["crossview", "train", method, "--from", str(run)])


def discard_bare(run: Path) -> None:
    """Remove a run's folder where nothing has come of the run yet but the record of its start."""
    if {file.name for file in run.iterdir()} <= {"run.json", "ray"}:
        storage.remove(run)


def named_folder(runs: Path, name: str) -> Path:
    """The folder of a new run or search; raises ValueError for a name that is not that of one folder."""
    if not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise UserError(f"--name {name!r}: it must be the name of one folder, without slashes; --runs is its parent")
    return runs / name


def free_folder(runs: Path, method: str) -> Path:
    """A run folder whose name sorts by time and is not taken, e.g. byov-20260131-142530."""
    name = f"{method}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    others = (f"{name}-{k}" for k in itertools.count(2))
    return next(runs / n for n in itertools.chain([name], others) if not (runs / n).exists())


def provenance() -> dict[str, Any]:
    """The git commit (None outside a checkout) and the versions of what computes; a shipped job is told its commit."""
    here = Path(__file__).resolve().parent
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["torchcodec"] = importlib.metadata.version("torchcodec")
    return {"commit": os.environ.get("CROSSVIEW_COMMIT") or git.stdout.strip() or None, "versions": versions}


def require(run: Path) -> Path:
    """The run folder, or ValueError where there is none."""
    if run.parent.name == "checkpoints" and run.name.startswith("step-"):
        raise UserError(
            f"{run}: a checkpoint of the run {run.parent.parent}; pass the run. `crossview evaluate` and `embed` take "
            f"--checkpoint {run.name.removeprefix('step-').lstrip('0') or 0}"
        )
    if not storage.is_file(run / "run.json"):
        raise UserError(f"{run}: not a run folder (run.json is missing); pass a folder that `crossview train` made")
    return run
