"""MV2MAE's study on the synthetic world."""

from __future__ import annotations

from dataclasses import replace

from crossview.datasets.synthetic.config import WorldConfig
from crossview.methods.mv2mae.config import Config, Masking, Motion, Transformer, Weights
from crossview.methods.recipe import Optim, Recipe
from crossview.methods.study import Claim, Study

SAME_VIEW, NO_MOTION, RANDOM = "same-view only", "no motion weights", "random init"


def studies() -> dict[str, Study]:
    """`synthetic` checks that the source is used, and that its use helps actions on a camera that was never seen."""
    return {"synthetic": _synthetic()}


def _synthetic() -> Study:
    """Four actions, four cameras that train and a fifth that does not; frames of 32 pixels, and all actions' scenes."""
    world = WorldConfig(
        cut="cycle",
        size_px=96,
        train_takes=32,
        val_takes=8,
        test_takes=16,
        train_subjects=32,
        val_subjects=8,
        test_subjects=16,
        held_out_cameras=False,
        workers=2,
    )
    decoder = Transformer(width=64, depth=2, heads=4)
    method = Config(
        frames=4,
        fps=15 / 8,
        size_px=32,
        patch_px=8,
        encoder=Transformer(width=96, depth=3, heads=4),
        same_decoder=decoder,
        cross_decoder=decoder,
        positions="grid",
        masking=Masking(ratio=0.7, kind="tube"),
        motion=Motion(temperature=15.0),
        weights=Weights(same_source=0.3, same_target=0.3),
        swap_roles=True,
        crop_scales=(),
        embed_stride=8,
    )
    optim = Optim(lr=3e-3, betas=(0.9, 0.95), warmup_share=0.05, clip_norm=1.0, batch=32, steps=1300)

    def arm(**changed: Weights | Motion) -> Recipe:
        return Recipe(method=replace(method, **changed), optim=optim)  # type: ignore[arg-type]

    return Study(
        world=world,
        layout="synchronized",
        train_views=("head", "exo1", "exo3", "exo4"),
        arms={
            "mv2mae": arm(),
            SAME_VIEW: arm(weights=replace(method.weights, cross=0.0)),
            NO_MOTION: arm(motion=Motion(temperature=None)),
        },
        seeds=3,
        tasks=("measures", "actions"),
        claims=(
            Claim(metric="measures/cross_view_gain", at_least=0.10),
            Claim(metric="actions/linear/held_out", over=(SAME_VIEW, RANDOM, NO_MOTION)),
        ),
        cache="frames",
    )
