"""Calls in a child process: results, errors, crashes, hangs, and the ends of the child and of its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.video import child, frames
from crossview.datasets.video.frames import TooSlow, UnreadableVideo
from crossview.errors import UserError

FILE = Path("/videos/x.mp4")


def call(function, *args, time_limit_s=60.0):  # type: ignore[no-untyped-def]
    return child.call(FILE, [], time_limit_s, function, *args)


def double(array: np.ndarray) -> list[np.ndarray]:
    return [array * 2, np.arange(3), np.zeros((0, 4), np.uint8)]


def pid() -> int:
    return os.getpid()


def crash() -> None:
    ctypes.string_at(0)


def crash_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "read"


def leave() -> None:
    print("no memory for it", file=sys.stderr, flush=True)
    os._exit(3)


def hang(entered: Path) -> None:
    entered.touch()
    ctypes.PyDLL(None).sleep(600)  # keeps the interpreter's lock


def advance_slowly(steps: int) -> str:
    for _ in range(steps):
        time.sleep(0.3)
        frames.progressed()
    return "read"


class Odd(BaseException):
    """Neither an Exception nor one that can be made of its message alone."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def fail(error: BaseException) -> None:
    raise error


def fail_oddly() -> None:
    raise Odd(1, 2)


kept = np.empty(0)


def grow() -> int:
    global kept
    kept = np.ones(5_000_000)
    return os.getpid()


def folder() -> Path:
    return Path.cwd()


def warn() -> int:
    warnings.warn("it is read from its start", stacklevel=2)
    return 7


def test_arrays_come_back_and_can_be_written() -> None:
    first, second, empty = call(double, np.arange(1000, dtype=np.int16).reshape(10, 100))
    np.testing.assert_array_equal(first, np.arange(0, 2000, 2).reshape(10, 100))
    assert first.dtype == np.int16
    np.testing.assert_array_equal(second, [0, 1, 2])
    assert empty.shape == (0, 4)
    first += 1


def test_arrays_are_kept_over_the_next_call() -> None:
    first = call(double, np.arange(1000))[0]
    call(double, np.zeros(1000, int))
    np.testing.assert_array_equal(first, np.arange(0, 2000, 2))


def test_one_child_answers_all_calls() -> None:
    children = {call(pid) for _ in range(5)}
    assert len(children) == 1
    assert os.getpid() not in children


def test_a_child_works_in_this_processs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(folder) == Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert call(folder) == tmp_path


def test_threads_have_a_child_each() -> None:
    barrier = threading.Barrier(3)

    def work(k: int) -> tuple[int, int]:
        barrier.wait()
        return call(pid), int(call(double, np.array([k]))[0][0])

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, range(3)))
    assert [value for _, value in found] == [0, 2, 4]
    assert os.getpid() not in {process for process, _ in found}


def test_a_crash_is_the_files() -> None:
    with pytest.raises(UnreadableVideo, match=r"^/videos/x\.mp4: reading it crashed its process \(SIGSEGV"):
        call(crash)
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: .* \(exit status 3: no memory for it\)"):
        call(leave)
    assert call(double, np.arange(2))[0].tolist() == [0, 2]


def test_a_crash_that_does_not_come_again_costs_nothing(tmp_path: Path) -> None:
    assert call(crash_once, tmp_path / "crashed") == "read"
    assert (tmp_path / "crashed").exists()


def test_a_call_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_S", 0.0)
    before = call(pid)
    with pytest.raises(TooSlow, match=r"x\.mp4: reading it did not advance for the limit of 0\.5 s"):
        call(hang, tmp_path / "entered", time_limit_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert call(pid) != before


def test_a_long_call_that_advances_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_S", 0.0)
    assert call(advance_slowly, 8, time_limit_s=2.0) == "read"


@pytest.mark.parametrize(
    "error", [ValueError("7"), MemoryError(), AttributeError("x"), SystemExit(3), KeyboardInterrupt()]
)
def test_other_errors_name_the_file(error: BaseException) -> None:
    with pytest.raises(UnreadableVideo, match=rf"^/videos/x\.mp4: {type(error).__name__}: {error}"):
        call(fail, error)


def test_an_error_that_cannot_be_pickled_names_the_file() -> None:
    with pytest.raises(UnreadableVideo, match=r"^/videos/x\.mp4: Odd: 1 and 2"):
        call(fail_oddly)


@pytest.mark.parametrize("kind", [TooSlow, UnreadableVideo, UserError])
def test_errors_of_the_user_keep_their_class(kind: type[UserError]) -> None:
    with pytest.raises(UserError, match=r"^y\.mp4: as it says$") as raised:
        call(fail, kind("y.mp4: as it says"))
    assert type(raised.value) is kind


def test_warnings_come_back() -> None:
    with pytest.warns(UserWarning, match="it is read from its start"):
        assert call(warn) == 7


def test_a_child_that_has_grown_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_idle", [])
    monkeypatch.setattr(child, "MAX_GROWN_BYTES", 20_000_000)
    first = call(pid)
    assert call(pid) == call(grow) == first
    assert call(pid) != first


@pytest.mark.parametrize("hangs", [False, True])
def test_a_child_ends_with_its_parent(tmp_path: Path, hangs: bool) -> None:
    """Killed between two calls, or during one that hangs."""
    script = f"""if True:
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        import test_child
        print(test_child.call(test_child.pid), flush=True)
        if {hangs}:
            test_child.call(test_child.hang, Path({str(tmp_path / "entered")!r}))
        sys.stdin.read()
    """
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    process = int(parent.stdout.readline())
    while hangs and not (tmp_path / "entered").exists():
        time.sleep(0.05)
    os.kill(process, 0)
    parent.kill()
    parent.wait()
    while _alive(process):
        time.sleep(0.05)


def _alive(process: int) -> bool:
    """Whether it runs; what has ended may stay as a zombie where nobody asks for its status."""
    try:
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def test_idle_children_that_have_died_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a call tries, so that none of its tries is spent on them."""
    dead = [child.Child() for _ in range(child.TRIES)]
    for one in dead:
        one.process.kill()
        one.process.wait()
    monkeypatch.setattr(child, "_idle", list(dead))
    assert call(pid) not in [one.process.pid for one in dead]


def test_a_forked_process_has_children_of_its_own() -> None:
    before = call(pid)
    forked = os.fork()
    if not forked:
        status = 1
        try:
            status = int(call(pid) == before)
            child.close_idle()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert call(pid) == before
