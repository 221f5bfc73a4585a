"""What runs in the child process of `child`: answer calls until the parent closes the connection or dies."""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import signal
import time
import traceback
import warnings
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path

from crossview import storage
from crossview.datasets.video import child, frames
from crossview.datasets.video.child import ERRORS, Answer, aligned
from crossview.datasets.video.frames import UnreadableVideo

_PROGRESS_S = 0.25
"""Time between two reports of progress."""


def serve(connection_file: int, lifeline: int) -> None:
    """Answer the calls that come over a connection, one by one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    # The parent's death closes the other end of this pipe, which the system reports by SIGIO: even within a call that
    # hangs, since its default action is to end the process.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    child.inside = True
    connection = Connection(connection_file)
    frames.progressed = Progress(connection)
    memory = memoryview(bytearray())
    connection.send_bytes(b"ready")
    while True:
        try:
            work = connection.recv_bytes()
        except EOFError:
            return
        answer, buffers = _answer(work)
        answer.resident_bytes = _resident_bytes()
        answer.sizes = [len(buffer) for buffer in buffers]
        *starts, needed = accumulate(map(aligned, answer.sizes), initial=0)
        new_file = None
        if needed > len(memory):
            memory, new_file = _shared(needed)
            answer.new_memory_bytes = len(memory)
        for start, buffer in zip(starts, buffers, strict=True):
            memory[start : start + len(buffer)] = buffer
        connection.send_bytes(pickle.dumps(answer, protocol=5))
        if new_file is not None:
            send_handle(connection, new_file, None)
            os.close(new_file)


class Progress:
    """Reports to the parent, as an empty message, that reading advances."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.reported_s = connection, time.monotonic()

    def __call__(self) -> None:
        """Report, unless that was just done."""
        now = time.monotonic()
        if now - self.reported_s > _PROGRESS_S:
            self.reported_s = now
            self.connection.send_bytes(b"")


def _answer(work: bytes) -> tuple[Answer, list[memoryview]]:
    buffers: list[pickle.PickleBuffer] = []
    path = "?"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            path, folder, copies, function, args, kwargs = pickle.loads(work)
            os.chdir(folder)  # the parent may have gone elsewhere
            storage.use_copies({file: Path(copy) for file, copy in copies.items()})
            result = function(*args, **kwargs)
            answer = Answer(pickle.dumps(result, protocol=5, buffer_callback=buffers.append))
        except BaseException as error:
            buffers.clear()
            answer = Answer(error=_described(error, path))
    answer.warned = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    return answer, [buffer.raw() for buffer in buffers]


def _described(error: BaseException, path: str) -> tuple[str, str, str]:
    """The class in ERRORS that an error is raised as in the parent, its message, and the trace of an unexpected one."""
    for kind in ERRORS:
        if isinstance(error, kind):
            return kind.__name__, str(error), ""
    return UnreadableVideo.__name__, f"{path}: {type(error).__name__}: {error}", traceback.format_exc()


def _shared(size: int) -> tuple[memoryview, int]:
    """Memory of at least `size` bytes, and the open file that another process maps for it."""
    size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    file = os.memfd_create("crossview")
    os.ftruncate(file, size)
    return memoryview(mmap.mmap(file, size)), file


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
