"""Ego-Exo equals a plain transcription of it: every loss and gradient, in training and evaluation, and embeddings."""

from __future__ import annotations

from dataclasses import replace

import egoexo_reference as reference
import pytest
import torch
from egoexo_tiny import BACKBONE, TINY, batch_of
from torch import Tensor, nn

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
    """In float64 but for the clips and the losses, with parameters that hide nothing: no zeros, none alike."""
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
    """Smooth clips, several labels and none, and teachers that have not seen everything."""
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


def parameters(model: Model) -> dict[str, Tensor]:
    trained = {name for name, _ in model.named_parameters()}
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return {name: value.requires_grad_() if name in trained else value for name, value in state.items()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_loss_and_its_gradient_equal_the_transcription(name: str, *, training: bool) -> None:
    config = CONFIGS[name]
    model, batch = built(config).train(training), filled(config)
    p = parameters(model)
    expected, remembered = reference.losses(
        config, p, batch, training=training, rounded=model.inputs(batch)[0], dropout_seed=11
    )
    torch.manual_seed(11)
    found = model(batch)
    assert list(found) == list(expected)
    for loss, value in expected.items():
        torch.testing.assert_close(
            found[loss].double(), value, rtol=5e-6, atol=5e-6, msg=f"{loss}: {found[loss]}, not {value}"
        )
    mixture = {loss: 1.3**k for k, loss in enumerate(expected)}  # so that no loss's gradient hides in the sum's
    sum(factor * found[loss] for loss, factor in mixture.items()).backward()
    sum(factor * expected[loss] for loss, factor in mixture.items()).backward()
    for parameter, value in model.named_parameters():
        own, theirs = value.grad, p[parameter].grad
        assert (own is None) == (theirs is None), parameter
        if own is not None and theirs is not None:
            assert float(theirs.norm()) > 0, parameter
            assert float((own - theirs).norm()) <= 1e-5 * float(theirs.norm()), parameter
    for buffer, value in remembered.items():
        torch.testing.assert_close(model.state_dict()[buffer], value, rtol=1e-6, atol=1e-6)
    assert bool(remembered) == training


@pytest.mark.parametrize("name", ["pre-training", "study", "every other option"])
def test_boxes_are_cropped_as_in_the_transcription(name: str) -> None:
    config = CONFIGS[name]
    batch = filled(config)
    boxes = Model(config).inputs(batch)[1]
    assert boxes is not None
    for b in range(SIZE):
        moved = torch.tensor(reference.cropped(config, batch, b)[1])
        torch.testing.assert_close(boxes[b], moved, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, 0), (1.0, 64), (0.3, 19)])
def test_crops_mirror_the_asked_share_and_use_the_whole_range_of_sides(flip: float, mirrored: int) -> None:
    """A ramp to the right that is 1 at the right border: how it goes and how far tell mirror and side."""
    config = replace(TINY, flip=flip, frames=4, weights=ACTIONS_ALONE)
    ramp = torch.arange(64).mul(4).to(torch.uint8).expand(64, 4, 3, 64, 64)
    batch = {"clip": ramp, "seed": torch.arange(64) * 31}
    clips, _ = Model(config).inputs(batch)
    rise = clips[:, 0, 0, 0, -1].float() - clips[:, 0, 0, 0, 0].float()
    assert int((rise < 0).sum()) == pytest.approx(mirrored, abs=5 if 0 < flip < 1 else 0)
    sides = 47 * 4 * 64 / rise.abs()
    low, high = config.short_side_px
    assert low - 0.5 <= float(sides.min()) < low + 1
    assert high - 1 < float(sides.max()) <= high + 0.5


@pytest.mark.parametrize("name", ["slow pathway alone", "study", "pre-training"])
@pytest.mark.parametrize("windows", [0.5, 1, 2.5, 3])
def test_embeddings_equal_the_transcription(name: str, windows: float) -> None:
    config = CONFIGS[name]
    model = built(config).eval()
    p, length = parameters(model), int(windows * config.frames)
    video = torch.randint(0, 256, (2, length, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        found, expected = model.embed(video), reference.frame_embeddings(config, p, video)
        assert found.shape == (2, length, sum(model.backbone.widths))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["pre-training with dropout", "slow pathway alone", "fine-tuning on Charades-Ego"])
def test_clip_embeddings_logits_and_scores_equal_the_transcription(name: str) -> None:
    """Of whole frames of 64 pixels, one cell wider and higher than the crop of 48; with gradients."""
    config = CONFIGS[name]
    model = built(config).eval()
    p, clips = parameters(model), batch_of(config, 2)["clip"]
    expected = reference.clip_embedding(config, p, clips)
    torch.testing.assert_close(model.embed_clip(clips).double(), expected, rtol=1e-5, atol=1e-5)
    logits = expected @ p["classifier.action.weight"].T + p["classifier.action.bias"]
    for head in model.classifier.values():
        head.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    torch.testing.assert_close(model.class_logits(clips)["action"], logits, rtol=1e-5, atol=1e-5)
    scores = reference.view_scores(config, p, clips, "action")
    torch.testing.assert_close(model.class_scores(clips)["action"].double(), scores, rtol=1e-5, atol=1e-6)
    model.embed_clip(clips).sum().backward()
    expected.sum().backward()
    for parameter, value in model.backbone.named_parameters():
        torch.testing.assert_close(value.grad, p[f"backbone.{parameter}"].grad, rtol=1e-3, atol=1e-4)
