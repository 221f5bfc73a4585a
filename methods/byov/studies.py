"""BYOV's studies on the synthetic world."""

from __future__ import annotations

from dataclasses import replace

from crossview.datasets.synthetic.config import WorldConfig
from crossview.methods.base_config import Base
from crossview.methods.byov.config import Config, Decoder, Encoder, Weights, presets
from crossview.methods.recipe import Optim, Recipe
from crossview.methods.study import BaseTraining, Claim, Study


def studies() -> dict[str, Study]:
    """`quickstart` is one small run from end to end; `synthetic` tests the paper's claim."""
    return {"quickstart": _quickstart(), "synthetic": _synthetic()}


def _quickstart() -> Study:
    return Study(
        world=WorldConfig(
            actions=("pour_milk",), cut="cycle", train_takes=8, val_takes=4, test_takes=1, size_px=128, workers=2
        ),
        layout="synchronized",
        variants={"byov": presets()["debug"]()},
        seeds=1,
        claims=(),
        split="val",
        cache="none",
    )


def _synthetic() -> Study:
    """Both losses against either alone and all baselines, where time does not reveal the phase (cut "cycle")."""
    world = WorldConfig(
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
    method = Config(
        base=Base(model="vit_tiny_patch16_224", weights="random", size_px=128, width=96, depth=3, heads=3),
        encoder=Encoder(width=64, depth=3, heads=4),
        decoder=Decoder(width=64, depth=2, heads=4),
        input_norm="clip",
        target_norm="clip",
    )
    optim = Optim(lr=2e-3, weight_decay=0.1, warmup_steps=50, clip_norm=1.0, batch=8, steps=2500)

    def variant(weights: Weights) -> Recipe:
        return Recipe(method=replace(method, weights=weights), optim=optim)

    return Study(
        world=world,
        base=BaseTraining(world=replace(world, seed=1000, train_takes=110, train_subjects=110), every=8, steps=2000),
        variants={
            "both losses": variant(Weights()),
            "MSM alone": variant(Weights(mcm_ego=0, mcm_exo=0)),
            "MCM alone": variant(Weights(msm_ego=0, msm_exo=0)),
        },
        seeds=3,
        claims=tuple(
            Claim(metric=metric)
            for metric in ("phase_f1/ego2exo", "phase_f1/exo2ego", "map@10/ego2exo", "map@10/exo2ego")
        ),
    )
