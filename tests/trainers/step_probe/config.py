from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from crossview.datasets.sampling.sequences import Sequences
from crossview.downstream.task import Mode, PredictionOptions
from crossview.downstream.trainer_config import Control
from crossview.methods.recipe import Optim, Recipe


@dataclass(frozen=True, kw_only=True)
class Options(PredictionOptions):
    def metrics(self) -> dict[str, Mode]:
        return {"step_probe/accuracy": "max"}


@dataclass(frozen=True, kw_only=True)
class Config:
    light: ClassVar[bool] = True
    width: int = 9 * 96
    chunk: int = 4
    views: tuple[str, ...] = ("any",)

    def sampling(self, *, encoded: bool = False) -> Sequences:
        return Sequences(
            kind="phase",
            classes=4,
            option="method.classes",
            chunk=self.chunk,
            max_steps=8,
            views=self.views,  # type: ignore[arg-type]
            pooled=not encoded,
        )

    def controls(self, weights: str | None) -> Mapping[str, Control]:
        return {} if weights is None else {"random init": Control(config=self, weights="random")}


def presets() -> dict[str, Callable[[], Recipe]]:
    return {
        "debug": lambda: Recipe(method=Config(), optim=Optim(lr=1e-2, steps=30, batch=4, schedule="constant")),
        "clips": lambda: Recipe(method=Config(), optim=Optim(lr=1e-2, steps=4, batch=2)),
    }
