"""The recognition trainer: what it takes of an encoder, its losses, learning rates and test views, and bad input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from mv2mae_tiny import TINY
from recognition_tiny import FINE, classifier, labelled
from torch import Tensor

from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.recognition.augment import augment
from crossview.downstream.recognition.augment_config import NO_AUGMENTATION, Augmentation
from crossview.downstream.recognition.config import Config
from crossview.downstream.recognition.heads import shares
from crossview.downstream.recognition.metrics import fuse
from crossview.downstream.recognition.model import Model
from crossview.downstream.test_views import clip_frames
from crossview.downstream.view_scores import view_scores
from crossview.errors import UserError
from crossview.methods.method import build
from crossview.methods.mv2mae.model import Model as Pretrained
from crossview.platform.config import preset


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# The encoder


def test_fine_tuning_takes_the_whole_encoder_but_its_last_norm() -> None:
    trained = Pretrained(TINY)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    model = Model(FINE, ClipEncoder(trained))
    after = model.state_dict()
    assert {f"encoder.method.{name}" for name in before} - after.keys() == {
        "encoder.method.encoder.norm.weight",
        "encoder.method.encoder.norm.bias",
    }
    assert all(torch.equal(after[f"encoder.method.{n}"], v) for n, v in before.items() if "encoder.norm." not in n)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"encoder", "heads"}
    assert not [name for name in learning if "decoder" in name]
    assert 1e-5 < float(model.heads.linears["action"].weight.detach().std()) < 3e-5  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", ["trained", "input"])
def test_a_linear_probe_leaves_the_encoder_as_it_is(weights: str) -> None:
    model, batch = classifier(replace(FINE, encoder_lr=None, drop_path=0.0), weights), labelled()  # type: ignore[arg-type]
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"heads"}
    assert sum(len(group["params"]) for group in model.parameter_groups(0.05)) == 4
    model.train()
    assert not model.encoder.training
    model(batch)["loss"].backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    vectors = model.encoder.method.embed_clip(batch["video"])
    if weights == "input":
        vectors = model.encoder.method.baselines()["pixels"](batch["video"]).mean(1)
    expected = model.heads.probabilities(model.heads(vectors))["action"]
    assert torch.equal(model.eval().predict(batch)["action"], expected)


def test_learning_rates_fall_with_depth() -> None:
    """VideoMAE's factors for 12 blocks at 0.75."""
    small = replace(TINY, encoder=replace(TINY.encoder, width=12, heads=2, depth=12))
    for share in (1.0, 0.5):
        model = classifier(replace(FINE, encoder_lr=share, layer_decay=0.75), method=Pretrained(small))
        scale = {id(p): group["lr_scale"] for group in model.parameter_groups(0.05) for p in group["params"]}
        named = dict(model.named_parameters())
        for name, factor in (
            ("embed.weight", 0.02376),
            ("blocks.0.attn.q_bias", 0.03168),
            ("blocks.11.mlp.0.weight", 0.75),
        ):
            assert scale[id(named[f"encoder.method.encoder.{name}"])] == pytest.approx(share * factor, abs=5e-6)
        assert scale[id(named["heads.norm.weight"])] == scale[id(named["heads.linears.action.weight"])] == 1
        decay = {id(p): group["weight_decay"] for group in model.parameter_groups(0.05) for p in group["params"]}
        assert decay.keys() == {id(p) for p in model.parameters() if p.requires_grad}
        assert all(decay[id(p)] == (0.05 if p.ndim > 1 else 0) for p in model.parameters() if p.requires_grad)


