from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crossview.downstream import task
from crossview.downstream.task import PredictionPart

from .config import Options


class Task(task.Task[Options, PredictionPart]):
    def predict(self, fitted: Any, test: PredictionPart) -> list[np.ndarray]:
        return [sample.outputs["probabilities"].argmax(-1) for sample in test.samples]

    def score(self, predictions: list[np.ndarray], test: PredictionPart) -> dict[str, float]:
        right = [p == s.targets["phase"] for p, s in zip(predictions, test.samples, strict=True)]
        return {"step_probe/accuracy": float(np.concatenate(right).mean())}

    def items(self, predictions: list[np.ndarray], test: PredictionPart) -> int:
        return sum(len(p) for p in predictions)

    def baselines(self) -> Mapping[str, task.Task[Options, PredictionPart]]:
        return {"majority": Majority(self.options)}


class Majority(Task):
    fixed = True

    def fit(self, train: PredictionPart) -> int:
        assert not train.samples[0].outputs
        return int(np.bincount(np.concatenate([s.targets["phase"] for s in train.samples])).argmax())

    def predict(self, fitted: int, test: PredictionPart) -> list[np.ndarray]:
        return [np.full(len(s.targets["phase"]), fitted) for s in test.samples]
