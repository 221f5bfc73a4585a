"""Every constant of every EVGAP preset and of its study, beside where it comes from: nothing changes unseen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from geometries import changes

from crossview.methods.base_config import Base
from crossview.methods.evgap.config import Config, presets
from crossview.methods.evgap.studies import studies
from crossview.methods.recipe import Recipe
from crossview.methods.study import CLIPS

# paper_step1. "paper" is the text or the equation named; "silent" marks what the paper does not say.
COMMON: dict[str, tuple[Any, str]] = {
    "method.step": ("pairs", "paper, Eq. 1"),
    "method.input": ("features", "paper: frozen TSM features"),
    "method.feature_width": (2048, "paper: of TSM, per frame"),
    "method.base.model": (
        "vit_base_patch16_clip_quickgelu_224.openai",
        "ours: the methods' common base; not read here",
    ),
    "method.base.weights": ("hub", "ours: published weights; not read here"),
    "method.base.seed": (0, "ours: of random weights; not read here"),
    "method.base.size_px": (224, "that base's"),
    "method.base.mean": ((0.48145466, 0.4578275, 0.40821073), "that base's, open_clip constants.py"),
    "method.base.std": ((0.26862954, 0.26130258, 0.27577711), "that base's, open_clip constants.py"),
    "method.base.chunk": (64, "ours: bounds memory"),
    "method.base.width": (None, "that base's"),
    "method.base.depth": (None, "that base's"),
    "method.base.heads": (None, "that base's"),
    "method.base.patch_px": (None, "that base's"),
    "method.base_grid": (None, "ours: pooled output, as TSM's features are"),
    "method.encoder.width": (512, "paper, encoder"),
    "method.encoder.depth": (6, "paper, encoder: L = 6"),
    "method.encoder.heads": (8, "paper, encoder"),
    "method.encoder.hidden": (2048, "paper, encoder: FFN"),
    "method.encoder.dropout": (0.1, "silent; torch nn.TransformerEncoderLayer, whose defaults the sizes are"),
    "method.encoder.norm": ("post", "paper: LN after each layer; torch nn.TransformerEncoderLayer"),
    "method.ego_views": (4, "paper: M = 4"),
    "method.exo_views": (8, "paper: N = 8"),
    "method.frames": (20, "paper: w1 = 20"),
    "method.fps": (30.0, "paper: Assembly101's annotated rate"),
    "method.window_scale": ((0.5, 2.0), "paper: factor of w1"),
    "method.window_length": ("true", "silent; ours: clips keep their 10 to 40 frames"),
    "method.window_stride": (100, "paper: w2 = 100"),
    "method.clips_per_video": (10, "paper: 10 clips of one video per batch"),
    "method.scale": ("learned", "silent; open_clip model.py"),
    "method.scale_init": (14.285714286, "open_clip model.py: 1 / 0.07; the paper's 1 and log10(1 / 0.7) are unclear"),
    "method.bias": ("learned", "big_vision siglip.py; without it Eq. 2 has a wrong optimum"),
    "method.bias_init": (-10.0, "open_clip main.py, of SigLIP"),
    "method.logits_lr": (1.0, "ours: one rate for all"),
    "method.auxiliary": (0.2, "paper, Eqs. 3 and 4: every weight"),
    "method.gather": (True, "silent on step 1; open_clip's ClipLoss"),
    "optim.optimizer": ("adam", "paper, step 1"),
    "optim.lr": (5e-4, "paper, step 1"),
    "optim.weight_decay": (0.0, "silent; plain Adam has none"),
    "optim.betas": ((0.9, 0.999), "silent; torch's Adam"),
    "optim.momentum": (0.9, "of sgd; not read here"),
    "optim.schedule": ("cosine", "silent; ours"),
    "optim.milestones": ((), "of schedule 'steps'; not read here"),
    "optim.gamma": (0.1, "of schedule 'steps'; not read here"),
    "optim.warmup_steps": (0, "ours: a share instead"),
    "optim.warmup_share": (0.05, "silent; ours"),
    "optim.warmup_lr": (None, "ours: from the first of the warm-up's equal steps"),
    "optim.min_lr": (0.0, "silent; ours"),
    "optim.cosine_over": ("rest", "silent; ours"),
    "optim.clip_norm": (None, "silent; none"),
    "optim.ema_decay": (None, "silent; none"),
    "optim.batch": (20, "paper: 200 pairs = 20 recordings x 10 windows"),
    "optim.epochs": (50, "silent; ours"),
    "optim.steps": (None, "ours: epochs instead"),
    "method.geometry": ({}, "ours: the paper takes features; their base sees the centre"),
    "sampling.views.ego.perspective": ("ego", "paper, Eq. 1"),
    "sampling.views.ego.frames": (20, "paper: w1 = 20"),
    "sampling.views.ego.fps": (30.0, "paper: Assembly101's annotated rate"),
    "sampling.views.ego.spread": ("even", "of whole recordings; not read here"),
    "sampling.views.ego.size_px": (224, "the base's"),
    "sampling.views.ego.geometry": ({}, "method.geometry"),
    "sampling.views.ego.test_px": (None, "the same size"),
    "sampling.views.ego.count": (1, "paper, step 1: any one ego view"),
    "sampling.views.exo.perspective": ("exo", "paper, Eq. 1"),
    "sampling.views.exo.frames": (20, "paper: w1 = 20"),
    "sampling.views.exo.fps": (30.0, "paper: Assembly101's annotated rate"),
    "sampling.views.exo.spread": ("even", "of whole recordings; not read here"),
    "sampling.views.exo.size_px": (224, "the base's"),
    "sampling.views.exo.geometry": ({}, "method.geometry"),
    "sampling.views.exo.test_px": (None, "the same size"),
    "sampling.views.exo.count": (1, "paper, step 1: any one exo view"),
    "sampling.pairing": ("synchronized", "paper: the same time-stamp"),
    "sampling.unit": ("recording", "ours: rows are whole recordings"),
    "sampling.windows": (10, "paper: 10 clips of one video per batch"),
    "sampling.draws": (None, "silent; ours: drawn anew in every epoch"),
    "sampling.window_scale": ((0.5, 2.0), "paper: factor of w1"),
    "sampling.window_scale_spread": ("log", "silent; ours: halving and doubling are as likely"),
    "sampling.window_length": ("true", "silent; ours"),
    "sampling.window_stride": (100, "paper: w2 = 100"),
    "sampling.labels": ({}, "paper: no labels"),
    "sampling.scores": ({}, "paper: no teacher"),
    "sampling.boxes": (0, "paper: no detections"),
}

# What each other preset changes of that.
STEP_2: dict[str, tuple[Any, str]] = {
    "method.step": ("groups", "paper, Eq. 2"),
    "optim.optimizer": ("adamw", "paper, step 2"),
    "optim.lr": (1e-4, "paper, step 2"),
    "optim.weight_decay": (0.05, "silent; ours"),
    "optim.batch": (6, "paper: 64, no multiple of 10; ours: 6 recordings x 10 windows"),
    "optim.epochs": (30, "silent; ours"),
    "sampling.pairing": ("group", "paper: all 12 views of a time-stamp"),
    "sampling.views.ego.count": (4, "paper: M = 4"),
    "sampling.views.exo.count": (8, "paper: N = 8"),
}
LITERAL: dict[str, tuple[Any, str]] = {
    **STEP_2,
    "method.scale": ("fixed", "paper, Eq. 2: t is a number"),
    "method.bias": ("none", "paper, Eq. 2"),
}
DEBUG: dict[str, tuple[Any, str]] = {
    # ours, all of it: a laptop's minute without a download
    "method.input": ("video", "the synthetic world's"),
    "method.base.model": ("vit_tiny_patch16_224", "the smallest ViT of timm"),
    "method.base.weights": ("random", "no download"),
    "method.base.size_px": (96, "the synthetic world's"),
    "method.base.width": (96, "small"),
    "method.base.depth": (2, "small"),
    "method.base.heads": (3, "small"),
    "method.base_grid": (3, "half of the 6 x 6 patches a side"),
    "method.encoder.width": (64, "small"),
    "method.encoder.depth": (3, "small"),
    "method.encoder.heads": (4, "small"),
    "method.encoder.hidden": (128, "small"),
    "method.encoder.dropout": (0.0, "a short run"),
    "method.ego_views": (1, "the synthetic world's"),
    "method.exo_views": (4, "the synthetic world's"),
    "method.frames": (8, "short takes"),
    "method.fps": (15.0, "the synthetic world's"),
    "method.window_stride": (8, "short takes: a window's length"),
    "method.clips_per_video": (4, "short takes"),
    "optim.optimizer": ("adamw", "the default"),
    "optim.lr": (1e-3, "a short run"),
    "optim.weight_decay": (0.05, "the default"),
    "optim.warmup_steps": (10, "a short run"),
    "optim.warmup_share": (None, "steps instead"),
    "optim.clip_norm": (1.0, "a short run at a high rate"),
    "optim.batch": (4, "16 pairs: 4 recordings x 4 windows"),
    "optim.epochs": (None, "steps instead"),
    "optim.steps": (60, "a short run"),
    "sampling.views.ego.frames": (8, "method.frames"),
    "sampling.views.ego.fps": (15.0, "method.fps"),
    "sampling.views.ego.size_px": (96, "method.base.size_px"),
    "sampling.views.exo.frames": (8, "method.frames"),
    "sampling.views.exo.fps": (15.0, "method.fps"),
    "sampling.views.exo.size_px": (96, "method.base.size_px"),
    "sampling.windows": (4, "method.clips_per_video"),
    "sampling.window_stride": (8, "method.window_stride"),
}
PRESETS: dict[str, dict[str, tuple[Any, str]]] = {
    "paper_step1": {},
    "paper_step2": STEP_2,
    "paper_literal_raw": {**LITERAL, "method.scale_init": (0.15490196, "paper: log10(1 / 0.7) as it stands")},
    "paper_literal_exp": {**LITERAL, "method.scale_init": (1.16754349, "its e-th power")},
    "paper_literal_ten": {**LITERAL, "method.scale_init": (1.428571429, "its power of ten: 1 / 0.7")},
    "paper_literal_clip": {**LITERAL, "method.scale_init": (14.285714286, "a slip for CLIP's ln(1 / 0.07)")},
    "debug": DEBUG,
}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names; an empty one is a value. Nine decimals of a float."""
    if name.endswith("geometry"):
        return {name: changes(value)}
    if not isinstance(value, dict) or not value:
        return {name: round(value, 9) if isinstance(value, float) else value}
    shown = {key: inner for key, inner in value.items() if key != "label_options"}  # for messages
    return {k: v for key, inner in shown.items() for k, v in flat(inner, f"{name}.{key}" if name else key).items()}


