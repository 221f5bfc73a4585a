"""Every preset of BYOV and every recipe of its studies, field by field, with the place that each value comes from.

Places: "paper", what arXiv 2503.19706 states; "released", the authors' code or scripts where the paper is silent or
both agree; "ours: reason". A field that is added, removed or changed anywhere fails here until its row says why.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from geometries import changes

from crossview.methods.byov.config import presets
from crossview.methods.byov.studies import studies
from crossview.methods.recipe import Recipe

Table = dict[str, tuple[Any, str]]

SILENT = "ours: off, neither the paper nor the released code has it"

BREAK_EGGS: Table = {
    "method.base.model": (
        "vit_base_patch16_clip_quickgelu_224.openai",
        "paper, main table: CLIP ViT-B/16; released code: OpenAI's weights, whose activation is QuickGELU",
    ),
    "method.base.weights": ("hub", "released code: downloads OpenAI's weights (the paper says LAION-400M)"),
    "method.base.seed": (0, "ours: of random weights, unused here"),
    "method.base.size_px": (224, "paper: 224x224 input"),
    "method.base.mean": ((0.48145466, 0.4578275, 0.40821073), "released code: CLIP's mean"),
    "method.base.std": ((0.26862954, 0.26130258, 0.27577711), "released code: CLIP's standard deviation"),
    "method.base.chunk": (64, "ours: bounds memory, changes no result"),
    "method.base.width": (None, "ours: the named ViT's own"),
    "method.base.depth": (None, "ours: the named ViT's own"),
    "method.base.heads": (None, "ours: the named ViT's own"),
    "method.base.patch_px": (None, "ours: the named ViT's own"),
    "method.encoder.width": (256, "paper, latent-width sweep: 256 is best overall"),
    "method.encoder.depth": (12, "paper: 12 blocks; released run.sh the same"),
    "method.encoder.heads": (16, "released code: 16 heads (the paper states none)"),
    "method.encoder.mlp_ratio": (4.0, "released code: 4.0 (the paper states none)"),
    "method.decoder.width": (256, "paper: 256"),
    "method.decoder.depth": (4, "paper: 4 blocks; released run.sh the same"),
    "method.decoder.heads": (16, "released code: 16 heads (the paper states none)"),
    "method.decoder.mlp_ratio": (4.0, "released code: 4.0 (the paper states none)"),
    "method.frames": (32, "paper: 32 frames; released scripts the same"),
    "method.stm_ratio": (0.3, "paper, section 3.2 and ratio ablation: 30 %"),
    "method.stm_evaluation_gap": ("adjacent", "released code: the next frame that is read, adjacent in evaluation"),
    "method.msm_ratio": (0.4, "paper, section 3.3 and ratio ablation: 40 %"),
    "method.mcm_ratio": (0.8, "paper, section 3.4 and ratio ablation: 80 %; released code: twice 0.4"),
    "method.weights.msm_ego": (1.0, "paper, joint loss: L_MSM + L_MCM, equal weights (released code: 0.5)"),
    "method.weights.msm_exo": (1.0, "paper, joint loss: L_MSM + L_MCM, equal weights (released code: 0.5)"),
    "method.weights.mcm_ego": (1.0, "paper, joint loss: L_MSM + L_MCM, equal weights"),
    "method.weights.mcm_exo": (1.0, "paper, joint loss: L_MSM + L_MCM, equal weights"),
    "method.loss_on": ("masked", "released code: hidden positions alone (the paper's formula sums over all)"),
    "method.input_norm": ("none", "paper, section 3.2: the merged features as they are"),
    "method.target_norm": ("none", "paper, sections 3.3 and 3.4: the merged features are the targets"),
    "method.pairs": ("ego-exo", "paper: an ego and an exo video of one activity (released code: merged)"),
    "method.final_norm": (True, "ours: after the blocks, MAE's practice (released embedder.py: before them)"),
    "method.causal_msm": (True, "paper, section 3.3: causal attention in the self-view decoder"),
    "method.causal_encoder": (False, "paper, section 3.3: the decoder alone is causal"),
    "method.segment_embedding": (False, SILENT),
    "method.time_code": ("continuous", "ours: share of the recording (released code: index, interpolated)"),
    "optim.optimizer": ("adam", "released scripts: Adam, coupled L2 (the paper states none)"),
    "optim.lr": (1e-5, "released scripts (the paper states none)"),
    "optim.weight_decay": (5e-6, "released scripts (the paper states none)"),
    "optim.betas": ((0.9, 0.999), "ours: torch's defaults, no other values are stated"),
    "optim.momentum": (0.9, "ours: of sgd, unused here"),
    "optim.schedule": ("constant", "released scripts: no schedule"),
    "optim.milestones": ((), "ours: of schedule 'steps', unused here"),
    "optim.gamma": (0.1, "ours: of schedule 'steps', unused here"),
    "optim.warmup_steps": (0, "released scripts: no warm-up"),
    "optim.warmup_share": (None, "released scripts: no warm-up"),
    "optim.warmup_lr": (None, "released scripts: no warm-up"),
    "optim.min_lr": (0.0, "ours: of schedule 'cosine', unused here"),
    "optim.cosine_over": ("rest", "ours: of schedule 'cosine', unused here"),
    "optim.clip_norm": (None, "released scripts: no clipping"),
    "optim.ema_decay": (None, "ours: off, no average of the weights is stated"),
    "optim.batch": (4, "released run.sh break_eggs: 4 for Break Eggs"),
    "optim.epochs": (None, "ours: counted in steps, since a released epoch has a row per video of either view"),
    "optim.steps": (9_000, "released scripts: 300 epochs of ceil(118 videos / 4)"),
    "method.geometry": ({"fit": "squash", "via_px": 256}, "released dataset: 256 x 256 by area, then 224 by cubic"),
    "sampling.views.ego.perspective": ("ego", "paper: one video of each view"),
    "sampling.views.ego.frames": (32, "method.frames"),
    "sampling.views.ego.fps": (None, "released dataset: from the whole recording"),
    "sampling.views.ego.spread": ("random", "released dataset: T sorted indices without replacement"),
    "sampling.views.ego.size_px": (224, "method.base.size_px"),
    "sampling.views.ego.geometry": ({"fit": "squash", "via_px": 256}, "method.geometry"),
    "sampling.views.ego.test_px": (None, "released dataset: one size"),
    "sampling.views.ego.count": (1, "paper: one camera"),
    "sampling.views.exo.perspective": ("exo", "paper: one video of each view"),
    "sampling.views.exo.frames": (32, "method.frames"),
    "sampling.views.exo.fps": (None, "released dataset: from the whole recording"),
    "sampling.views.exo.spread": ("random", "released dataset: T sorted indices without replacement"),
    "sampling.views.exo.size_px": (224, "method.base.size_px"),
    "sampling.views.exo.geometry": ({"fit": "squash", "via_px": 256}, "method.geometry"),
    "sampling.views.exo.test_px": (None, "released dataset: one size"),
    "sampling.views.exo.count": (1, "paper: one camera"),
    "sampling.pairing": ("unpaired", "paper: two videos of one activity, no time correspondence"),
    "sampling.unit": ("recording", "ours: rows are whole recordings"),
    "sampling.windows": (1, "paper: one clip of each video"),
    "sampling.draws": (None, "released: drawn anew in every epoch"),
    "sampling.window_scale": ((1.0, 1.0), SILENT),
    "sampling.window_scale_spread": ("uniform", SILENT),
    "sampling.window_length": ("resampled", SILENT),
    "sampling.window_stride": (None, SILENT),
    "sampling.labels": ({}, "paper: no labels"),
    "sampling.scores": ({}, "paper: no teacher"),
    "sampling.boxes": (0, "paper: no detections"),
}

LAPTOP = "ours: trains on a laptop's processor in about a minute"
STUDY = "ours: chosen on the validation split of the synthetic world"

DEBUG: Table = {
    "method.base.model": ("vit_tiny_patch16_224", LAPTOP),
    "method.base.weights": ("random", "ours: no download"),
    "method.base.size_px": (112, LAPTOP),
    "method.base.width": (96, LAPTOP),
    "method.base.depth": (2, LAPTOP),
    "method.base.heads": (3, LAPTOP),
    "method.encoder.width": (64, LAPTOP),
    "method.encoder.depth": (4, LAPTOP),
    "method.encoder.heads": (4, LAPTOP),
    "method.decoder.width": (64, LAPTOP),
    "method.decoder.depth": (2, LAPTOP),
    "method.decoder.heads": (4, LAPTOP),
    "method.frames": (16, LAPTOP),
    "optim.optimizer": ("adamw", LAPTOP),
    "optim.lr": (1e-3, LAPTOP),
    "optim.weight_decay": (1e-4, LAPTOP),
    "optim.schedule": ("cosine", LAPTOP),
    "optim.warmup_steps": (10, LAPTOP),
    "optim.clip_norm": (1.0, LAPTOP),
    "optim.batch": (8, LAPTOP),
    "optim.steps": (150, LAPTOP),
    "method.geometry": ({}, "ours: the shape stays"),
    "sampling.views.ego.geometry": ({}, "method.geometry"),
    "sampling.views.exo.geometry": ({}, "method.geometry"),
    "sampling.views.ego.frames": (16, "method.frames"),
    "sampling.views.ego.size_px": (112, "method.base.size_px"),
    "sampling.views.exo.frames": (16, "method.frames"),
    "sampling.views.exo.size_px": (112, "method.base.size_px"),
}

PRESETS: dict[str, Table] = {
    "break_eggs": {},
    "pour_milk": {
        "optim.batch": (1, "released scripts: 1 for the other three sets"),
        "optim.steps": (23_100, "released scripts: 300 epochs of 29 + 48 videos"),
    },
    "pour_liquid": {
        "optim.batch": (1, "released scripts: 1 for the other three sets"),
        "optim.steps": (41_100, "released scripts: 300 epochs of 70 + 67 videos"),
    },
    "tennis_forehand": {
        "method.frames": (20, "paper: 20 frames for Tennis; released scripts the same"),
        "sampling.views.ego.frames": (20, "method.frames"),
        "sampling.views.exo.frames": (20, "method.frames"),
        "optim.batch": (1, "released scripts: 1 for the other three sets"),
        "optim.steps": (51_900, "released scripts: 300 epochs of 94 + 79 videos"),
    },
    "debug": DEBUG,
}

SYNTHETIC: Table = {
    "method.geometry": ({}, "ours: the shape stays"),
    "sampling.views.ego.geometry": ({}, "method.geometry"),
    "sampling.views.exo.geometry": ({}, "method.geometry"),
    "method.base.model": ("vit_tiny_patch16_224", "ours: the base that the study trains"),
    "method.base.weights": ("random", "ours: replaced by the file of the base that the study trains"),
    "method.base.size_px": (128, "ours: the size of the synthetic world's frames"),
    "method.base.width": (96, "ours: the base that the study trains"),
    "method.base.depth": (3, "ours: the base that the study trains"),
    "method.base.heads": (3, "ours: the base that the study trains"),
    "method.encoder.width": (64, STUDY),
    "method.encoder.depth": (3, STUDY),
    "method.encoder.heads": (4, STUDY),
    "method.decoder.width": (64, STUDY),
    "method.decoder.depth": (2, STUDY),
    "method.decoder.heads": (4, STUDY),
    "method.input_norm": ("clip", "ours: what never changes in a clip would lead the distances (README)"),
    "method.target_norm": ("clip", "ours: what never changes in a clip would lead the loss (README)"),
    "optim.optimizer": ("adamw", STUDY),
    "optim.lr": (2e-3, STUDY),
    "optim.weight_decay": (0.1, STUDY),
    "optim.schedule": ("cosine", STUDY),
    "optim.warmup_steps": (50, STUDY),
    "optim.clip_norm": (1.0, STUDY),
    "optim.batch": (8, STUDY),
    "optim.steps": (2500, STUDY),
    "sampling.views.ego.size_px": (128, "method.base.size_px"),
    "sampling.views.exo.size_px": (128, "method.base.size_px"),
}

STUDIES: dict[tuple[str, str], Table] = {
    ("quickstart", "byov"): SYNTHETIC | {"optim.steps": (800, "ours: minutes on a laptop")},
    ("synthetic", "both losses"): SYNTHETIC,
    ("synthetic", "MSM alone"): SYNTHETIC
    | {
        "method.weights.mcm_ego": (0, "paper, ablation: no MCM"),
        "method.weights.mcm_exo": (0, "paper, ablation: no MCM"),
    },
    ("synthetic", "MCM alone"): SYNTHETIC
    | {
        "method.weights.msm_ego": (0, "paper, ablation: no MSM"),
        "method.weights.msm_exo": (0, "paper, ablation: no MSM"),
    },
}


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Every field of nested options by its dotted path, as text: True, 1 and 1.0 differ. An empty dict is a value."""
    if path.endswith("geometry"):
        return {path: repr(changes(value))}
    if not isinstance(value, dict) or not value:
        return {path: repr(value)}
    shown = {name: part for name, part in value.items() if name != "label_options"}  # for messages
    return {p: v for name, part in shown.items() for p, v in flat(part, f"{path}.{name}".lstrip(".")).items()}


