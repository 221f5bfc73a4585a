"""The configurations of Ego-Exo that are compared with its plain transcription, their models and batches."""

from __future__ import annotations

from dataclasses import replace

import torch
from egoexo_tiny import BACKBONE, TINY, batch_of
from torch import Tensor, nn

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods.egoexo.config import ACTIONS_ALONE, Config, Weights
from crossview.methods.egoexo.model import Model

SIGNALS = replace(
    TINY, classes={"action": 5}, weights=Weights(action=0.5, ego=0.1, object=0.7, hand_map=1, object_map=2)
)
CONFIGS = {
    "every other option": replace(
        SIGNALS,
        backbone=replace(BACKBONE, blocks=(2, 1, 2, 2), temporal_blocks=(1, 1, 2, 0), fusion_ratio=3, fusion_kernel=3),
        frames=16,
        object_temperature=2.5,
        flip=1.0,
        boxes=2,
        map_target="hard",
        weights=Weights(action=0.2, ego=0.3, object=0.4, hand_map=0.5, object_map=0),
    ),
    "study": replace(
        SIGNALS,
        backbone=replace(BACKBONE, alpha=2),
        frames=4,
        ego_temperature=4.0,
        recolour=0.3,
        crop_px=64,
        geometry=Geometry(),
        short_side_px=(64, 76),
    ),
    "pre-training": SIGNALS,
    "pre-training with dropout": replace(SIGNALS, dropout=0.5),
    "slow pathway alone": replace(SIGNALS, backbone=replace(BACKBONE, pathways="slow"), frames=4, dropout=0.5),
    "actions alone": replace(TINY, weights=replace(ACTIONS_ALONE, action=1), dropout=0.5),
    "no actions": replace(TINY, weights=Weights(action=0, ego=0.3, object=0, hand_map=0, object_map=0.4)),
    "fine-tuning on Charades-Ego": replace(
        TINY,
        stage="finetune",
        action_loss="binary",
        weights=Weights(action=1, ego=0, object=0, hand_map=0.1, object_map=0.1),
        dropout=0.5,
    ),
    "fine-tuning on EPIC-KITCHENS": replace(
        TINY,
        stage="finetune",
        classes={"verb": 4, "noun": 6},
        weights=Weights(action=1, ego=0, object=0, hand_map=3, object_map=3),
        dropout=0.5,
    ),
}
SIZE = 3


def built(config: Config) -> Model:
    """In float64 except for clips and losses; norms and heads are random, so that no term of the forward vanishes."""
    torch.manual_seed(3)
    model = Model(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            for value, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                assert value is not None
                nn.init.uniform_(value, low, low + 1)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 2)
    for head in (*model.classifier.values(), *model.score_heads.values()):
        nn.init.normal_(head.weight, std=0.5)  # type: ignore[arg-type]
        nn.init.normal_(head.bias)  # type: ignore[arg-type]
    if model.map_head is not None:
        nn.init.normal_(model.map_head.projection.weight, std=0.5)
    model.backbone.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    return model.double()


def filled(config: Config) -> dict[str, Tensor]:
    """Smooth clips, one with several labels and one without any, and each teacher signal missing for one sample."""
    batch = batch_of(config, SIZE)
    coarse = batch["clip"][..., ::8, ::8].float().flatten(0, 1)
    smooth = nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    batch["clip"] = smooth.round().to(torch.uint8).unflatten(0, (SIZE, config.frames))
    for kind in config.classes:
        batch[f"clip/label/{kind}"][1, :2] = 1
        batch[f"clip/label/{kind}"][2] = 0
    for name, missing in (("scores/ego", 0), ("scores/object", 1), ("boxes", 2)):
        batch[f"clip/{name}/mask"] = torch.arange(SIZE) != missing
    return batch


def state_of(model: Model) -> dict[str, Tensor]:
    trained = {name for name, _ in model.named_parameters()}
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return {name: value.requires_grad_() if name in trained else value for name, value in state.items()}