BLOCKS = [["encoder.blocks.0."], ["encoder.blocks.1."], ["encoder.blocks.2."]]
SLOW = [[f"backbone.slow_stages.{i}."] for i in range(4)]
FAST = [[f"backbone.slow_stages.{i}.", f"backbone.fast_stages.{i}.", f"backbone.lateral.{i}."] for i in range(4)]


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("mv2mae", {}, [["encoder.embed."], *BLOCKS]),
        ("byov", {"final_norm": True}, [["encoder.embed."], *BLOCKS[:2], [*BLOCKS[2], "encoder.norm."]]),
        ("byov", {"final_norm": False}, [["encoder.embed.", "encoder.norm."], *BLOCKS]),
        (
            "evgap",
            {"encoder.norm": "post"},
            [
                ["encoder.project.", "encoder.token", "encoder.positions"],
                *([f"encoder.layers.{i}."] for i in range(3)),
            ],
        ),
        (
            "evgap",
            {"encoder.norm": "pre"},
            [
                ["encoder.project.", "encoder.token", "encoder.positions"],
                *([f"encoder.layers.{i}.", f"encoder.norms.{i}."] for i in range(3)),
            ],
        ),
        ("egoexo", {}, [["backbone.slow_stem.", "backbone.fast_stem."], *FAST]),
        ("egoexo", {"backbone.pathways": "slow"}, [["backbone.slow_stem."], *SLOW]),
    ],
)
def test_each_trained_parameter_is_in_one_layer_by_depth(
    method: str, changes: dict[str, object], expected: list[list[str]]
) -> None:
    """The parameters are those that autograd finds; a layer's rate is `layer_decay` times that of the one above."""
    options = preset(method, "debug").method
    if method in ("mv2mae", "byov"):
        options = replace(options, encoder=replace(options.encoder, depth=3))
    for name, value in changes.items():
        outer, _, inner = name.partition(".")
        options = replace(options, **{outer: replace(getattr(options, outer), **{inner: value}) if inner else value})
    built = build(method, options)
    frames, *_, size_px = built.clip_input().shape[1:]
    config = Config(classes={"verb": 3}, frames=frames, size_px=size_px, layer_decay=0.5, augmentation=NO_AUGMENTATION)
    model = Model(config, ClipEncoder(built))
    learning = {name: p for name, p in built.named_parameters() if p.requires_grad}
    vector = built.embed_clip(labelled(config, 2)["video"]).sum()
    found = torch.autograd.grad(vector, list(learning.values()), allow_unused=True)
    used = {name for name, gradient in zip(learning, found, strict=True) if gradient is not None}
    names = {id(p): name for name, p in built.named_parameters()}
    layers = [[names[id(p)] for p in layer if p.requires_grad] for layer in built.layers()]
    assert len(layers) == len(expected)
    for layer, prefixes in zip(layers, expected, strict=True):
        assert {name for name in used if name.startswith(tuple(prefixes))} == set(layer)
        assert all(any(name.startswith(prefix) for name in layer) for prefix in prefixes)
    assert sorted(name for layer in layers for name in layer) == sorted(used) == sorted(learning)
    scale = {id(p): group["lr_scale"] for group in model.parameter_groups(0.05) for p in group["params"]}
    of_layers = [{scale[id(learning[name])] for name in layer} for layer in layers]
    assert of_layers == [{0.5 ** (len(layers) - depth)} for depth in range(len(layers))]
    assert {scale[id(p)] for p in model.heads.parameters()} == {1.0}


def test_a_parameter_that_no_layer_has_is_not_left_untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    layers = model.encoder.method.layers()
    monkeypatch.setattr(model.encoder.method, "layers", lambda: layers[1:])
    with pytest.raises(ValueError, match=r"encoder.method.encoder.embed.weight, .*in none of the encoder's layers"):
        model.parameter_groups(0.05)


@pytest.mark.parametrize("method", ["byov", "egoexo", "evgap", "mv2mae"])
def test_every_method_can_be_fine_tuned(method: str) -> None:
    built = build(method, preset(method, "debug").method)
    frames, *_, size_px = built.clip_input().shape[1:]
    config = Config(classes={"verb": 3, "noun": 4}, frames=frames, size_px=size_px, augmentation=NO_AUGMENTATION)
    model = Model(config, ClipEncoder(built))
    out = model(labelled(config, 2))
    out["loss"].backward()
    assert set(out) == {"loss", "verb", "noun", "accuracy/verb", "accuracy/noun"}
    groups = model.parameter_groups(0.05)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trained) > 4
    assert [p.shape for p in trained if p.grad is None] == []
    if method != "mv2mae":
        with pytest.raises(
            UserError, match=r"drop_path is 0.1, but this method's encoder drops no branches; set --meth"
        ):
            Model(replace(config, drop_path=0.1), ClipEncoder(built))


# The loss


