"""BYOV's studies on the synthetic world."""

from __future__ import annotations

from dataclasses import replace

from crossview.datasets.synthetic.config import WorldConfig
from crossview.methods.byov.config import presets
from crossview.methods.study import Study


def studies() -> dict[str, Study]:
    """`quickstart`: the whole way once, small."""
    return {"quickstart": _quickstart()}


def _quickstart() -> Study:
    recipe = presets()["debug"]()
    return Study(
        world=WorldConfig(actions=("pour_milk",), train_takes=8, val_takes=3, test_takes=3, size_px=128, workers=2),
        arms={"BYOV": replace(recipe)},
        seeds=1,
        claims=(),
        split="val",
        cached=False,
    )
