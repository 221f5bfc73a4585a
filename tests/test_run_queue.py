from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crossview.errors import UserError
from crossview.platform.cluster.run_queue import Job, run_side_by_side

pytestmark = pytest.mark.ray


def work() -> Callable[..., None]:
    """What the jobs do; made in a function, since Ray's workers cannot import this module."""

    def note(folder: Path, name: str, pause_s: float) -> None:
        (folder / f"{name}-begun").write_text(str(time.time()))
        time.sleep(pause_s)
        (folder / f"{name}-ended").write_text(str(time.time()))

    return note


def dying() -> Callable[..., None]:
    def dies_once(file: Path) -> None:
        if not file.exists():
            file.touch()
            os._exit(1)

    return dies_once


def failing() -> Callable[..., None]:
    def fails(error: Exception) -> None:
        raise error

    return fails


def at(folder: Path, name: str) -> float:
    return float((folder / name).read_text())


def test_a_job_waits_for_the_one_that_it_depends_on_and_no_more_run_than_allowed(
    tmp_path: Path, ray_cluster: None
) -> None:
    jobs = [
        Job("second", (tmp_path, "second", 0.0), after="first"),
        Job("first", (tmp_path, "first", 0.5)),
        Job("third", (tmp_path, "third", 0.0), after="ended long ago"),
    ]
    told: list[int] = []
    run_side_by_side(work(), jobs, 1, cpus=0.5, tell=told.append, resume="again")
    assert at(tmp_path, "second-begun") >= at(tmp_path, "first-ended")
    assert at(tmp_path, "third-begun") >= at(tmp_path, "first-ended")  # one at a time
    assert told[0] == 0
    assert told[-1] == 3


def test_a_job_whose_process_dies_is_started_again(tmp_path: Path, ray_cluster: None) -> None:
    run_side_by_side(dying(), [Job("a", (tmp_path / "died",))], 1, cpus=0.5, tell=lambda ended: None, resume="again")
    assert (tmp_path / "died").exists()


def test_an_error_of_the_input_comes_back_as_itself_and_one_of_storage_says_how_to_resume(ray_cluster: None) -> None:
    jobs = [Job("a", (UserError("data.split is 'x'"),))]
    with pytest.raises(ValueError, match=r"^data.split is 'x'$"):
        run_side_by_side(failing(), jobs, 1, cpus=0.5, tell=lambda ended: None, resume="again")
    jobs = [Job("a", (OSError("the disk is full"),))]
    with pytest.raises(OSError, match=r"the disk is full; resume with `again`"):
        run_side_by_side(failing(), jobs, 1, cpus=0.5, tell=lambda ended: None, resume="again")