def resolved(recipe: Recipe) -> dict[str, Any]:
    return flat(dataclasses.asdict(recipe) | {"sampling": dataclasses.asdict(recipe.method.sampling())})


def values(*tables: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    return {name: value for table in tables for name, (value, _) in table.items()}


def test_the_table_names_every_preset() -> None:
    assert list(presets()) == list(PRESETS)
    assert {name for table in PRESETS.values() for name in table} <= COMMON.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_every_constant_of_a_preset_is_the_tables(name: str) -> None:
    found, expected = resolved(presets()[name]()), values(COMMON, PRESETS[name])
    assert found == expected
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in expected.items()}


def test_the_defaults_are_step_1s() -> None:
    assert Config() == presets()["paper_step1"]().method
    assert presets()["paper_step2"]().method == Config(step="groups")


# The study: ours throughout, chosen on val (README, "On the synthetic world").

STUDY: dict[str, Any] = values(DEBUG) | {
    "method.base.depth": 3,
    "method.base.patch_px": 12,
    "method.base_grid": 4,
    "method.encoder.width": 96,
    "method.encoder.depth": 4,
    "method.encoder.hidden": 192,
    "method.encoder.dropout": 0.1,
    "method.encoder.norm": "pre",
    "method.exo_views": 3,
    "method.frames": 7,
    "method.fps": 5.0,
    "method.window_stride": 25,
    "optim.optimizer": "adam",
    "optim.lr": 2e-3,
    "optim.weight_decay": 0.0,
    "optim.warmup_steps": 0,
    "optim.warmup_share": 0.05,
    "optim.batch": 24,
    "optim.steps": 250,
    "sampling.views.ego.frames": 7,
    "sampling.views.ego.fps": 5.0,
    "sampling.views.exo.frames": 7,
    "sampling.views.exo.fps": 5.0,
    "sampling.window_stride": 25,
}
STUDY_STEP_2: dict[str, Any] = {
    "method.step": "groups",
    "method.scale_init": 20.0,
    "method.bias_init": -16.0,
    "method.logits_lr": 20.0,
    "optim.optimizer": "adamw",
    "optim.weight_decay": 0.05,
    "optim.batch": 12,
    "optim.steps": 300,
    "sampling.pairing": "group",
    "sampling.views.exo.count": 3,
}
ARMS: dict[str, dict[str, Any]] = {
    "step 1+2": STUDY_STEP_2,
    "step 1": {},
    "step 1 longer": {"optim.lr": 1e-3, "optim.steps": 300},
    "step 1 early": {"optim.steps": 62},
    "step 1 early, no auxiliary losses": {"optim.steps": 62, "method.auxiliary": 0.0},
}


