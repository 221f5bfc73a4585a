"""BYOV's studies on the synthetic world."""

from __future__ import annotations

from dataclasses import replace

from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.synthetic.config import WorldConfig
from crossview.methods.base_config import Base
from crossview.methods.byov.config import Config, Decoder, Encoder, Weights
from crossview.methods.recipe import Optim, Recipe
from crossview.methods.study import BaseTraining, Claim, Study

WORLD = WorldConfig(
    actions=("pour_milk",),
    cut="cycle",
    size_px=128,
    train_takes=32,
    val_takes=8,
    test_takes=16,
    train_subjects=32,
    val_subjects=8,
    test_subjects=16,
    workers=2,
)
"""Takes that begin anywhere in the action, so that time does not reveal the phase."""
METHOD = Config(
    base=Base(model="vit_tiny_patch16_224", weights="random", size_px=128, width=96, depth=3, heads=3),
    encoder=Encoder(width=64, depth=3, heads=4),
    decoder=Decoder(width=64, depth=2, heads=4),
    geometry=Geometry(),
    input_norm="clip",
    target_norm="clip",
)
CLAIMS = tuple(
    Claim(metric=metric) for metric in ("phase_f1/ego2exo", "phase_f1/exo2ego", "map@10/ego2exo", "map@10/exo2ego")
)


def studies() -> dict[str, Study]:
    """`quickstart` is one small run from end to end; `synthetic` tests the paper's claim."""
    return {"quickstart": _quickstart(), "synthetic": _synthetic()}


def _quickstart() -> Study:
    """The method alone against all baselines in minutes, on a base that is shipped."""
    return Study(
        world=replace(
            WORLD, train_takes=16, train_subjects=16, val_takes=1, val_subjects=1, test_takes=8, test_subjects=8
        ),
        base=replace(_base(steps=1200), shipped="byov/quickstart_base.safetensors"),
        variants={"byov": recipe(Weights(), steps=800)},
        seeds=2,
        claims=CLAIMS,
    )


def _synthetic() -> Study:
    """Both losses against either alone and all baselines."""
    steps = 2500
    return Study(
        world=WORLD,
        base=_base(steps=2000),
        variants={
            "both losses": recipe(Weights(), steps),
            "MSM alone": recipe(Weights(mcm_ego=0, mcm_exo=0), steps),
            "MCM alone": recipe(Weights(msm_ego=0, msm_exo=0), steps),
        },
        claims=CLAIMS,
    )


def _base(steps: int) -> BaseTraining:
    """On other people, objects, rooms and cameras."""
    return BaseTraining(world=replace(WORLD, seed=1000, train_takes=110, train_subjects=110), every=8, steps=steps)


def recipe(weights: Weights, steps: int, method: Config = METHOD) -> Recipe:
    """Batches of 8 pairs of recordings."""
    optim = Optim(lr=2e-3, weight_decay=0.1, warmup_steps=50, clip_norm=1.0, batch=8, steps=steps)
    return Recipe(method=replace(method, weights=weights), optim=optim)
