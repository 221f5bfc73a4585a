"""Ego-Exo's study on the synthetic world."""

from __future__ import annotations

from dataclasses import replace

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods.egoexo.config import ACTIONS_ALONE, Backbone, Config
from crossview.methods.recipe import Optim, Recipe
from crossview.methods.study import CLIPS, Claim, Study, TeacherTraining

SIGNALS, ALONE = "three signals", "actions alone"
METHOD = Config(
    backbone=Backbone(
        width=16,
        alpha=2,
        beta_inverse=4,
        blocks=(1, 1, 1, 1),
        temporal_blocks=(1, 1, 1, 1),
        strides=(1, 2, 2, 1),
        fusion_kernel=5,
    ),
    classes={"action": 4},
    object_classes=11,  # of the synthetic world, without hands (datasets/synthetic/teachers.py)
    ego_temperature=4.0,  # the teacher is confident on nearly all exo clips; how exo they look still varies
    frames=4,
    fps=3.0,
    perspective="exo",
    frame_px=64,
    crop_px=64,
    geometry=Geometry(),
    short_side_px=(64, 76),
    recolour=0.3,
    boxes=8,
    map_width=32,
)


def studies() -> dict[str, Study]:
    """`synthetic` checks the paper's claims on the synthetic world."""
    return {"synthetic": _synthetic()}


def _synthetic() -> Study:
    """Pre-training on exo clips with the three signals or the action loss alone, then fine-tuning on few ego clips.

    Pre-training uses two of the world's four actions; the ego clips show all four, as a downstream dataset has its own
    labels.
    """
    return Study(
        world=CLIPS,
        layout="synchronized",
        train_views=("head", "exo1", "exo3", "exo4"),
        train_actions=("crack_egg", "pour_milk"),
        teachers=teachers(),
        variants={
            SIGNALS: recipe(METHOD, steps=600),
            ALONE: recipe(replace(METHOD, weights=ACTIONS_ALONE), steps=600),
        },
        tasks=("measures", "few_clips"),
        claims=(
            Claim(metric="measures/ego_score", at_least=0.25),
            Claim(metric="measures/object_score", at_least=0.4),
            Claim(metric="measures/hand_map", at_least=0.25),
            Claim(metric="measures/object_map", at_least=0.25),
            Claim(metric="few_clips/accuracy/ego", over=(ALONE, "random init")),
        ),
        cache="frames",
    )


def recipe(method: Config, steps: int) -> Recipe:
    """Batches of 32 clips."""
    return Recipe(method=method, optim=Optim(lr=4e-3, weight_decay=0.05, warmup_share=0.05, batch=32, steps=steps))


def teachers() -> TeacherTraining:
    """Ego-vs-exo classifier trained on other people, objects and rooms than the study's, with balanced classes."""
    method = replace(
        METHOD,
        backbone=replace(METHOD.backbone, width=8),
        weights=replace(ACTIONS_ALONE, action=1),
        classes={"perspective": 2},
        perspective="any",
    )
    return TeacherTraining(
        world=replace(
            CLIPS, seed=1000, train_takes=8, val_takes=0, test_takes=0, exo_cameras=2, ego_cameras=2, workers=2
        ),
        recipe=recipe(method, steps=300),
        clips=4,
    )