def test_the_loss_is_smoothed_cross_entropy_of_all_tokens() -> None:
    model, batch = classifier(), labelled()
    out = model(batch)
    pooled = model.encoder.method.embed_clip(batch["video"])
    logits = model.heads(pooled)["action"]
    log_p = logits.log_softmax(-1)
    right = log_p[torch.arange(4), batch["video/label/action"].argmax(1)]
    torch.testing.assert_close(out["loss"], -(0.9 * right + 0.1 * log_p.mean(1)).mean())
    accuracy = (logits.argmax(1) == batch["video/label/action"].argmax(1)).float().mean()
    assert torch.equal(out["accuracy"], accuracy)
    torch.testing.assert_close(model.predict(batch)["action"], logits.softmax(-1))


def test_a_clip_of_two_classes_shares_them() -> None:
    """And counts as much as one of a single class."""
    model, batch = classifier(replace(FINE, label_smoothing=0.0)), labelled(FINE, 2)
    batch["video/label/action"] = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]], dtype=torch.uint8)
    first, second = model.predict(batch)["action"].log()
    torch.testing.assert_close(model(batch)["loss"], (-(first[0] + first[2]) / 2 - second[1]) / 2)


def test_sigmoids_are_for_any_number_of_classes() -> None:
    config = replace(FINE, loss="sigmoid", label_smoothing=0.0)
    model, batch = classifier(config), labelled(config, 2)
    batch["video/label/action"] = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.uint8)
    p, y = model.predict(batch)["action"], batch["video/label/action"].float()
    torch.testing.assert_close(model(batch)["loss"], -(y * p.log() + (1 - y) * (1 - p).log()).mean())
    assert set(model(batch)) == {"loss", "action"}


def test_clips_are_augmented_in_training_alone() -> None:
    config = replace(FINE, drop_path=0.0, augmentation=Augmentation(copies=2))
    model, batch = classifier(config), labelled(config)
    targets = {"action": shares(batch["video/label/action"])}
    clips, mixed = augment(batch["video"], batch["seed"], targets, config.augmentation)
    assert len(clips) == 8
    logits = model.heads(model.encoder(clips.round().clamp(0, 255).to(torch.uint8)))
    expected = model.heads.losses(logits, mixed)["loss"]
    torch.testing.assert_close(model.train()(batch)["loss"], expected)
    assert not torch.isclose(model.eval()(batch)["loss"], expected)
    assert model.reach() == "pass"
    assert classifier(FINE).reach() == "sample"


