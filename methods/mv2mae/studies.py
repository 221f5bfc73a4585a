"""MV2MAE's study on the synthetic world."""

from __future__ import annotations

from dataclasses import replace

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods.mv2mae.config import Config, Masking, Motion, Transformer, Weights
from crossview.methods.recipe import Optim, Recipe
from crossview.methods.study import CLIPS, Claim, Study

DECODER = Transformer(width=96, depth=3, heads=4)
METHOD = Config(
    frames=2,
    fps=15 / 8,
    size_px=64,
    patch_px=16,
    encoder=Transformer(width=96, depth=2, heads=4),
    same_decoder=DECODER,
    cross_decoder=DECODER,
    positions="grid",
    masking=Masking(ratio=0.6, kind="tube"),
    weights=Weights(same_source=0.1, same_target=0.1),
    swap_roles=True,
    target_norm="channel",
    geometry=Geometry(),
    embed_stride=8,
)
"""Tokens of 16 pixels at 64 x 64, one tubelet per clip, tube masking and small weights of the same-view losses let a
small network learn to use the source within a few hundred steps; more cameras or frames take longer."""
SAME_VIEW, NO_MOTION = "same-view only", "no motion weights"


def studies() -> dict[str, Study]:
    """`synthetic` checks that the source is used, and that this helps to recognise actions from an unseen camera."""
    return {"synthetic": _synthetic()}


def _synthetic() -> Study:
    """Four actions seen by two cameras; a third one, placed between them, is held out of training."""
    steps = 900
    return Study(
        world=CLIPS,
        layout="synchronized",
        train_views=("exo1", "exo3"),
        variants={
            "mv2mae": recipe(METHOD, steps),
            SAME_VIEW: recipe(replace(METHOD, weights=replace(METHOD.weights, cross=0.0)), steps),
            NO_MOTION: recipe(replace(METHOD, motion=Motion(temperature=None)), steps),
        },
        tasks=("measures", "action_probe"),
        claims=(
            Claim(metric="measures/cross_view_gain", at_least=0.10),
            Claim(metric="measures/cross_view_gain", over=(NO_MOTION,)),
            Claim(metric="measures/cross_view_gain/moving", over=(NO_MOTION,)),
            Claim(metric="action_probe/linear/held_out"),
        ),
        cache="frames",
    )


def recipe(method: Config, steps: int) -> Recipe:
    """Batches of 32 pairs of clips."""
    return Recipe(
        method=method,
        optim=Optim(
            lr=4e-3, weight_decay=0.2, betas=(0.9, 0.95), warmup_share=0.05, clip_norm=1.0, batch=32, steps=steps
        ),
    )
