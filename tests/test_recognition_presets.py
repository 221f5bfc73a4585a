"""Every preset of recognition as a table: the whole resolved configuration, each value with its origin.

Origins, right of each value:
VideoMAE: MCG-NJU/VideoMAE at 14ef8d8, its script for fine-tuning ViT-S on Kinetics-400.
MV2MAE: arXiv 2401.15900, which states no recipe for fine-tuning (see the method's README, row 16).
NTU, ETRI, ...: the data set's own description. ours: a decision of ours, with its reason in the README.
unused: has no effect here.
"""

from __future__ import annotations

from typing import Any

import pytest
from flat_presets import resolved

from crossview.downstream.recognition.config import presets

FINETUNE: dict[str, Any] = {
    "method.loss": "softmax",  # VideoMAE
    "method.unit": "recording",  # trimmed clips
    "method.perspective": "any",  # MV2MAE: the same cameras as in pre-training
    "method.frames": 16,  # MV2MAE
    "method.fps": 7.5,  # MV2MAE: stride 4, of 30 Hz (NTU, PKU-MMD)
    "method.size_px": 128,  # MV2MAE
    "method.geometry": {"crop": "resized"},  # VideoMAE: 8 to 100 % of the area, aspect 3/4 to 4/3
    "method.draws": None,  # VideoMAE: drawn anew in every epoch
    "method.encoder_lr": 1.0,  # VideoMAE
    "method.layer_decay": 0.75,  # VideoMAE
    "method.drop_path": 0.1,  # VideoMAE
    "method.dropout": 0.0,  # VideoMAE
    "method.label_smoothing": 0.1,  # VideoMAE
    "method.augmentation.flip": 0.5,  # VideoMAE
    "method.augmentation.operations": 4,  # VideoMAE: its option is rand-m7-n4-mstd0.5-inc1
    "method.augmentation.magnitude": 7.0,
    "method.augmentation.magnitude_std": 0.5,
    "method.augmentation.erase": 0.25,  # VideoMAE
    "method.augmentation.mixup": 0.8,  # VideoMAE
    "method.augmentation.cutmix": 1.0,  # VideoMAE
    "method.augmentation.switch": 0.5,  # VideoMAE
    "method.augmentation.copies": 2,  # VideoMAE: num_sample
    "optim.optimizer": "adamw",  # VideoMAE
    "optim.lr": 1e-3,  # VideoMAE: 5e-4 x batch / 256
    "optim.weight_decay": 0.05,  # VideoMAE
    "optim.betas": (0.9, 0.999),  # VideoMAE
    "optim.momentum": 0.9,  # unused
    "optim.schedule": "cosine",  # VideoMAE
    "optim.milestones": (),  # unused
    "optim.gamma": 0.1,  # unused
    "optim.warmup_steps": 0,  # unused: the share below
    "optim.warmup_share": 5 / 150,  # VideoMAE: 5 epochs
    "optim.warmup_lr": 0.0,  # VideoMAE, utils.py: its warmup_lr argument is not passed on
    "optim.min_lr": 2e-6,  # VideoMAE: 1e-6 x batch / 256
    "optim.cosine_over": "rest",  # VideoMAE, utils.py
    "optim.clip_norm": None,  # VideoMAE
    "optim.ema_decay": None,  # VideoMAE
    "optim.batch": 512,  # ours
    "optim.epochs": 150,  # VideoMAE
    "optim.steps": None,  # unused
    "sampling.views.video.perspective": "any",  # method.perspective
    "sampling.views.video.frames": 16,  # method.frames
    "sampling.views.video.fps": 7.5,  # method.fps
    "sampling.views.video.spread": "even",  # unused with fps
    "sampling.views.video.size_px": 128,  # method.size_px
    "sampling.views.video.geometry": {"crop": "resized"},  # method.geometry
    "sampling.views.video.test_px": None,  # the same size
    "sampling.views.video.count": 1,  # VideoMAE: one clip
    "sampling.pairing": "single",  # VideoMAE
    "sampling.unit": "recording",  # method.unit
    "sampling.windows": 1,  # VideoMAE: one clip
    "sampling.draws": None,  # method.draws
    "sampling.window_scale": (1.0, 1.0),  # VideoMAE: stride 4 always
    "sampling.window_scale_spread": "uniform",  # unused
    "sampling.window_length": "resampled",  # unused
    "sampling.window_stride": None,  # a random start
    "sampling.scores": {},  # no teacher
    "sampling.boxes": 0,
}
SMALL = {  # VideoMAE's fine-tuning on UCF101, a set of similar size
    "method.dropout": 0.5,
    "method.drop_path": 0.2,
    "method.layer_decay": 0.7,
    "optim.lr": 1.25e-4,  # 5e-4 x batch / 256
    "optim.warmup_share": 0.05,  # 5 of 100 epochs
    "optim.min_lr": 2.5e-6,  # 1e-5 x batch / 256
    "optim.batch": 64,  # ours
    "optim.epochs": 100,
}
EGO = {"method.perspective": "ego", "sampling.views.video.perspective": "ego"}  # EPIC-KITCHENS: head-mounted cameras
VIT_B = {  # VideoMAE's fine-tuning of ViT-B on Kinetics-400
    "optim.epochs": 75,
    "optim.warmup_share": 5 / 75,
}
PROBE = {  # ours, but for the mean of 32 frames: BYOV's is not reported
    "method.loss": "sigmoid",  # Charades-Ego: several actions per video
    "method.frames": 32,  # BYOV
    "method.fps": None,  # BYOV: frames of the whole video
    "method.size_px": 224,  # BYOV
    "method.geometry": {"fit": "squash", "via_px": 256},  # BYOV's released code
    "method.encoder_lr": None,
    "method.drop_path": 0.0,
    "method.label_smoothing": 0.0,
    "method.augmentation.flip": 0.0,
    "method.augmentation.operations": 0,
    "method.augmentation.erase": 0.0,
    "method.augmentation.mixup": None,
    "method.augmentation.cutmix": None,
    "method.augmentation.copies": 1,
    "optim.weight_decay": 0.0,
    "optim.warmup_share": None,
    "optim.warmup_lr": None,
    "optim.min_lr": 0.0,
    "optim.batch": 64,
    "optim.epochs": 50,
    "sampling.views.video.frames": 32,
    "sampling.views.video.fps": None,
    "sampling.views.video.size_px": 224,
    "sampling.views.video.geometry": {"fit": "squash", "via_px": 256},
}
DEBUG = {  # ours throughout: of the clips of MV2MAE's debug preset
    "method.frames": 8,
    "method.size_px": 64,
    "method.layer_decay": 1.0,
    "method.drop_path": 0.0,
    "optim.warmup_steps": 10,
    "optim.warmup_share": None,
    "optim.warmup_lr": None,
    "optim.min_lr": 0.0,
    "optim.clip_norm": 1.0,
    "optim.batch": 16,
    "optim.epochs": None,
    "optim.steps": 100,
    "sampling.views.video.frames": 8,
    "sampling.views.video.size_px": 64,
}


