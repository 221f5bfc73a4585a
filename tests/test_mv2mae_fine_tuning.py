"""MV2MAE's hand-over to fine-tuning, its classifier, learning rates and test views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from mv2mae_tiny import TINY, batch_of, labelled, model_of
from torch import Tensor

from crossview.downstream.recognition.metrics import fuse
from crossview.downstream.test_views import clip_frames
from crossview.downstream.view_scores import view_scores
from crossview.methods.mv2mae.classifier import layer_scale
from crossview.methods.mv2mae.config import Config, FineTuning, presets
from crossview.methods.mv2mae.model import Model
from crossview.methods.mv2mae.networks import DropPath
from crossview.platform.train.lr_schedule import learning_rate

FINE = replace(TINY, stage="finetune", finetuning=FineTuning(classes=5))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_fine_tuning_takes_the_whole_encoder_and_names_what_it_leaves() -> None:
    trained, fresh = model_of(), Model(FINE)
    head = fresh.classifier.head.weight.clone()
    lines = fresh.start_from(trained.state_dict())
    for name, value in trained.encoder.state_dict().items():
        if not name.startswith("norm."):
            assert torch.equal(fresh.encoder.state_dict()[name], value)
    assert torch.equal(fresh.classifier.head.weight, head)
    assert {line.split(":")[0] for line in lines} == {
        "classifier.*",
        "encoder.norm.*",
        "same_decoder.*",
        "cross_decoder.*",
    }
    given, own = set(trained.state_dict()), set(fresh.state_dict())
    assert {name.split(".")[0] for name in own - given} == {"classifier"}
    assert {name.split(".")[0] for name in given - own - {"encoder.norm.weight", "encoder.norm.bias"}} == {
        "same_decoder",
        "cross_decoder",
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(FINE, patch_px=16), r"encoder.embed.weight is \(48, 384\), not \(48, 1536\)"),
        (replace(FINE, encoder=replace(TINY.encoder, depth=3)), r"encoder.blocks.2.attn.*is missing"),
        (replace(FINE, encoder=replace(TINY.encoder, depth=1)), r"encoder.blocks.1.attn.*is unknown"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_whole(config: Config, message: str) -> None:
    fresh = Model(config)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        fresh.start_from(model_of().state_dict())
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())


def test_a_classifier_of_other_classes_is_refused() -> None:
    other = Model(replace(FINE, finetuning=FineTuning(classes=7)))
    with pytest.raises(ValueError, match=r"classifier.head.bias is \(7,\), not \(5,\)"):
        Model(FINE).start_from(other.state_dict())
    same = Model(FINE)
    assert same.start_from(Model(FINE).state_dict()) == []


def test_learning_rates_fall_with_depth() -> None:
    """VideoMAE's factors for 12 blocks at 0.75."""
    config = replace(Config(), stage="finetune")
    for name, factor in (
        ("encoder.embed.weight", 0.02376),
        ("encoder.blocks.0.attn.q_bias", 0.03168),
        ("encoder.blocks.11.mlp.0.weight", 0.75),
        ("classifier.norm.weight", 1.0),
        ("classifier.head.weight", 1.0),
    ):
        assert layer_scale(name, config) == pytest.approx(factor, abs=5e-6)
    model = Model(FINE)
    scale = {id(p): group["lr_scale"] for group in model.parameter_groups(0.05) for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in model.parameter_groups(0.05) for p in group["params"]}
    assert scale.keys() == {id(p) for p in model.parameters()}
    for name, parameter in model.named_parameters():
        assert scale[id(parameter)] == layer_scale(name, FINE)
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 else 0)


def test_pretraining_decays_no_bias_norm_or_mask_token() -> None:
    model = model_of()
    free = {id(p) for group in model.parameter_groups(0.05) if not group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in free}
    assert names == {n for n, _ in model.named_parameters() if "norm" in n or n.endswith(("bias", "mask_token"))}
    assert all(group["lr_scale"] == 1 for group in model.parameter_groups(0.05))


def test_the_published_schedule() -> None:
    optim = presets()["ntu60"]().optim
    total = 16_000
    rates = [learning_rate(optim, step, total) for step in (0, 200, 400, total)]
    assert rates == pytest.approx([0, 3e-4, 6e-4, 4e-5])
    assert max(learning_rate(optim, step, total) for step in range(0, total, 50)) == pytest.approx(6e-4)


def test_the_loss_is_smoothed_cross_entropy_of_all_tokens() -> None:
    model, batch = model_of(FINE), labelled(FINE)
    torch.nn.init.normal_(model.classifier.head.weight)
    out = model(batch)
    logits = model.logits(batch["video"])
    log_p = logits.log_softmax(-1)
    right = log_p[torch.arange(4), batch["video/label/action"].argmax(1)]
    torch.testing.assert_close(out["loss"], -(0.9 * right + 0.1 * log_p.mean(1)).mean())
    accuracy = (logits.argmax(1) == batch["video/label/action"].argmax(1)).float().mean()
    assert torch.equal(out["accuracy"], accuracy)
    assert torch.equal(model.measures(batch)["accuracy"], accuracy)
    torch.testing.assert_close(model.classifier.head(model.embed_clip(batch["video"])), logits)