def test_every_constant_of_the_study_is_the_tables() -> None:
    study = studies()["synthetic"]
    assert list(studies()) == ["synthetic"]
    assert {name: resolved(recipe) for name, recipe in study.variants.items()} == {
        name: values(COMMON) | STUDY | change for name, change in ARMS.items()
    }
    assert next(iter(study.variants)) == "step 1+2"  # what the study is about
    assert study.starts == {"step 1+2": "step 1", "step 1 longer": "step 1"}
    assert (study.world, study.layout, study.train_actions, study.teachers) == (CLIPS, "synchronized", None, None)
    assert study.train_views == ("head", "exo1", "exo3", "exo4")
    assert study.base is not None
    assert study.base.world == dataclasses.replace(CLIPS, seed=1000, train_takes=28, train_subjects=28)
    assert (study.base.every, study.base.steps) == (8, 2500)
    assert (study.seeds, study.tasks, study.split, study.cache) == (5, ("retrieval",), "test", "features")
    seen, held_out = "retrieval/R@1/seen", "retrieval/R@1/held_out"
    others = ("random init", "step 1", "frozen features")
    assert [(claim.metric, claim.variant, claim.over, claim.at_least) for claim in study.claims] == [
        (seen, None, others, None),
        (held_out, None, others, None),
        (seen, "step 1", ("random init", "frozen features"), None),
        (held_out, "step 1", ("random init", "frozen features"), None),
        (seen, "step 1 early", ("step 1 early, no auxiliary losses",), None),
    ]


# What is derived from a configuration.


def test_frozen_features_are_shared_by_runs_of_one_base_and_grid() -> None:
    base = Base(model="resnet10t", weights="random", size_px=64)
    config = Config(input="video", base=base)
    assert config.features_key() == {
        "grid": None,
        "model": "resnet10t",
        "weights": "random",
        "seed": 0,
        "size_px": 64,
        "mean": (0.48145466, 0.4578275, 0.40821073),
        "std": (0.26862954, 0.26130258, 0.27577711),
        "width": None,
        "depth": None,
        "heads": None,
        "patch_px": None,
    }
    assert dataclasses.replace(config, base_grid=3).features_key()["grid"] == 3


def test_a_checkpoint_brings_the_weights_of_its_base() -> None:
    config = Config(input="video", step="groups", base=Base(size_px=96))
    expected = dataclasses.replace(config, base=Base(size_px=96, weights="random"))
    assert config.without_pretrained() == expected
