"""EVGAP's encoder, batches, hand-over between its steps, and embeddings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from evgap_tiny import GROUPS, TINY, batch_of
from torch import nn

from crossview.methods.base_config import Base
from crossview.methods.evgap.config import Config, Encoder, presets
from crossview.methods.evgap.encoder import ClipEncoder, Layer
from crossview.methods.evgap.model import Model


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# Encoder


@pytest.mark.parametrize(("norm", "count"), [("post", 19_974_656), ("pre", 19_980_800)])
def test_parameter_counts(norm: str, count: int) -> None:
    encoder = ClipEncoder(2048, 20, Encoder(norm=norm))  # type: ignore[arg-type]
    assert sum(p.numel() for p in encoder.parameters()) == count
    assert encoder.positions.shape == (21, 512)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_layer_is_pytorchs_transformer_layer(norm: str) -> None:
    config = Encoder(width=32, heads=4, hidden=48, norm=norm, dropout=0.0)  # type: ignore[arg-type]
    layer = Layer(config)
    other = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=True, norm_first=norm == "pre")
    ours, theirs = layer.attention, other.self_attn
    own = {
        "self_attn.in_proj_weight": torch.cat([ours.query.weight, ours.key_value.weight]),
        "self_attn.in_proj_bias": torch.cat([ours.query.bias, ours.key_value.bias]),
        **{f"self_attn.out_proj.{n}": p for n, p in ours.out.named_parameters()},
        **{f"linear1.{n}": p for n, p in layer.feed[0].named_parameters()},
        **{f"linear2.{n}": p for n, p in layer.feed[3].named_parameters()},
        **{f"{k}.{n}": p for k in ("norm1", "norm2") for n, p in getattr(layer, k).named_parameters()},
    }
    assert theirs.num_heads == ours.heads
    other.load_state_dict(own, strict=True)
    x, keys = torch.randn(5, 9, 32), torch.arange(9) < torch.tensor([9, 3, 7, 1, 5])[:, None]
    expected = other(x, src_key_padding_mask=~keys)
    torch.testing.assert_close(layer(x, keys), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer(x, keys, 1), expected[:, :1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("length", [10, 20, 33, 40])
def test_padding_behind_the_mask_changes_nothing(norm: str, length: int) -> None:
    encoder = ClipEncoder(24, 20, dataclasses.replace(TINY.encoder, norm=norm))
    clip = torch.randn(2, length, 24)
    padded = torch.cat([clip, torch.full((2, 40 - length, 24), 50.0)], dim=1)
    whole = encoder(padded, torch.full((2,), length))
    torch.testing.assert_close(whole, encoder(clip), atol=1e-5, rtol=0)
    assert whole.shape == (3, 2, 32)


def test_positions_stand_for_shares_of_the_clip() -> None:
    encoder = ClipEncoder(24, 8, TINY.encoder)
    torch.testing.assert_close(encoder._code(torch.zeros(1, 8, 32), None)[0], encoder.positions[1:])
    half = encoder._code(torch.zeros(1, 4, 32), None)[0]  # frame k of 4 lies between rows 2k and 2k + 1 of 8
    torch.testing.assert_close(half, (encoder.positions[1::2] + encoder.positions[2::2]) / 2)
    turned = torch.randn(1, 8, 24)
    assert float((encoder(turned) - encoder(turned.flip(1))).detach().abs().max()) > 1e-3


def test_ego_and_exo_share_one_encoder() -> None:
    model, batch = Model(TINY).eval(), batch_of(TINY)
    same = batch | {"exo": batch["ego"], "exo/length": batch["ego/length"]}
    views = model.views(same)
    torch.testing.assert_close(views.ego, views.exo)
    names = {n.split(".")[0] for n, _ in model.named_parameters()}
    assert names == {"encoder", "logits"}


# Losses of the whole model


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_auxiliary_losses_weigh_a_fifth_each(config: Config) -> None:
    out = Model(config)(batch_of(config))
    total = out["layer3"] + 0.2 * (out["layer1"] + out["layer2"])
    torch.testing.assert_close(out["loss"], total)


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_without_auxiliary_losses_the_last_layer_is_left(config: Config) -> None:
    batch = batch_of(config)
    with_them = Model(config)
    without = Model(dataclasses.replace(config, auxiliary=0.0))
    without.load_state_dict(with_them.state_dict())
    out = without(batch)
    torch.testing.assert_close(out["loss"], with_them(batch)["layer3"])
    assert "layer1" not in out
    out["loss"].backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in without.encoder.layers.parameters())  # type: ignore[union-attr]


def test_equal_losses_of_six_layers_make_twice_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(TINY, encoder=dataclasses.replace(TINY.encoder, depth=6))
    model = Model(config)
    monkeypatch.setattr(model.encoder, "clips", lambda x, _: x.mean(1).expand(6, -1, -1))
    out = model(batch_of(config))
    torch.testing.assert_close(out["loss"], 2 * out["layer6"])


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_a_loss_on_one_layer_reaches_that_layer_and_those_before(config: Config) -> None:
    model = Model(config)
    model(batch_of(config))["layer2"].backward()
    reached = [
        any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in layer.parameters())
        for layer in model.encoder.layers
    ]
    assert reached == [True, True, False]


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_the_order_of_scenes_does_not_matter(config: Config) -> None:
    model, batch = Model(config).eval(), batch_of(config)
    turned = {k: v[[2, 0, 3, 1]] for k, v in batch.items()}
    for name, value in model(batch).items():
        torch.testing.assert_close(model(turned)[name], value, atol=1e-5, rtol=1e-4)


def test_a_missing_camera_changes_nothing() -> None:
    model, batch = Model(GROUPS).eval(), batch_of(GROUPS)
    batch["video/mask"][1, 3] = batch["video/mask"][2, 0] = False
    other = dict(batch, video=batch["video"].clone())
    other["video"][1, 3], other["video"][2, 0] = 9.0, -9.0
    for name, value in model(batch).items():
        torch.testing.assert_close(model(other)[name], value, atol=1e-6, rtol=0)


def test_a_learned_scale_stays_within_its_range_and_a_fixed_one_is_no_parameter() -> None:
    model = Model(TINY)
    for start, kept in ((9.0, 100.0), (-2.0, 1.0)):
        model.logits.log_scale.data.fill_(start)
        assert float(model(batch_of(TINY))["scale"].detach()) == pytest.approx(kept, rel=1e-5)
    fixed = Model(presets()["paper_literal_raw"]().method)  # type: ignore[arg-type]
    assert dict(fixed.logits.named_parameters()) == {}
    assert float(fixed.logits.scale()) == pytest.approx(0.154902, abs=1e-6)


def test_scale_and_bias_may_learn_faster_and_only_matrices_decay() -> None:
    model = Model(dataclasses.replace(GROUPS, logits_lr=30.0))
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, others, logits = model.parameter_groups(0.05)
    assert [group["weight_decay"] for group in (decayed, others, logits)] == [0.05, 0.0, 0.0]
    assert {names[id(p)] for p in logits["params"]} == {"logits.log_scale", "logits.bias"}
    assert logits["lr_scale"] == 30.0
    assert all(names[id(p)].endswith("weight") and p.ndim == 2 for p in decayed["params"])
    assert {"encoder.token", "encoder.positions"} <= {names[id(p)] for p in others["params"]}
    fixed = Model(dataclasses.replace(GROUPS, scale="fixed", bias="none"))
    assert len(fixed.parameter_groups(0.05)) == 2


def test_the_literal_presets_are_the_four_readings() -> None:
    scales = [float(presets()[f"paper_literal_{n}"]().method.scale_init) for n in ("raw", "exp", "ten", "clip")]  # type: ignore[attr-defined]
    assert scales == pytest.approx([0.15490, 1.1675, 1.4286, 14.2857], rel=1e-4)
    assert math.isclose(Config().scale_init, 1 / 0.07)


def test_measures_tell_aligned_views_from_others() -> None:
    model, batch = Model(GROUPS).eval(), batch_of(GROUPS)
    aligned = dict(batch, video=batch["video"][:, :1].expand_as(batch["video"]))
    with torch.no_grad():
        right, wrong = model.measures(aligned), model.measures(batch)
    assert float(right["in_batch_R@1"]) == 1.0
    assert float(right["similarity_gap"]) > float(wrong["similarity_gap"])


# From step 1 to step 2


def test_step_2_starts_from_step_1_with_everything_accounted_for() -> None:
    first, second = Model(TINY), Model(GROUPS)
    first.logits.log_scale.data.fill_(1.0)
    lines = second.start_from(first.state_dict())
    assert len(lines) == 2
    assert all(line.startswith("logits.") for line in lines)
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(second.encoder.state_dict()[name], value)
    assert float(second.logits.scale().detach()) == pytest.approx(1 / 0.07)
    assert second.logits.bias is not None
    assert Model(TINY).start_from(second.state_dict())  # and back again


def test_weights_of_another_encoder_are_refused() -> None:
    other = Model(dataclasses.replace(TINY, feature_width=12))
    with pytest.raises(ValueError, match=r"encoder\.project\.weight is \(32, 12\), not \(32, 24\)"):
        Model(GROUPS).start_from(other.state_dict())
    deeper = Model(dataclasses.replace(TINY, encoder=dataclasses.replace(TINY.encoder, depth=4)))
    with pytest.raises(ValueError, match=r"encoder\.layers\.3.* is unknown"):
        Model(GROUPS).start_from(deeper.state_dict())


# Embedding


def test_a_frame_is_embedded_by_the_window_around_it() -> None:
    model = Model(TINY).eval()
    video = torch.randn(2, 21, 2, 12)
    with torch.no_grad():
        frames = model.embed(video)
        assert frames.shape == (2, 21, 32)
        torch.testing.assert_close(frames.norm(dim=-1), torch.ones(2, 21))
        for t in (4, 10, 17):
            torch.testing.assert_close(frames[:, t], model.embed_clip(video[:, t - 4 : t + 4]), atol=1e-5, rtol=0)
        torch.testing.assert_close(frames[:, 0], model.embed_clip(video[:, :4]), atol=1e-5, rtol=0)
        torch.testing.assert_close(frames[:, 20], model.embed_clip(video[:, 16:]), atol=1e-5, rtol=0)
        short = model.embed(video[:, :3])
        torch.testing.assert_close(short[:, 1], model.embed_clip(video[:, :3]), atol=1e-5, rtol=0)


def test_windows_per_pass_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = Model(TINY).eval(), torch.randn(2, 21, 2, 12)
    with torch.no_grad():
        whole = model.embed(video)
        monkeypatch.setattr("crossview.methods.evgap.model.WINDOWS", 6)
        torch.testing.assert_close(model.embed(video), whole, atol=1e-6, rtol=0)


def test_clip_embeddings_pass_gradients_on() -> None:
    model = Model(TINY)
    embedding = model.embed_clip(torch.randn(2, 8, 24, 1))
    (embedding * torch.randn_like(embedding)).sum().backward()  # a LayerNorm's plain sum has no gradient
    assert model.encoder.project.weight.grad is not None
    assert float(model.encoder.project.weight.grad.abs().max()) > 1e-3


@pytest.mark.parametrize("grid", [2, None])
def test_video_goes_through_the_frozen_base(grid: int | None) -> None:
    base = Base(model="vit_tiny_patch16_224", weights="random", size_px=64, width=48, depth=1, heads=3)
    if grid is None:
        base = Base(model="resnet10t", weights="random", size_px=64)
    config = dataclasses.replace(TINY, input="video", base=base, base_grid=grid)
    model, video = Model(config).eval(), torch.randint(0, 256, (2, 5, 3, 64, 64), dtype=torch.uint8)
    features = model.frozen_features(video)
    assert features is not None
    assert features.shape == ((2, 5, 4, 48) if grid else (2, 5, 1, 512))
    with torch.no_grad():
        torch.testing.assert_close(model.embed(features), model.embed(video), atol=1e-2, rtol=0)
    if grid:
        whole = Model(dataclasses.replace(config, base_grid=4)).frozen_features(video)  # a ViT of 4 x 4 patches
        assert whole is not None
        corner = whole[:, :, [0, 1, 4, 5]].float().mean(2)
        torch.testing.assert_close(features[:, :, 0].float(), corner, atol=5e-3, rtol=1e-2)
