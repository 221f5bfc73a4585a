"""Every value of every Ego-Exo preset: options, optimiser and the batch that follows from them.

Places: "released" is the authors' code (facebookresearch/Ego-Exo: configs/ego-exo/..., models/, datasets/), whose
configurations are the authority for every number; "ours" is a choice of this repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from geometries import changes

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods.egoexo.config import presets

# kinetics400, all of it: released configs/ego-exo/k400/ with SlowFast R50, unless the line says otherwise.
BASE: dict[str, Any] = {
    "method.stage": "pretrain",
    "method.unit": "recording",
    "method.backbone.pathways": "slowfast",
    "method.backbone.blocks": (3, 4, 6, 3),  # ResNet-50
    "method.backbone.temporal_blocks": (3, 4, 6, 3),
    "method.backbone.strides": (1, 2, 2, 2),
    "method.backbone.width": 64,
    "method.backbone.alpha": 4,  # released SLOWFAST.ALPHA
    "method.backbone.beta_inverse": 8,  # released SLOWFAST.BETA_INV
    "method.backbone.fusion_ratio": 2,  # released SLOWFAST.FUSION_CONV_CHANNEL_RATIO
    "method.backbone.fusion_kernel": 7,  # released SLOWFAST.FUSION_KERNEL_SZ of R50
    "method.backbone.zero_init_residual": True,  # PySlowFast RESNET.ZERO_INIT_FINAL_BN
    "method.weights.action": 0.5,  # released LOSS.CE_LOSS_WEIGHT
    "method.weights.ego": 0.1,  # released KD.ALPHA_LIST[0]
    "method.weights.object": 0.5,  # released KD.ALPHA_LIST[1]
    "method.weights.hand_map": 1.0,  # released HANDOBJ.HAND_LOSS_WEIGHT
    "method.weights.object_map": 1.0,  # released HANDOBJ.OBJ_LOSS_WEIGHT
    "method.classes": {"action": 400},
    "method.action_loss": "cross_entropy",
    "method.object_classes": 1000,  # ImageNet-1k
    "method.ego_temperature": 1.0,  # released KD.T_LIST[0]
    "method.object_temperature": 1.0,  # released KD.T_LIST[1]
    "method.frames": 32,  # released DATA.NUM_FRAMES
    "method.fps": 15.0,  # released DATA.SAMPLING_RATE 2 of 30 frames a second
    "method.perspective": "any",  # ours: Kinetics has no perspective labels
    "method.frame_px": 256,  # released DATA.TEST_CROP_SIZE; square frames are ours
    "method.crop_px": 224,  # released DATA.TRAIN_CROP_SIZE
    "method.geometry": {"crop": "random", "short_px": (256, 320)},  # released DATA.TRAIN_JITTER_SCALES
    "method.short_side_px": None,  # of the versions that cropped on the device
    "method.flip": 0.5,
    "method.recolour": 0.0,  # ours; not in the released code
    "method.boxes": 16,  # ours: tensors have one size
    "method.map_target": "soft",  # released HANDOBJ "soft" in every configuration
    "method.map_width": 512,  # released HEAD_CONV_DIM
    "method.dropout": 0.0,  # released MODEL.DROPOUT_RATE with the signals
    "optim.optimizer": "sgd",
    "optim.lr": 0.8,
    "optim.weight_decay": 1e-4,
    "optim.betas": (0.9, 0.999),  # unused by sgd
    "optim.momentum": 0.9,  # released SOLVER.MOMENTUM, with SOLVER.NESTEROV
    "optim.schedule": "cosine",
    "optim.milestones": (),
    "optim.gamma": 0.1,  # unused by the cosine
    "optim.warmup_steps": 0,
    "optim.warmup_share": 34 / 200,  # released SOLVER.WARMUP_EPOCHS of SOLVER.MAX_EPOCH
    "optim.warmup_lr": 0.08,  # released SOLVER.WARMUP_START_LR
    "optim.min_lr": 0.0,
    "optim.cosine_over": "run",  # PySlowFast utils/lr_policy.py
    "optim.clip_norm": None,
    "optim.ema_decay": None,
    "optim.batch": 512,  # released: 64 on each of 8 nodes, the latter by a comment
    "optim.epochs": 200,
    "optim.steps": None,
    "sampling.views.clip.perspective": "any",
    "sampling.views.clip.frames": 32,
    "sampling.views.clip.fps": 15.0,
    "sampling.views.clip.spread": "even",
    "sampling.views.clip.geometry": {"crop": "random", "short_px": (256, 320)},
    "sampling.views.clip.size_px": 224,  # released DATA.TRAIN_CROP_SIZE
    "sampling.views.clip.test_px": 256,  # released DATA.TEST_CROP_SIZE
    "sampling.views.clip.count": 1,
    "sampling.pairing": "single",
    "sampling.unit": "recording",
    "sampling.windows": 1,
    "sampling.draws": None,
    "sampling.window_scale": (1.0, 1.0),
    "sampling.window_scale_spread": "uniform",
    "sampling.window_length": "resampled",
    "sampling.window_stride": None,
    "sampling.labels": {"action": 400},
    "sampling.scores": {"ego": 2, "object": 1000},
    "sampling.boxes": 16,
}
# PySlowFast's Slow 8x8 is R50's slow pathway alone: 8 frames, 8 frames of the source apart.
SLOW = {"method.backbone.pathways": "slow", "method.frames": 8, "sampling.views.clip.frames": 8}
R101 = {
    "method.backbone.blocks": (3, 4, 23, 3),
    "method.backbone.temporal_blocks": (3, 4, 23, 3),  # gives the published 61,904,968 parameters
    "method.backbone.fusion_kernel": 5,  # released SLOWFAST.FUSION_KERNEL_SZ of R101
}
ALONE = {
    "method.weights.ego": 0,
    "method.weights.object": 0,
    "method.weights.hand_map": 0,
    "method.weights.object_map": 0,
    "sampling.scores": {},
    "sampling.boxes": 0,
}
# The plain network: PySlowFast's own configuration.
BASELINE = ALONE | {"method.weights.action": 1.0, "method.dropout": 0.5}
FINETUNED = BASELINE | {
    "method.stage": "finetune",
    "method.perspective": "ego",
    "sampling.views.clip.perspective": "ego",
    "optim.warmup_share": None,
    "optim.warmup_lr": None,
    "optim.cosine_over": "rest",  # no warm-up: the same cosine
}
# Released configs of Charades-Ego; 24 frames a second.
CHARADES = FINETUNED | {
    "method.classes": {"action": 157},
    "method.action_loss": "binary",
    "method.fps": 12.0,
    "sampling.views.clip.fps": 12.0,
    "sampling.labels": {"action": 157},
    "optim.lr": 0.25,
    "optim.batch": 64,
    "optim.epochs": 60,
}
# Released configs of EPIC-KITCHENS; 60 frames a second.
EPIC = FINETUNED | {
    "method.unit": "verb",
    "sampling.unit": "verb",
    "method.fps": 30.0,
    "sampling.views.clip.fps": 30.0,
    "optim.schedule": "steps",
    "optim.milestones": (20 / 30, 25 / 30),
    "optim.epochs": 30,
}
EPIC55 = EPIC | {
    "method.classes": {"verb": 125, "noun": 352},
    "sampling.labels": {"verb": 125, "noun": 352},
    "optim.lr": 0.01,
    "optim.batch": 64,
}
EPIC100 = EPIC | {
    "method.classes": {"verb": 97, "noun": 300},
    "sampling.labels": {"verb": 97, "noun": 300},
    "optim.lr": 0.02,
    "optim.batch": 128,  # released: 64 on each of 2 nodes
}
# Released Ego_Exo_star_*.yaml: HANDOBJ.HAND_LOSS_WEIGHT and OBJ_LOSS_WEIGHT.
CHARADES_STAR = {"method.weights.hand_map": 0.1, "method.weights.object_map": 0.1, "sampling.boxes": 16}
EPIC_STAR = {"method.weights.hand_map": 3.0, "method.weights.object_map": 3.0, "sampling.boxes": 16}
# Ours: the released code trains no ego teacher.
EGO_TEACHER = BASELINE | {
    "method.classes": {"perspective": 2},
    "sampling.labels": {"perspective": 2},
    "optim.lr": 0.1,
    "optim.warmup_share": None,
    "optim.warmup_lr": None,
    "optim.cosine_over": "rest",
    "optim.batch": 64,
    "optim.epochs": 10,
}
# Ours: small enough for a laptop, classes of the synthetic world.
DEBUG = {
    "method.backbone.blocks": (1, 1, 1, 1),
    "method.backbone.temporal_blocks": (1, 1, 1, 1),
    "method.backbone.strides": (1, 2, 2, 1),
    "method.backbone.width": 16,
    "method.backbone.beta_inverse": 4,
    "method.backbone.fusion_kernel": 5,
    "method.backbone.zero_init_residual": False,
    "method.classes": {"action": 4},
    "method.object_classes": 11,
    "method.frames": 8,
    "method.frame_px": 64,
    "method.crop_px": 64,
    "method.geometry": {},
    "method.short_side_px": (64, 80),
    "method.boxes": 8,
    "method.map_width": 32,
    "optim.lr": 0.05,
    "optim.warmup_share": 0.1,
    "optim.warmup_lr": None,
    "optim.cosine_over": "rest",
    "optim.batch": 8,
    "optim.epochs": None,
    "optim.steps": 150,
    "sampling.views.clip.frames": 8,
    "sampling.views.clip.geometry": {},
    "sampling.views.clip.size_px": 64,
    "sampling.views.clip.test_px": 64,
    "sampling.labels": {"action": 4},
    "sampling.scores": {"ego": 2, "object": 11},
    "sampling.boxes": 8,
}


def slow(fps: float) -> dict[str, Any]:
    return SLOW | {"method.fps": fps, "sampling.views.clip.fps": fps}


PRESETS: dict[str, dict[str, Any]] = {
    "kinetics400": {},
    "kinetics400_slow_r50": slow(3.75),
    "kinetics400_r101": R101,  # ours: no released pre-training configuration of R101, so R50's
    "kinetics400_baseline": BASELINE,
    "kinetics400_slow_r50_baseline": BASELINE | slow(3.75),
    "kinetics400_r101_baseline": BASELINE | R101,
    "charades_ego_slow_r50": CHARADES | slow(3.0),
    "charades_ego": CHARADES,
    "charades_ego_star": CHARADES | CHARADES_STAR,
    "charades_ego_r101": CHARADES | R101,
    "charades_ego_r101_star": CHARADES | R101 | CHARADES_STAR,
    "epic55": EPIC55,
    "epic55_star": EPIC55 | EPIC_STAR,
    "epic100": EPIC100,
    "epic100_star": EPIC100 | EPIC_STAR,
    "epic100_r101": EPIC100 | R101,
    "epic100_r101_star": EPIC100 | R101 | EPIC_STAR,
    "ego_teacher": EGO_TEACHER | slow(3.0),
    "debug": DEBUG,
}


def flat(value: object, name: str) -> dict[str, Any]:
    """Every field of a dataclass, and of those in it, by its dotted name; dicts of plain values stay whole."""
    if isinstance(value, Geometry):
        return {name: changes(value)}
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value) if f.name != "label_options"}  # for messages
    elif isinstance(value, Mapping) and value and all(is_dataclass(v) for v in value.values()):
        parts = dict(value)
    else:
        return {name: value}
    return {key: leaf for part, v in parts.items() for key, leaf in flat(v, f"{name}.{part}").items()}


def test_there_are_no_other_presets() -> None:
    assert set(presets()) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_exactly_these_values(preset: str) -> None:
    recipe = presets()[preset]()
    assert {f.name for f in fields(recipe)} == {"method", "optim"}
    found = flat(recipe.method, "method") | flat(recipe.optim, "optim") | flat(recipe.method.sampling(), "sampling")
    assert found == BASE | PRESETS[preset]
