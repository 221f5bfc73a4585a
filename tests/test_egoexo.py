"""Ego-Exo's networks, heads, stages and embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from egoexo_tiny import BACKBONE, PLAIN, STAR, TINY, batch_of
from torch import Tensor, nn

from crossview.methods.egoexo.config import ACTIONS_ALONE, R50, R101, SLOW_R50, Backbone, Config, presets
from crossview.methods.egoexo.model import Model
from crossview.methods.egoexo.slowfast import SlowFast, slow_indices


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def config_of(preset: str) -> Config:
    config = presets()[preset]().method
    assert isinstance(config, Config)
    return config


@pytest.mark.parametrize(("backbone", "size"), [(SLOW_R50, 31_634_496), (R50, 33_644_488), (R101, 61_904_968)])
def test_backbones_have_the_published_sizes(backbone: Backbone, size: int) -> None:
    with torch.device("meta"):
        assert count(SlowFast(backbone)) == size


@pytest.mark.parametrize(
    ("preset", "size"),
    [
        ("kinetics400_slow_r50_baseline", 32_454_096),
        ("kinetics400_baseline", 34_566_488),
        ("kinetics400_slow_r50", 43_945_916),
        ("kinetics400", 46_314_820),
        ("charades_ego", 34_006_373),
        ("charades_ego_star", 43_445_095),
        ("epic100", 34_559_573),
        ("epic100_star", 43_998_295),
        ("charades_ego_r101_star", 71_705_575),
        ("epic100_r101_star", 72_258_775),
    ],
)
def test_models_have_the_published_sizes(preset: str, size: int) -> None:
    with torch.device("meta"):
        assert count(Model(config_of(preset))) == size


def test_shapes_at_full_size() -> None:
    with torch.device("meta"):
        model = Model(config_of("kinetics400"))
        out = model.predict(torch.zeros(2, 32, 3, 224, 224, dtype=torch.uint8))
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    assert shapes == {"action/action": (2, 400), "ego": (2, 2), "object": (2, 1000), "map": (2, 2, 8, 7, 7)}
    assert model.map_head is not None
    assert count(model.map_head) == 9_438_722
    assert count(model.score_heads) + count(model.classifier) == 3_231_610


def test_a_weight_of_zero_builds_no_head_and_asks_for_nothing() -> None:
    config = replace(TINY, weights=ACTIONS_ALONE)
    model, sampling = Model(config), config.sampling()
    assert (sampling.scores, sampling.boxes) == ({}, 0)
    assert {n.split(".")[0] for n, _ in model.named_parameters()} == {"backbone", "classifier"}
    whole = TINY.sampling()
    assert (whole.labels, whole.scores, whole.boxes) == ({"action": 5}, {"ego": 2, "object": 7}, 4)
    teacher = replace(TINY, weights=replace(ACTIONS_ALONE, action=0, ego=1))
    assert (teacher.sampling().labels, teacher.sampling().scores) == ({}, {"ego": 2})
    batch = {k: v for k, v in batch_of(config).items() if "scores" not in k and "boxes" not in k}
    assert set(model(batch)) == {"loss", "action/action"}


def test_without_the_signals_loss_and_gradient_are_those_of_the_action_loss() -> None:
    whole, alone = Model(TINY), Model(replace(TINY, weights=ACTIONS_ALONE))
    rest = alone.load_state_dict(whole.state_dict(), strict=False)
    assert {n.split(".")[0] for n in rest.unexpected_keys} == {"score_heads", "map_head"}
    batch = batch_of(TINY)
    expected = 0.5 * F.cross_entropy(
        whole.predict(whole.inputs(batch)[0])["action/action"], batch["clip/label/action"].argmax(1)
    )
    expected.backward()
    loss = alone(batch)["loss"]
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(alone.backbone.parameters(), whole.backbone.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_without_the_heads_the_action_logits_are_the_same_bits() -> None:
    whole, alone = Model(TINY).eval(), Model(replace(TINY, weights=ACTIONS_ALONE)).eval()
    alone.load_state_dict(whole.state_dict(), strict=False)
    clips = batch_of(TINY)["clip"]
    with torch.no_grad():
        assert torch.equal(alone.predict(clips)["action/action"], whole.predict(clips)["action/action"])
        assert torch.equal(alone.class_scores(clips)["action"], whole.class_scores(clips)["action"])


@pytest.mark.parametrize("name", ["ego", "object", "hand_map", "object_map"])
def test_each_signal_reaches_the_backbone_and_maps_not_the_last_fast_stage(name: str) -> None:
    model = Model(TINY)
    model(batch_of(TINY))[name].backward()

    def reached(stage: nn.Module) -> bool:
        return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in stage.parameters())

    assert all(reached(stage) for stage in model.backbone.slow_stages)
    assert all(reached(stage) for stage in model.backbone.fast_stages[:3])
    assert reached(model.backbone.fast_stages[3]) == (name in ("ego", "object"))


def test_the_teacher_gets_no_gradient() -> None:
    batch = batch_of(TINY)
    for key in ("clip/scores/ego", "clip/scores/object"):
        batch[key].requires_grad_()
    Model(TINY)(batch)["loss"].backward()
    assert batch["clip/scores/ego"].grad is None
    assert batch["clip/scores/object"].grad is None


def test_a_sample_without_teachers_leaves_those_losses_to_the_others() -> None:
    model, batch = Model(TINY).eval(), batch_of(TINY)
    some = torch.tensor([True, False, True])
    masked = batch | {k: some for k in batch if k.endswith("/mask")}
    with torch.no_grad():
        found, rest = model(masked), model({k: v[some] for k, v in batch.items()})
        none = model(batch | {k: torch.zeros(3, dtype=torch.bool) for k in batch if k.endswith("/mask")})
    for name in ("ego", "object", "hand_map", "object_map"):
        torch.testing.assert_close(found[name], rest[name])
        assert float(none[name]) == 0


def test_map_targets_lie_at_the_slow_frames() -> None:
    """Of 32 frames, a box in frame 13 is seen and one in frame 12 is not."""
    boxes = torch.zeros(1, 32, 1, 6)
    boxes[0, [12, 13]] = torch.tensor([1.0, 0, 0, 0.1, 0.1, 1.0])
    model = Model(replace(TINY, frames=32))
    target = model.paint(boxes, torch.zeros(1, 2, 8, 4, 4))
    assert slow_indices(32, 4)[target[0, 0].flatten(1).any(1)].tolist() == [13]


def test_boxes_share_the_crop_of_their_frames() -> None:
    """A bright square with a box around it: under every crop the painted cells lie where it is bright."""
    config = replace(TINY, boxes=1)
    model, batch = Model(config), batch_of(config, 16)
    clip = torch.zeros(16, 8, 3, 64, 64, dtype=torch.uint8)
    clip[..., 16:36, 8:40] = 255
    box = torch.tensor([1, 8 / 64, 16 / 64, 40 / 64, 36 / 64, 1.0]).expand(16, 8, 1, 6)
    clips, boxes = model.inputs(batch | {"clip": clip, "clip/boxes": box})
    assert boxes is not None
    bright = (clips[:, ::7, 0].float() / 255).unflatten(-1, (24, 2)).mean(-1).unflatten(-2, (24, 2)).mean(-2)
    painted = model.paint(boxes, torch.zeros(16, 2, 2, 24, 24))[:, 0]
    assert bool((painted[bright > 0.5] == 1).all())
    assert float((painted - (bright > 0).float()).abs().mean()) < 0.03
    assert len({tuple(b.tolist()) for b in boxes[:, 0, 0]}) == 16


def test_evaluation_takes_clips_whole() -> None:
    model, batch = Model(replace(TINY, recolour=0.3)).eval(), batch_of(TINY)
    clips, boxes = model.inputs(batch)
    assert clips is batch["clip"]
    assert boxes is batch["clip/boxes"]


def test_batch_norm_has_no_weight_decay() -> None:
    model = Model(TINY)
    decayed, kept = model.parameter_groups(1e-4)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (1e-4, 0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {id(p) for p in kept["params"]} == {id(p) for m in norms for p in m.parameters()}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def weights_of(config: Config) -> dict[str, Tensor]:
    model = Model(config)
    return {name: torch.randn_like(v) if v.is_floating_point() else v for name, v in model.state_dict().items()}


@pytest.mark.parametrize("config", [STAR, PLAIN])
def test_fine_tuning_takes_over_the_backbone_and_the_map_head_for_the_star_alone(config: Config) -> None:
    before, model = weights_of(TINY), Model(config)
    drawn = {n: v.clone() for n, v in model.state_dict().items()}
    lines = model.start_from(before)
    for name, value in model.state_dict().items():
        kept = drawn if name.startswith("classifier.") else before
        assert torch.equal(value, kept[name]), name
    assert any(line.startswith("classifier.*: stays as drawn") for line in lines)
    assert any(line.startswith("score_heads.*:") for line in lines)
    assert any(line.startswith("map_head.*:") for line in lines) == (config is PLAIN)


def test_weights_that_do_not_fit_are_named() -> None:
    wide = weights_of(replace(TINY, backbone=replace(BACKBONE, width=16)))
    with pytest.raises(ValueError, match=r"backbone\..* is \(.*, not \("):
        Model(STAR).start_from(wide)
    with pytest.raises(ValueError, match=r"map_head\..* is missing"):
        Model(STAR).start_from(weights_of(replace(TINY, weights=ACTIONS_ALONE)))
    assert Model(TINY).start_from(weights_of(TINY)) == []


def test_an_initial_residual_branch_is_zero_by_default() -> None:
    model = Model(replace(TINY, backbone=replace(BACKBONE, zero_init_residual=True)))
    last = [m for n, m in model.named_modules() if n.endswith("norm3")]
    assert last
    assert not any(bool(m.weight.any()) for m in last)  # type: ignore[operator, union-attr]
    others = [m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm3d) and not n.endswith("norm3")]
    assert all(bool((m.weight == 1).all()) for m in others)


def test_weights_are_drawn_as_published() -> None:
    """MSRA by the fan out in the backbone and the map's first layer, N(0, 0.01) in the last ones; no biases."""
    model = Model(replace(TINY, object_classes=500, map_width=64, backbone=replace(BACKBONE, width=16)))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            last = isinstance(module, nn.Linear) or name == "map_head.projection"
            fan_out = len(module.weight) * module.weight[0, 0].numel()
            std, spread = 0.01 if last else (2 / fan_out) ** 0.5, module.weight.numel() ** -0.5
            assert float(module.weight.detach().std()) == pytest.approx(std, rel=max(0.05, 4 * spread)), name
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm3d):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()


