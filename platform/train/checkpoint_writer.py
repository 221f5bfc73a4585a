"""Writing checkpoints while training goes on."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from crossview.platform.train.state import Training


class CheckpointWriter:
    """Writes a run's checkpoints, one at a time, in a thread of its own while training continues.

    What is written is a copy in host memory, made before `write` returns. An error of the thread is raised by the next
    `write` or `wait`. Leaving the `with` block waits for the last checkpoint, also after an error in the block, which
    then is the one that counts. Without `background`, `write` does it all and copies nothing.
    """

    def __init__(self, *, background: bool) -> None:
        self._background = background
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, training: Training) -> None:
        """Start to write the checkpoint of this step, once the one before is complete; every rank has to call it."""
        self.wait()
        work = training.saving(copied=self._background)
        if not self._background:
            work()
            return

        def write() -> None:
            try:
                work()
            except Exception as error:  # raised by `wait`, in the thread that trains
                self._error = error

        self._thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return once no checkpoint is being written; raises what the last one failed with."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
            return
        with contextlib.suppress(Exception):
            self.wait()
