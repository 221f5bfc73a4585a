from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from crossview.platform.cluster import map_recordings
from crossview.platform.cluster.map_recordings import Done, Where, each


def dying(folder: Path, deaths: int) -> Callable[[], object]:
    """Makes work whose process dies at recording 1 until it has died `deaths` times."""

    def make() -> object:  # a closure travels by value: Ray's workers cannot import this file
        def work(index: int) -> dict[str, np.ndarray]:
            died = len(list(folder.iterdir()))
            if index == 1 and died < deaths:
                (folder / str(died)).touch()
                __import__("os")._exit(1)
            return {"square": np.array([index * index])}

        return work

    return make


@pytest.mark.ray
def test_recordings_of_a_dead_process_are_done_again(
    ray_cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = list(each(3, dying(tmp_path, 1), {}, Where()))  # type: ignore[arg-type]
    assert sorted((done.index, int(done.arrays["square"][0])) for done in found) == [(0, 0), (1, 1), (2, 4)]
    assert len(list(tmp_path.iterdir())) == 1
    assert "max_restarts" not in capfd.readouterr().err


@pytest.mark.ray
def test_work_that_always_dies_ends_with_an_error(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_recordings, "MAX_TRIES", 1)
    with pytest.raises(OSError, match=r"1 times in a row a process died.*lower the number of actors"):
        list(each(2, dying(tmp_path, 99), {}, Where()))  # type: ignore[arg-type]


def test_deaths_count_only_while_nothing_gets_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import RayActorError

    def one_and_dead(indices: list[int], *_: object) -> Iterator[Done]:
        if len(indices) > stops_at:
            yield Done(indices[0], {})
        raise RayActorError

    monkeypatch.setattr("crossview.platform.cluster.connect.connect", lambda: None)
    monkeypatch.setattr(map_recordings, "_outcomes", one_and_dead)
    stops_at = 2
    found: list[int] = []
    with pytest.raises(OSError, match=r"3 times in a row a process died with 2 of 9 recordings to go"):
        found.extend(done.index for done in each(9, dict, {}, Where()))  # type: ignore[arg-type]
    assert found == [0, 1, 2, 3, 4, 5, 6]
