"""Every preset and study of MV2MAE as a table: the whole resolved configuration, each value with its origin.

Origins, right of each value:
paper: arXiv 2401.15900, whose method section and tables are known through summaries only (see the method's README).
VideoMAE: MCG-NJU/VideoMAE at 14ef8d8; "pre-training" is its script for ViT-S on Kinetics-400.
CroCo: naver/croco, models/blocks.py. NTU, ETRI, ...: the data set's own description.
ours N: a decision of ours with its reason in row N of the README's table of open points. unused: has no effect here.
"""

from __future__ import annotations

from typing import Any

import pytest
from flat_presets import resolved

from crossview.methods.mv2mae.config import presets
from crossview.methods.mv2mae.studies import NO_MOTION, SAME_VIEW, studies

PRETRAIN: dict[str, Any] = {
    "method.unit": "recording",
    "method.frames": 16,  # paper
    "method.fps": 7.5,  # paper: stride 4, of 30 Hz (NTU, PKU-MMD)
    "method.size_px": 128,  # paper
    "method.patch_px": 16,  # paper: tubelets of 2 x 16 x 16
    "method.tubelet": 2,  # paper: the same
    "method.encoder.width": 384,  # paper: ViT-S/16
    "method.encoder.depth": 12,  # paper: ViT-S/16
    "method.encoder.heads": 6,  # paper: ViT-S/16
    "method.encoder.mlp_ratio": 4.0,  # paper: ViT-S/16
    "method.same_decoder.width": 192,  # VideoMAE, pre-training; ours 10
    "method.same_decoder.depth": 4,  # VideoMAE, every script; ours 10
    "method.same_decoder.heads": 3,  # VideoMAE, pre-training; ours 10
    "method.same_decoder.mlp_ratio": 4.0,  # VideoMAE
    "method.cross_decoder.width": 192,  # ours 10: as the same-view decoder
    "method.cross_decoder.depth": 4,  # ours 10
    "method.cross_decoder.heads": 3,  # ours 10
    "method.cross_decoder.mlp_ratio": 4.0,  # CroCo
    "method.positions": "index",  # VideoMAE; ours 17
    "method.masking.ratio": 0.7,  # paper: the best of its ablation
    "method.masking.kind": "random",  # paper: figure 1; ours 7
    "method.motion.temperature": 60.0,  # paper: the best of its ablation
    "method.motion.norm": "rms",  # ours 1
    "method.motion.scale": "0-255",  # ours 1
    "method.motion.over": "all",  # ours 3
    "method.motion.rescale": True,  # ours 2
    "method.motion.first_frame": "copy",  # ours 4
    "method.weights.same_source": 1.0,  # ours 6
    "method.weights.same_target": 1.0,  # ours 6
    "method.weights.cross": 1.0,  # ours 6
    "method.swap_roles": False,  # ours 12
    "method.target_norm": "none",  # paper: "original pixels"; ours 11
    "method.geometry": {"crop": "corners"},  # VideoMAE, multi-scale crop; ours 15
    "method.crop_scales": (),  # of the versions that cropped on the device
    "method.flip": 0.0,  # VideoMAE, pre-training; ours 15
    "method.embed_stride": 4,  # paper: stride 4
    "optim.optimizer": "adamw",  # paper
    "optim.lr": 6e-4,  # VideoMAE, pre-training: 1.5e-4 x 1024 / 256; ours 14
    "optim.weight_decay": 0.05,  # VideoMAE, pre-training
    "optim.betas": (0.9, 0.95),  # VideoMAE, pre-training
    "optim.momentum": 0.9,  # unused
    "optim.schedule": "cosine",  # VideoMAE, pre-training
    "optim.milestones": (),  # unused
    "optim.gamma": 0.1,  # unused
    "optim.warmup_steps": 0,  # unused: the share below
    "optim.warmup_share": 0.025,  # VideoMAE, pre-training: 40 of 1600 epochs
    "optim.warmup_lr": 0.0,  # VideoMAE, utils.py: its warmup_lr argument is not passed on
    "optim.min_lr": 4e-5,  # VideoMAE, pre-training: 1e-5 x 1024 / 256
    "optim.cosine_over": "rest",  # VideoMAE, utils.py
    "optim.clip_norm": None,  # VideoMAE, pre-training
    "optim.ema_decay": None,  # VideoMAE, pre-training
    "optim.batch": 1024,  # VideoMAE, pre-training: 32 GPUs x 32
    "optim.epochs": 1600,  # paper
    "optim.steps": None,  # unused
    **{
        f"sampling.views.{view}.{name}": value
        for view in ("source", "target")
        for name, value in {
            "perspective": "any",  # paper: fixed cameras of NTU and ETRI, any of them
            "frames": 16,  # paper
            "fps": 7.5,  # paper: stride 4, of 30 Hz
            "spread": "even",  # unused with fps
            "size_px": 128,  # paper
            "geometry": {"crop": "corners"},  # method.geometry
            "test_px": None,  # the same size
            "count": 1,  # paper: one source, one target
        }.items()
    },
    "sampling.pairing": "synchronized",  # paper; ours 13
    "sampling.unit": "recording",
    "sampling.windows": 1,  # ours 13
    "sampling.draws": None,  # VideoMAE: drawn anew in every epoch
    "sampling.window_scale": (1.0, 1.0),  # paper: stride 4 always
    "sampling.window_scale_spread": "uniform",  # unused
    "sampling.window_length": "resampled",  # unused
    "sampling.window_stride": None,  # VideoMAE: a random start
    "sampling.labels": {},  # paper: self-supervised
    "sampling.scores": {},  # paper: one model, no teacher
    "sampling.boxes": 0,  # paper: RGB only
}

