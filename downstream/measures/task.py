"""What a method's loss claims, measured by the method itself on held-out samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from crossview.downstream import task
from crossview.downstream.measures.config import Options
from crossview.downstream.task import Facts, Recorded, SamplePart
from crossview.errors import UserError

Predictions = dict[str, float]
"""By name of the measure."""


class Task(task.Task[Options, SamplePart]):
    """`Method.measures` on one batch of seen cameras and actions, for the trained weights and the random init."""

    def check(self, facts: Facts) -> Iterator[str]:
        """A method that measures something, and recordings to measure it on."""
        if not facts.measures:
            yield _nothing(facts.method)
        if not any(self.wants(r, facts) for r in facts.test):
            yield (
                f"measures: split {facts.split!r} has no recording of the cameras ({', '.join(sorted(facts.seen))}) "
                "and actions trained on; leave the task 'measures' out, or evaluate another split"
            )

    def wants(self, recording: Recorded, facts: Facts) -> bool:
        """Those of cameras and actions that were trained on."""
        return recording.view in facts.seen and recording.action in facts.actions

    def predict(self, fitted: object, test: SamplePart) -> Predictions:
        """Raises ValueError if this configuration of the method measures nothing."""
        del fitted
        with torch.no_grad():
            found = test.encoder.measures(test.batch)  # type: ignore[operator]
        if not found:
            raise UserError(_nothing("this configuration of the method"))
        return {name: float(value) for name, value in found.items()}

    def score(self, predictions: Predictions, test: SamplePart) -> dict[str, float]:
        """The measures."""
        del test
        return {f"measures/{name}": value for name, value in predictions.items()}

    def items(self, predictions: Predictions, test: SamplePart) -> int:
        """Samples."""
        del predictions
        return len(test.batch["sample"])

    def notes(self, predictions: Predictions, train: SamplePart | None, test: SamplePart) -> list[str]:
        """How much was measured on."""
        del train
        return [f"Measured on {self.items(predictions, test)} samples of split {test.split} from seen cameras."]


def _nothing(method: str) -> str:
    return (
        f"tasks name 'measures', but {method} measures nothing of its own; leave that task out, or give the method's "
        "model a `measures`"
    )