def test_every_parameter_learns_and_a_few_clips_are_learnt_by_heart() -> None:
    config = replace(FINE, drop_path=0.0, label_smoothing=0.0)
    model, batch = classifier(config).train(), labelled(FINE, 5)
    model(batch)["loss"].backward()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in learning.items() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []
    optimizer = torch.optim.AdamW(learning.values(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    assert float(model.eval()(batch)["accuracy"]) == 1
    assert model(batch)["loss"].item() < 0.1


# Test views


def recording(length: int = 23, width: int = 48) -> Tensor:
    return torch.randint(0, 256, (2, length, 3, 32, width), dtype=torch.uint8)


def single(model: Model, clips: Tensor) -> Tensor:
    return model.predict({"video": clips})["action"].detach()


def probabilities(model: Model, video: Tensor, clips: int = 5, crops: int = 3) -> Tensor:
    """The mean over all test views, as a recording of uint8 (B, L, 3, H, W) is scored."""
    config = model.config
    places = clip_frames(video.shape[1], config.frames, 2, clips)
    views = view_scores(lambda clip: model.predict({"video": clip}), video, places, size_px=config.size_px, crops=crops)
    return torch.from_numpy(fuse(views["action"].numpy(), "mean").astype(np.float32))


def test_one_view_is_a_single_clip() -> None:
    model, video = classifier(), recording(4 * 2 - 1, 32)
    torch.testing.assert_close(probabilities(model, video, clips=1), single(model, video[:, ::2]))
    torch.testing.assert_close(probabilities(model, video, clips=5), single(model, video[:, ::2]))  # five times


def test_views_are_averaged_after_the_softmax_in_any_order() -> None:
    model, video = classifier(), recording()
    whole = probabilities(model, video, clips=3, crops=3)
    torch.testing.assert_close(whole.sum(1), torch.ones(2))
    by_hand = [
        single(model, video[:, start : start + 7 : 2, ..., left : left + 32])
        for start in (16, 0, 8)
        for left in (16, 0, 8)
    ]
    torch.testing.assert_close(whole, torch.stack(by_hand).mean(0))
    turned = probabilities(model, video.transpose(-1, -2), clips=3, crops=3)
    assert turned.shape == whole.shape  # a tall frame is cut along its height


def test_other_sizes_are_brought_to_the_models_short_side() -> None:
    model = classifier()
    flat = torch.full((1, 9, 3, 80, 120), 77, dtype=torch.uint8)
    torch.testing.assert_close(probabilities(model, flat, clips=1), single(model, flat[:, ::2, :, :32, :32][:, :4]))


# Configuration and bad input


def test_controls_are_of_a_trained_encoder() -> None:
    controls = FINE.controls("trained")
    assert {name: control.weights for name, control in controls.items()} == {
        "random init": "random",
        "input features": "input",
    }
    assert controls["random init"].config == FINE
    assert controls["input features"].config == replace(FINE, encoder_lr=None, drop_path=0.0)
    assert FINE.controls("random") == FINE.controls(None) == {}


def test_bad_batches_are_refused_in_words() -> None:
    model, batch = classifier(), labelled()
    for changed, message in (
        ({"video/label/action": torch.ones(4, 9, dtype=torch.uint8)}, r"9 action classes and the classifier 5; pass"),
        ({"video/label/action": torch.zeros(4, 5, dtype=torch.uint8)}, r"samples \[0, 1, 2, 3\] have no action label"),
        (
            {"video/label/action": torch.eye(4, 5, dtype=torch.uint8).flip(0).tril()},
            r"samples \[0, 1\] have no action label",
        ),
        ({"video": batch["video"][:, :3]}, r"shape \(4, 3, 3, 32, 32\); it must be \(B, 4, 3, 32, 32\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model(batch | changed)
    with pytest.raises(ValueError, match=r"no 'video/label/action'"):
        model({name: value for name, value in batch.items() if "label" not in name})
    with pytest.raises(ValueError, match=r"no view 'video', only .*source"):
        model({"source": batch["video"]})


def test_an_encoder_of_other_clips_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clips of 4 frames of 32 px; pass --method.frames 4 --method.size-px 32"):
        classifier(replace(FINE, frames=8))
    with pytest.raises(ValueError, match=r"pass --encoder.run RUN"):
        Model(FINE, None)
    features = build("evgap", replace(preset("evgap", "debug").method, input="features", feature_width=12))
    frames = features.clip_input().shape[1]
    model = Model(replace(FINE, frames=frames, drop_path=0.0), ClipEncoder(features))
    batch = labelled() | {"video": torch.randn(4, frames, 1, 12)}
    assert torch.isfinite(model.train()(batch)["loss"])
    model.config = replace(model.config, augmentation=Augmentation())
    with pytest.raises(ValueError, match="augmentation is on, but the catalog holds features"):
        model(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {"action": 1}}, r"name at least one kind of labels, each of 2 classes or more"),
        ({"classes": {}}, r"name at least one kind"),
        ({"layer_decay": 0.0}, r"layer_decay is 0.0; it must lie in \(0, 1\]"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must lie in \[0, 1\)"),
        ({"encoder_lr": 0.0}, r"encoder_lr is 0.0; it must be above 0"),
        ({"encoder_lr": None, "drop_path": 0.1}, r"drop_path is 0.1 with a frozen encoder"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**options)  # type: ignore[arg-type]


def test_no_augmentation_changes_nothing() -> None:
    batch = labelled()
    clips, targets = augment(batch["video"], batch["seed"], {"a": torch.eye(4)}, NO_AUGMENTATION)
    assert torch.equal(clips, batch["video"])
    assert torch.equal(targets["a"], torch.eye(4))
    assert not NO_AUGMENTATION.changes
    one = {"flip": 0.5, "operations": 1, "erase": 0.1, "mixup": 0.8, "cutmix": 1.0, "copies": 2}
    assert all(replace(NO_AUGMENTATION, **{name: value}).changes for name, value in one.items())  # type: ignore[arg-type]
