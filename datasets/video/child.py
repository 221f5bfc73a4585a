"""Calls in a child process: a codec library that crashes or hangs there costs the file that is read, not this process.

A child is started at first use and answers any number of calls, one after another; one that has died, hung or grown is
replaced. Every child ends with this process, however that ends. Arrays come back in shared memory.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.connection import Pipe
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import ParamSpec, TypeVar

from crossview.datasets.video.frames import TooSlow, UnreadableVideo, on_this_node
from crossview.errors import DataWarning, UserError

START_S = 300.0
"""For starting a child, which is long on a slow disk."""
GRACE_S = 1.0
"""Beyond a time limit, for the child to notice it itself."""
TRIES = 2
"""Children that may crash over a call: what killed the first may have had nothing to do with the file."""
MAX_GROWN_BYTES = 2**30
"""A child that has grown by more since its first call is replaced."""
ALIGNED = 64
"""Bytes to whose multiples arrays are placed in shared memory."""
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
"""Settings of glibc: it uses the memory of one call again for the next, which costs less than new pages."""
_START = """
import json, sys
connection, lifeline, sys.path[:] = json.loads(sys.argv[1])
from crossview.datasets.video.child_process import serve
serve(connection, lifeline)
"""

P = ParamSpec("P")
R = TypeVar("R")
_idle: list[Child] = []
inside = False
"""Whether this process is such a child, which makes its calls itself."""


def call(
    path: Path,
    files: Sequence[Path],
    time_limit_s: float,
    function: Callable[P, R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """`function` of a module, called in a child process to read `path`; threads may call at once.

    `files` are those that it opens: remote ones are fetched to this node first, for as long as that takes. Raises
    UnreadableVideo for every error but a UserError, for a child that crashes, and for one that neither answers nor
    reports progress (`frames.progressed`) for `time_limit_s`. Arguments and result are pickled.
    """
    if inside:
        return function(*args, **kwargs)
    with _answered(path, files, time_limit_s, (function, args, kwargs)) as (pickled, arrays):
        result: R = pickle.loads(pickled, buffers=[bytearray(array) for array in arrays])
    return result


@contextmanager
def lent(
    path: Path,
    files: Sequence[Path],
    time_limit_s: float,
    function: Callable[P, R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Iterator[R]:
    """`call` without a copy of the arrays: they are the child's memory, which its next call overwrites."""
    if inside:
        yield function(*args, **kwargs)
        return
    with _answered(path, files, time_limit_s, (function, args, kwargs)) as (pickled, arrays):
        yield pickle.loads(pickled, buffers=arrays)


@contextmanager
def _answered(
    path: Path, files: Sequence[Path], time_limit_s: float, what: tuple[object, ...]
) -> Iterator[tuple[bytes, list[memoryview]]]:
    """The pickled result of a call and its arrays, in memory that is the child's again afterwards."""
    copies = {str(file): str(on_this_node(file)) for file in files}
    work = pickle.dumps((str(path), str(Path.cwd()), copies, *what), protocol=5)
    for tries_left in reversed(range(TRIES)):
        child = _take()
        try:
            answer, arrays = child.call(work, time_limit_s + GRACE_S)
        except TimeoutError:
            raise TooSlow(f"{path}: reading it did not advance for the limit of {time_limit_s:g} s") from None
        except Died as died:
            if not tries_left:
                raise UnreadableVideo(f"{path}: reading it crashed its process ({died})") from died
            continue
        break
    try:
        for text in answer.warned:
            warnings.warn(text, DataWarning, stacklevel=4)
        if answer.error:
            kind, message, trace = answer.error
            raise {c.__name__: c for c in ERRORS}[kind](message) from (RuntimeError(trace) if trace else None)
        yield answer.pickled, arrays
    finally:
        child.first_bytes = child.first_bytes or answer.resident_bytes
        if answer.resident_bytes - child.first_bytes > MAX_GROWN_BYTES:
            child.close()
        else:
            _idle.append(child)


ERRORS: tuple[type[UserError], ...] = (TooSlow, UnreadableVideo, UserError)
"""What a child's errors are raised as: the first that they are."""


@dataclass
class Answer:
    """What a call came to."""

    pickled: bytes = b""
    """The result, without its arrays."""
    sizes: list[int] = field(default_factory=list)
    """Bytes of each array in the shared memory, each at a multiple of ALIGNED."""
    new_memory_bytes: int = 0
    """A file of this size follows, which is the shared memory from now on; 0 for none."""
    error: tuple[str, str, str] | None = None
    """One of ERRORS, its message, and the traceback of what was no UserError."""
    warned: list[str] = field(default_factory=list)
    resident_bytes: int = 0


class Died(Exception):  # noqa: N818
    """A child has ended without an answer; the message says how."""


class Child:
    """One child process. Not for several threads at once."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()  # closed with this process, which ends the child
        self._memory = memoryview(b"")
        self.first_bytes = 0
        """Resident after the first call, which has loaded its decoder."""
        self._said = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed with the child
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps([theirs.fileno(), lifeline, sys.path])],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            pass_fds=(theirs.fileno(), lifeline),
            env=os.environ | _KEPT_MEMORY,
        )
        theirs.close()
        os.close(lifeline)
        try:
            if not self.connection.poll(START_S):
                raise TimeoutError
            self.connection.recv_bytes()
        except (EOFError, OSError) as error:  # TimeoutError is one
            raise RuntimeError(f"a process for decoding did not start: {self.close(GRACE_S)}") from error

    def call(self, work: bytes, silence_s: float) -> tuple[Answer, list[memoryview]]:
        """The answer to a pickled call, and its arrays, which the next call overwrites.

        A child that raises Died or TimeoutError is gone.
        """
        self._said.truncate(0)
        try:
            self.connection.send_bytes(work)
            while True:
                if not self.connection.poll(silence_s):
                    self.close()
                    raise TimeoutError
                if said := self.connection.recv_bytes():  # an empty message reports progress
                    break
            answer: Answer = pickle.loads(said)
            if answer.new_memory_bytes:
                file = recv_handle(self.connection)
                self._memory = memoryview(mmap.mmap(file, answer.new_memory_bytes))
                os.close(file)
        except (EOFError, ConnectionError) as error:
            raise Died(self.close(GRACE_S)) from error
        *starts, _ = accumulate(map(aligned, answer.sizes), initial=0)
        # One memory for all answers: new memory would cost ten times as much as a copy.
        return answer, [self._memory[start : start + n] for start, n in zip(starts, answer.sizes, strict=True)]

    def close(self, wait_s: float = 0.0) -> str:
        """End the child unless it ends by itself within `wait_s`; returns how it has ended."""
        try:
            status = self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.disown()
        with self._said as said:
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"{how}: {words[-1]}" if words else how

    def disown(self) -> None:
        """Close this process's ends of the pipes, without which the child ends unless another process has them."""
        self.connection.close()
        os.close(self._lifeline)


def close_idle() -> None:
    """End the children that no call uses, after calls from many threads."""
    while _idle:
        try:
            _idle.pop().close()
        except IndexError:  # another thread was faster
            return


def aligned(size: int) -> int:
    """`size` in bytes, rounded up."""
    return -(-size // ALIGNED) * ALIGNED


def _take() -> Child:
    """A child that nobody uses, or a new one."""
    while _idle:
        try:
            child = _idle.pop()
        except IndexError:  # another thread was faster
            break
        if child.process.poll() is None:
            return child
        child.close()
    return Child()


def _after_fork() -> None:
    """The parent's children answer the parent alone."""
    for child in _idle:
        child.disown()
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)
