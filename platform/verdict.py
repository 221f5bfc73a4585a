"""How a training worker tells the driver of an error that no restart can mend: through Ray, as the disk may be full."""

from __future__ import annotations

from typing import Any

import ray


class _Verdict:
    """Keeps the first error that any worker of one run gives."""

    def __init__(self) -> None:
        self._error: str | None = None

    def give(self, error: str) -> None:
        self._error = self._error or error

    def read(self) -> str | None:
        return self._error


class Verdict:
    """A handle that travels to the workers; it lives as long as the driver's copy."""

    def __init__(self) -> None:
        kind: Any = ray.remote(num_cpus=0)(_Verdict)
        self._actor = kind.remote()

    def give(self, error: str) -> None:
        """End the run with this error; the first one stands."""
        ray.get(self._actor.give.remote(error))

    def read(self) -> str | None:
        """The error that ends the run; None as long as there is none."""
        error: str | None = ray.get(self._actor.read.remote())
        return error