def classified(count: int, kind: str = "action") -> dict[str, Any]:
    """Fine-tuning on so many classes."""
    return FINETUNE | {f"method.classes.{kind}": count, f"sampling.labels.{kind}": count}


def segments(kind: str) -> dict[str, Any]:
    """A row for each segment of this kind."""
    return {"method.unit": kind, "sampling.unit": kind}


TABLES = {
    "ntu60": classified(60),  # NTU RGB+D: 60 classes
    "ntu120": classified(120),  # NTU RGB+D 120: 120 classes
    "ntu120-vit-t": classified(120),
    "ntu120-vit-b": classified(120) | VIT_B,
    "etri": classified(55),  # ETRI-Activity3D: 55 classes
    "nucla": classified(10) | SMALL,  # N-UCLA: 10 classes
    "pkummd2": classified(51) | SMALL | segments("action"),  # PKU-MMD: labels 1-51, shared with phase I
    "rocog": classified(7) | SMALL,  # RoCoG-v2: 7 gestures
    "keystep": classified(278, "keystep") | VIT_B | segments("keystep"),  # Ego-Exo4D: 278 keysteps; ours
    "epic100": classified(97, "verb") | classified(300, "noun") | EGO | VIT_B | segments("verb"),  # EPIC-KITCHENS; ours
    "charades_ego_probe": classified(157) | PROBE,  # Charades-Ego: 157 classes
    "debug": classified(4) | DEBUG,
}


def test_every_preset_has_a_table() -> None:
    assert list(presets()) == list(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_preset_is_its_table_and_nothing_else(name: str) -> None:
    assert resolved(presets()[name]()) == TABLES[name]
