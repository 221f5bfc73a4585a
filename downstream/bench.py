"""The bench: all methods at equal compute on one world, scored by the same tasks."""

from __future__ import annotations

from dataclasses import replace

from crossview.downstream.segmentation.config import Config as Segmentation
from crossview.methods.byov import studies as byov
from crossview.methods.egoexo import studies as egoexo
from crossview.methods.egoexo.config import ACTIONS_ALONE
from crossview.methods.evgap import studies as evgap
from crossview.methods.mv2mae import studies as mv2mae
from crossview.methods.recipe import Optim, Recipe
from crossview.methods.study import CLIPS, BaseTraining, Claim, Study

BUDGET = 6e12
"""Floating-point operations that train a row, forward and backward, EVGAP's two steps together. The frozen base, whose
features EVGAP and BYOV read, is computed once and does not count. `tests/test_bench.py` counts every recipe's."""
EVGAP, BYOV, MV2MAE, EGOEXO = "EVGAP", "BYOV", "MV2MAE", "Ego-Exo"
STEP_1, SUPERVISED = "EVGAP, step 1 alone", "supervised"
METHODS = (EVGAP, BYOV, MV2MAE, EGOEXO)
WORLD = replace(CLIPS, train_takes=16, val_takes=4, test_takes=8, train_subjects=16, val_subjects=4, test_subjects=8)
CONTROLS = {
    EVGAP: ("random init", "frozen features"),
    BYOV: ("random init", "frozen features"),
    MV2MAE: ("random init", "pixels", "frame differences"),
    EGOEXO: ("random init",),
}
"""Of each method, beside those of the tasks."""
HEADLINES = (
    "phase_f1/regular",
    "phase_f1/ego2exo",
    "retrieval/R@1/seen",
    "retrieval/R@1/held_out",
    "segmentation/f1@50",
    "action_probe/linear/seen",
    "action_probe/linear/held_out",
    "few_clips/accuracy/ego",
)
"""The printed columns; all other scores are in the file."""


def studies() -> dict[str, Study]:
    """`synthetic`: each method as its own study trains it, as long as the budget allows, and an upper row."""
    return {"synthetic": _synthetic()}


def _synthetic() -> Study:
    """Four actions, a worn camera and four fixed ones, of which exo2 is held out of training.

    "supervised" is Ego-Exo's backbone as a classifier of all cameras' clips with all labels; Ego-Exo itself reads the
    labels of its exo clips. EVGAP, BYOV and MV2MAE read none.
    """
    return Study(
        world=WORLD,
        layout="synchronized",
        train_views=("head", "exo1", "exo3", "exo4"),
        base=BaseTraining(world=replace(WORLD, seed=1000, train_takes=28, train_subjects=28), every=8, steps=2500),
        teachers=egoexo.teachers(),
        variants={
            EVGAP: evgap.groups(550),
            BYOV: byov.recipe(byov.Weights(), 3000, replace(byov.METHOD, base=evgap.BASE)),
            MV2MAE: mv2mae.recipe(mv2mae.METHOD, 900),
            EGOEXO: egoexo.recipe(egoexo.METHOD, 550),
            SUPERVISED: egoexo.recipe(replace(egoexo.METHOD, weights=ACTIONS_ALONE, perspective="any"), 600),
            STEP_1: evgap.pairs(450),
        },
        starts={EVGAP: STEP_1},
        controlled=METHODS,
        trainers={"segmentation": _segmentation()},
        tasks=("phases", "retrieval", "action_probe", "few_clips"),
        claims=tuple(
            Claim(metric=metric, variant=name, over=_controls(name, metric)) for name in METHODS for metric in HEADLINES
        ),
    )


def _controls(name: str, metric: str) -> tuple[str, ...]:
    """The rows that a method has to beat in a metric."""
    task = metric.partition("/")[0]
    shared = {"phase_f1": ("time only",), "retrieval": ("chance",), "action_probe": ("majority",)}
    if task == "few_clips":
        return f"{name}: random init", f"{name}: frozen head only"
    own = CONTROLS[name][:2] if task == "segmentation" else CONTROLS[name]  # trained on these two of a method alone
    return (*(f"{name}: {row}" for row in own), *shared.get(task, ("majority",)))


def _segmentation() -> Recipe:
    """C2F-TCN on 4 frames per step, of every phase of every action."""
    return Recipe(
        method=Segmentation(kind="phase", chunk=4, max_steps=64),
        optim=Optim(optimizer="adam", lr=1e-3, weight_decay=1e-4, schedule="constant", batch=8, steps=300),
    )
