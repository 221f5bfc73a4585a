"""Packing features: complete, compared with the source, resumed after a kill, on several cores; LMDBs of frames."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from crossview.datasets.features.frame_lmdb import FrameLmdb
from crossview.datasets.features.packing import Job, pack, packed_shape
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError

KEY = r"(?P<prefix>[^/]+/)(?P<frame>\d{4})"
PACK = """
import functools, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_packing as t
if __name__ == "__main__":
    t.pack(t.jobs(Path(sys.argv[2]), 6, slow=True), workers=2)
"""


def parts(seed: int, frames: int, given: int, wait_s: float = 0.0) -> Iterator[np.ndarray]:
    array = np.random.default_rng(seed).standard_normal((frames, 2, 4)).astype(np.float32)[:given]
    for first in range(0, given, 16):
        time.sleep(wait_s)
        yield array[first : first + 16]


def jobs(out: Path, count: int, given: int = 40, *, slow: bool = False) -> list[Job]:
    made = (functools.partial(parts, k, 40 + k, given + k, 0.2 if slow and k else 0.0) for k in range(count))
    return [Job(out / "in" / f"{k}.npy", f"source {k}", (40 + k, 2, 4), part) for k, part in enumerate(made)]


def test_packed_on_two_cores(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    assert pack(jobs(tmp_path, 4), lambda *done: told.append(done), workers=2) == {}
    assert told == [(k, 4) for k in range(5)]
    for job in jobs(tmp_path, 4):
        kept = np.load(job.target, mmap_mode="r", allow_pickle=False)
        assert kept.dtype == np.float16
        assert kept.flags.c_contiguous
        np.testing.assert_array_equal(kept, np.concatenate(list(job.parts())).astype(np.float16))


def test_a_killed_call_is_gone_on_with(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", PACK, here, str(tmp_path)], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "in" / "0.npy").exists() or not list(tmp_path.glob("in/.*.npy.*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    there = {file: file.stat().st_mtime_ns for file in tmp_path.glob("in/[0-9]*.npy")}
    assert 0 < len(there) < 6
    assert all(job.done for job in jobs(tmp_path, 6) if job.target in there)
    told: list[tuple[int, int]] = []
    assert pack(jobs(tmp_path, 6), lambda *done: told.append(done)) == {}
    assert told[0] == (len(there), 6)
    assert {file: file.stat().st_mtime_ns for file in there} == there
    assert sorted(file.name for file in (tmp_path / "in").iterdir()) == [f"{k}.npy" for k in range(6)]


@pytest.mark.parametrize("given", [39, 41, 0])
def test_another_number_of_frames(tmp_path: Path, given: int) -> None:
    job = Job(tmp_path / "a.npy", "the source", (40, 2, 4), functools.partial(parts, 0, 60, given))
    assert "the source: it gives more or fewer frames than 40" in pack([job])[job.target]
    assert list(tmp_path.iterdir()) == []


def test_what_reads_back_otherwise_is_not_kept(tmp_path: Path) -> None:
    given = iter(range(2))
    job = Job(tmp_path / "a.npy", "the source", (40, 2, 4), lambda: parts(next(given), 40, 40))
    assert "the source: the value" in pack([job])[job.target]
    assert list(tmp_path.iterdir()) == []


def test_a_cut_file_and_one_of_another_shape_are_made_again(tmp_path: Path) -> None:
    first, second = jobs(tmp_path, 2)
    pack([first, second])
    first.target.write_bytes(first.target.read_bytes()[:-1])
    np.save(second.target, np.zeros((3, 4), np.float16))
    assert packed_shape(first.target) is None
    assert not first.done
    assert not second.done
    assert pack([first, second]) == {}
    assert first.done
    assert second.done


def test_two_sources_of_one_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source 0: another array would be packed as .*0\.npy too; rename"):
        pack([*jobs(tmp_path, 2), jobs(tmp_path, 1)[0]])


def database(folder: Path, entries: dict[str, bytes]) -> FrameLmdb:
    folder.mkdir()
    with lmdb.open(str(folder), map_size=2**24) as env, env.begin(write=True) as writing:
        for key, value in entries.items():
            writing.put(key.encode(), value)
    return FrameLmdb(folder, KEY, 3)


def frame(k: int) -> bytes:
    return np.array([k, k / 3, -k], "<f4").tobytes()


def test_frames_of_a_database(tmp_path: Path) -> None:
    names = {
        f"{name}/{k:04d}": frame(k) for name, last in (("a", 3), ("a1", 2000), ("b", 1)) for k in range(1, last + 1)
    }
    found = database(tmp_path / "db", names)
    assert found.last_frames() == {"a/": 3, "a1/": 2000, "b/": 1}
    read = list(found.frames("a1/", 2000))
    assert [len(part) for part in read] == [1024, 976]
    np.testing.assert_array_equal(np.concatenate(read)[:, 0], np.arange(1, 2001))


def test_a_frame_is_missing_or_broken(tmp_path: Path) -> None:
    found = database(
        tmp_path / "db",
        {f"a/{k:04d}": frame(k) for k in (1, 2, 4)}
        | {f"b/{k:04d}": frame(k) for k in (0, 1)}
        | {"c/0001": frame(1), "c/0002": frame(2)[:6]},
    )
    rules = {
        "a/": "keys a/.*frame 3 of 4 is missing",
        "b/": "frame 1 of 1 is missing, or one before",
        "c/": "key 'c/0002': its value has 6 bytes, where 3 numbers of type float32 have 12",
    }
    for prefix, rule in rules.items():
        with pytest.raises(UnreadableVideo, match=rule):
            list(found.frames(prefix, found.last_frames()[prefix]))


def test_what_is_no_such_database(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds the key b'other', which is none of"):
        database(tmp_path / "other", {"other": b"1"}).last_frames()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "data.mdb").write_text("no database" * 1000)
    with pytest.raises(UserError, match=r"text/data\.mdb: it cannot be opened as an LMDB"):
        FrameLmdb(tmp_path / "text", KEY, 3).last_frames()
    cut = database(tmp_path / "cut", {f"a/{k:04d}": frame(k) for k in range(1, 5000)})
    with (tmp_path / "cut" / "data.mdb").open("r+b") as file:
        file.truncate(40_000)
    with pytest.raises(UserError, match=r"cut/data\.mdb: it is cut, with 40,000 of [\d,]+ bytes; download it again"):
        cut.last_frames()
    assert database(tmp_path / "empty", {}).last_frames() == {}
