"""What the driver and the training workers tell each other: through Ray, since the disk may be full."""

from __future__ import annotations

from typing import Any, Literal

import ray

Stage = Literal["starting", "training", "leaving"]


class _Verdict:
    """Keeps the first error that any worker of one run gives, and what stage its group of workers is in."""

    def __init__(self) -> None:
        self._error: str | None = None
        self._stage: Stage = "starting"

    def give(self, error: str) -> None:
        self._error = self._error or error

    def read(self) -> str | None:
        return self._error

    def set_stage(self, stage: Stage) -> None:
        self._stage = stage

    def stage(self) -> Stage:
        return self._stage


class Verdict:
    """A handle that travels to the workers; it lives as long as the driver's copy, and on the driver's node."""

    def __init__(self) -> None:
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        kind: Any = ray.remote(num_cpus=0, label_selector=here)(_Verdict)
        self._actor = kind.remote()

    def give(self, error: str) -> None:
        """End the run with this error; the first one counts."""
        ray.get(self._actor.give.remote(error))

    def read(self) -> str | None:
        """The error that ends the run; None as long as there is none."""
        error: str | None = ray.get(self._actor.read.remote())
        return error

    def set_stage(self, stage: Stage) -> None:
        """Tell the others that a group starts, that it trains, or that it is to end at its next checkpoint."""
        ray.get(self._actor.set_stage.remote(stage))

    def stage(self) -> Stage:
        """What was told last."""
        stage: Stage = ray.get(self._actor.stage.remote())
        return stage
