"""What driver and training workers have to tell each other of a run: through Ray, as the disk may be full."""

from __future__ import annotations

from typing import Any

import ray


class _Verdict:
    """Keeps the first error that any worker of one run gives, and whether its workers are to leave."""

    def __init__(self) -> None:
        self._error: str | None = None
        self._leave = False

    def give(self, error: str) -> None:
        self._error = self._error or error

    def read(self) -> str | None:
        return self._error

    def set_leave(self, leave: bool) -> None:
        self._leave = leave

    def leave(self) -> bool:
        return self._leave


class Verdict:
    """A handle that travels to the workers; it lives as long as the driver's copy, and on the driver's node."""

    def __init__(self) -> None:
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        kind: Any = ray.remote(num_cpus=0, label_selector=here)(_Verdict)
        self._actor = kind.remote()

    def give(self, error: str) -> None:
        """End the run with this error; the first one stands."""
        ray.get(self._actor.give.remote(error))

    def read(self) -> str | None:
        """The error that ends the run; None as long as there is none."""
        error: str | None = ray.get(self._actor.read.remote())
        return error

    def set_leave(self, leave: bool) -> None:
        """Ask the workers to end at their next checkpoint, so that a larger group can go on; or ask no longer."""
        ray.get(self._actor.set_leave.remote(leave))

    def leave(self) -> bool:
        """Whether the workers are asked to end at their next checkpoint."""
        asked: bool = ray.get(self._actor.leave.remote())
        return asked