def resolved(recipe: Recipe) -> dict[str, str]:
    parts: Any = {"method": recipe.method, "optim": recipe.optim, "sampling": recipe.method.sampling()}
    return flat({name: asdict(part) for name, part in parts.items()})


def listed(changes: Table) -> dict[str, str]:
    assert changes.keys() <= BREAK_EGGS.keys(), changes.keys() - BREAK_EGGS.keys()
    return {path: repr(value) for path, (value, _) in (BREAK_EGGS | changes).items()}


def test_every_preset_and_every_recipe_of_a_study_has_a_table() -> None:
    assert list(presets()) == list(PRESETS)
    assert {(name, variant) for name, study in studies().items() for variant in study.variants} == STUDIES.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_is_the_table(name: str) -> None:
    assert resolved(presets()[name]()) == listed(PRESETS[name])


@pytest.mark.parametrize(("study", "variant"), STUDIES)
def test_the_studys_recipe_is_the_table(study: str, variant: str) -> None:
    assert resolved(studies()[study].variants[variant]) == listed(STUDIES[study, variant])


@pytest.mark.parametrize("table", [BREAK_EGGS, *PRESETS.values(), *STUDIES.values()])
def test_every_value_names_its_place(table: Table) -> None:
    for path, (_, place) in table.items():
        assert place in BREAK_EGGS or place.startswith(("paper", "released", "ours: ")), path
