"""BYOV's studies on the synthetic world."""

from __future__ import annotations

from crossview.datasets.synthetic.config import WorldConfig
from crossview.methods.byov.config import presets
from crossview.methods.study import Study


def studies() -> dict[str, Study]:
    """`quickstart` goes the whole way once, small; `synthetic` checks the paper's claim."""
    return {"quickstart": _quickstart()}


def _quickstart() -> Study:
    return Study(
        world=WorldConfig(actions=("pour_milk",), train_takes=8, val_takes=4, test_takes=1, size_px=128, workers=2),
        layout="synchronized",
        arms={"byov": presets()["debug"]()},
        seeds=1,
        claims=(),
        split="val",
        cached=False,
    )
