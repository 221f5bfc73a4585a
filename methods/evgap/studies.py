"""EVGAP's study on the synthetic world."""

from __future__ import annotations

from dataclasses import replace

from crossview.methods.base_config import Base
from crossview.methods.evgap.config import Config, Encoder
from crossview.methods.recipe import Optim, Recipe
from crossview.methods.study import CLIPS, BaseTraining, Claim, Study

FIRST, SECOND, LONGER = "step 1", "step 1+2", "step 1 longer"
EARLY, BARE = "step 1 early", "step 1 early, no auxiliary losses"
STEPS_1, STEPS_2 = 250, 300
BASE = Base(model="vit_tiny_patch16_224", weights="random", size_px=96, width=96, depth=3, heads=3, patch_px=12)
METRICS = ("retrieval/R@1/seen", "retrieval/R@1/held_out")


def studies() -> dict[str, Study]:
    """`synthetic` checks that each of the two steps improves cross-view retrieval."""
    return {"synthetic": _synthetic()}


def _synthetic() -> Study:
    """Random init, step 1 and step 1+2 by cross-view retrieval; early step 1 with and without auxiliary losses.

    "step 1 longer" spends step 2's steps on pairs instead; no claim is made about it.
    """
    return Study(
        world=CLIPS,
        layout="synchronized",
        train_views=("head", "exo1", "exo3", "exo4"),
        base=BaseTraining(world=replace(CLIPS, seed=1000, train_takes=28, train_subjects=28), every=8, steps=2500),
        variants={
            SECOND: groups(STEPS_2),
            FIRST: pairs(STEPS_1),
            LONGER: pairs(STEPS_2, lr=1e-3),
            EARLY: pairs(STEPS_1 // 4),
            BARE: pairs(STEPS_1 // 4, auxiliary=0.0),
        },
        starts={SECOND: FIRST, LONGER: FIRST},
        tasks=("retrieval",),
        claims=(
            *(Claim(metric=m, over=("random init", FIRST, "frozen features")) for m in METRICS),
            *(Claim(metric=m, variant=FIRST, over=("random init", "frozen features")) for m in METRICS),
            Claim(metric=METRICS[0], variant=EARLY, over=(BARE,)),
        ),
    )


def _method() -> Config:
    """A small encoder on a small base; windows of about 20 frames at the world's 15 fps, every third one used."""
    return Config(
        input="video",
        base=BASE,
        base_grid=4,
        encoder=Encoder(width=96, depth=4, heads=4, hidden=192, norm="pre"),
        ego_views=1,
        exo_views=3,
        frames=7,
        fps=5.0,
        window_stride=25,
        clips_per_video=4,
    )


def pairs(steps: int, *, lr: float = 2e-3, auxiliary: float = 0.2) -> Recipe:
    """Step 1 on 96 pairs: 24 recordings x 4 windows, a quarter of a recording apart."""
    optim = Optim(optimizer="adam", lr=lr, weight_decay=0.0, warmup_share=0.05, clip_norm=1.0, batch=24, steps=steps)
    return Recipe(method=replace(_method(), auxiliary=auxiliary), optim=optim)


def groups(steps: int) -> Recipe:
    """Step 2 on 48 groups; the boundary of positives and negatives starts at a cosine of 0.8, where step 1 ends."""
    method = replace(_method(), step="groups", scale_init=20.0, bias_init=-16.0, logits_lr=20.0)
    optim = Optim(lr=2e-3, weight_decay=0.05, warmup_share=0.05, clip_norm=1.0, batch=12, steps=steps)
    return Recipe(method=method, optim=optim)