def test_a_clip_of_two_classes_shares_them() -> None:
    model, batch = model_of(replace(FINE, finetuning=FineTuning(classes=5, label_smoothing=0.0))), labelled(FINE, 1)
    batch["video/label/action"] = torch.tensor([[1, 0, 1, 0, 0]], dtype=torch.uint8)
    log_p = model.logits(batch["video"]).log_softmax(-1)[0]
    torch.testing.assert_close(model(batch)["loss"], -(log_p[0] + log_p[2]) / 2)


def test_every_parameter_learns_and_a_few_clips_are_learnt_by_heart() -> None:
    config = replace(FINE, crop_scales=(), finetuning=FineTuning(classes=5, drop_path=0.0, label_smoothing=0.0))
    model, batch = Model(config), labelled(FINE, 5)
    model(batch)["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    assert float(model.eval()(batch)["accuracy"]) == 1
    assert model(batch)["loss"].item() < 0.1


def test_dropped_paths_keep_the_mean_and_rest_in_evaluation() -> None:
    drop, x = DropPath(0.3), torch.ones(4000, 1, 1)
    assert float(drop(x).mean()) == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(drop(x).unique(), torch.tensor([0, 1 / 0.7]))
    assert torch.equal(drop.eval()(x), x)
    chances = [block.drop_path.chance for block in Model(FINE).encoder.blocks]  # type: ignore[union-attr]
    assert chances == [0.0, FINE.finetuning.drop_path]


# Test views


def recording(length: int = 23, width: int = 48) -> Tensor:
    return torch.randint(0, 256, (2, length, 3, 32, width), dtype=torch.uint8)


def probabilities(model: Model, video: Tensor, clips: int = 5, crops: int = 3) -> Tensor:
    """The mean over all test views, as a recording of uint8 (B, L, 3, H, W) is scored."""
    config = model.config
    places = clip_frames(video.shape[1], config.frames, config.embed_stride, clips)
    views = view_scores(
        lambda clip: {"action": model.logits(clip).softmax(-1)}, video, places, size_px=config.size_px, crops=crops
    )
    return torch.from_numpy(fuse(views["action"].numpy(), "mean").astype(np.float32))


def classifying() -> Model:
    model = model_of(FINE)
    torch.nn.init.normal_(model.classifier.head.weight)
    return model


def test_one_view_is_a_single_clip() -> None:
    model, video = classifying(), recording(4 * 2 - 1, 32)
    single = model.logits(video[:, ::2]).softmax(-1)
    torch.testing.assert_close(probabilities(model, video, clips=1), single)
    torch.testing.assert_close(probabilities(model, video, clips=5), single)  # the only clip there is, five times


def test_views_are_averaged_after_the_softmax_in_any_order() -> None:
    model, video = classifying(), recording()
    whole = probabilities(model, video, clips=3, crops=3)
    torch.testing.assert_close(whole.sum(1), torch.ones(2))
    by_hand = [
        model.logits(video[:, start : start + 7 : 2, ..., left : left + 32]).softmax(-1)
        for start in (16, 0, 8)
        for left in (16, 0, 8)
    ]
    torch.testing.assert_close(whole, torch.stack(by_hand).mean(0))
    turned = probabilities(model, video.transpose(-1, -2), clips=3, crops=3)
    assert turned.shape == whole.shape  # a tall frame is cut along its height


def test_other_sizes_are_brought_to_the_models_short_side() -> None:
    model = classifying()
    flat = torch.full((1, 9, 3, 80, 120), 77, dtype=torch.uint8)
    torch.testing.assert_close(
        probabilities(model, flat, clips=1), model.logits(flat[:, ::2, :, :32, :32][:, :4]).softmax(-1)
    )


# Bad input


def test_bad_batches_are_refused_in_words() -> None:
    model, batch = model_of(FINE), labelled(FINE)
    for changed, message in (
        ({"video/label/action": torch.ones(4, 9, dtype=torch.uint8)}, r"9 action classes and the classifier 5; set"),
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
    with pytest.raises(ValueError, match=r"no view 'video', only .*source.*; stage 'finetune' needs it"):
        model(batch_of())
    with pytest.raises(ValueError, match=r"stage is 'pretrain'; only a fine-tuned model classifies"):
        model_of().logits(batch["video"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, r"classes is 1; it must be at least 2"),
        ({"layer_decay": 0.0}, r"layer_decay is 0.0; it must lie in \(0, 1\]"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must lie in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTuning(**options)  # type: ignore[arg-type]