def test_frame_embeddings_average_to_the_clip_embedding() -> None:
    model, clip = Model(TINY).eval(), batch_of(TINY)["clip"]
    with torch.no_grad():
        frames, whole = model.embed(clip), model.embed_clip(clip)
    assert whole.shape == (3, sum(model.backbone.widths))
    torch.testing.assert_close(frames.mean(1), whole, rtol=1e-4, atol=1e-5)


def test_large_frames_are_pooled_by_a_window_of_the_crops_size() -> None:
    config = replace(TINY, dropout=0.5)
    model = Model(config).eval()
    clips = torch.randint(0, 256, (2, 8, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = model.backbone((clips.transpose(1, 2).float() / 255 - 0.45) / 0.225)
        views = []
        for i in range(2):
            for j in range(2):
                pooled = torch.cat([m[..., i : i + 3, j : j + 3].mean((2, 3, 4)) for m in maps], 1)
                views.append(model.classifier["action"](pooled).softmax(1))
        torch.testing.assert_close(model.class_scores(clips)["action"], torch.stack(views).mean(0))
        small = torch.randint(0, 256, (2, 8, 3, 48, 48), dtype=torch.uint8)
        expected = model.predict(small)["action/action"].softmax(1)
        torch.testing.assert_close(model.class_scores(small)["action"], expected)