VIT_T = {
    "method.encoder.width": 192,  # paper: ViT-T
    "method.encoder.heads": 3,  # paper: ViT-T
    # ours: VideoMAE has no decoder for ViT-T; half as wide as the encoder, like the others
    **{f"method.{decoder}_decoder.width": 96 for decoder in ("same", "cross")},
}
VIT_B = {
    "method.encoder.width": 768,  # paper: ViT-B
    "method.encoder.heads": 12,  # paper: ViT-B
    **{f"method.{decoder}_decoder.width": 384 for decoder in ("same", "cross")},  # VideoMAE, pre-training of ViT-B
    **{f"method.{decoder}_decoder.heads": 6 for decoder in ("same", "cross")},  # VideoMAE, pre-training of ViT-B
}

DEBUG = {  # ours throughout: small enough for a minute on a laptop
    **{f"{part}.geometry": {} for part in ("method", "sampling.views.source", "sampling.views.target")},
    "method.crop_scales": (1.0, 0.875, 0.75, 0.66),
    "method.frames": 8,
    "method.size_px": 64,
    "method.encoder.width": 96,
    "method.encoder.depth": 4,
    "method.encoder.heads": 4,
    **{f"method.{decoder}_decoder.width": 48 for decoder in ("same", "cross")},
    **{f"method.{decoder}_decoder.depth": 2 for decoder in ("same", "cross")},
    **{f"method.{decoder}_decoder.heads": 4 for decoder in ("same", "cross")},
    "method.positions": "grid",  # ours 17: learns in few steps
    "method.embed_stride": 2,
    "optim.lr": 2e-3,
    "optim.warmup_steps": 10,
    "optim.warmup_share": None,
    "optim.warmup_lr": None,
    "optim.min_lr": 0.0,
    "optim.clip_norm": 1.0,
    "optim.batch": 16,
    "optim.epochs": None,
    "optim.steps": 150,
    **{f"sampling.views.{view}.frames": 8 for view in ("source", "target")},
    **{f"sampling.views.{view}.size_px": 64 for view in ("source", "target")},
}

STUDY = {  # ours throughout: what lets a small network learn to use the source within a few hundred steps
    "method.frames": 2,
    "method.fps": 1.875,
    "method.size_px": 64,
    "method.encoder.width": 96,
    "method.encoder.depth": 2,
    "method.encoder.heads": 4,
    **{f"method.{decoder}_decoder.width": 96 for decoder in ("same", "cross")},
    **{f"method.{decoder}_decoder.depth": 3 for decoder in ("same", "cross")},
    **{f"method.{decoder}_decoder.heads": 4 for decoder in ("same", "cross")},
    "method.positions": "grid",
    "method.masking.ratio": 0.6,
    "method.masking.kind": "tube",
    "method.weights.same_source": 0.1,
    "method.weights.same_target": 0.1,
    "method.swap_roles": True,
    "method.target_norm": "channel",
    **{f"{part}.geometry": {} for part in ("method", "sampling.views.source", "sampling.views.target")},
    "method.embed_stride": 8,
    "optim.lr": 4e-3,
    "optim.weight_decay": 0.2,
    "optim.warmup_share": 0.05,
    "optim.warmup_lr": None,
    "optim.min_lr": 0.0,
    "optim.clip_norm": 1.0,
    "optim.batch": 32,
    "optim.epochs": None,
    "optim.steps": 900,
    **{f"sampling.views.{view}.frames": 2 for view in ("source", "target")},
    **{f"sampling.views.{view}.fps": 1.875 for view in ("source", "target")},
    **{f"sampling.views.{view}.size_px": 64 for view in ("source", "target")},
}


TABLES = {
    "ntu60": PRETRAIN,
    "ntu120": PRETRAIN,
    "etri": PRETRAIN,
    "ntu120-vit-t": PRETRAIN | VIT_T,
    "ntu120-vit-b": PRETRAIN | VIT_B,
    "debug": PRETRAIN | DEBUG,
}


def test_every_preset_has_a_table() -> None:
    assert list(presets()) == list(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_preset_is_its_table_and_nothing_else(name: str) -> None:
    assert resolved(presets()[name]()) == TABLES[name]


def test_the_studys_variants_differ_in_one_option_each() -> None:
    study = studies()["synthetic"]
    assert {name: resolved(recipe) for name, recipe in study.variants.items()} == {
        "mv2mae": PRETRAIN | STUDY,
        SAME_VIEW: PRETRAIN | STUDY | {"method.weights.cross": 0.0},
        NO_MOTION: PRETRAIN | STUDY | {"method.motion.temperature": None},
    }
    assert (study.layout, study.train_views, study.seeds) == ("synchronized", ("exo1", "exo3"), 5)
