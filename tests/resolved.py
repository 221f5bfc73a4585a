"""Resolved runs for tests that drive the loop or a training step by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from crossview.platform import run_folder
from crossview.platform.config import Experiment, saved
from crossview.platform.train.resolve import ResolvedRun


def without_data(folder: Path) -> ResolvedRun:
    """A run folder's run for single training steps on given batches; its catalog need not exist."""
    found = saved(folder)
    return ResolvedRun(folder, found.method, found.experiment, (), cast(Any, None), found.info)


def new_without_data(folder: Path, method: str, experiment: Experiment[Any]) -> ResolvedRun:
    """The same of a run whose folder is made here."""
    run_folder.create(folder, method, experiment)
    return without_data(folder)
