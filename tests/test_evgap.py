"""EVGAP's encoder, batches, hand-over between its steps, and embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from evgap_tiny import GROUPS, TINY, batch_of
from torch import nn

from crossview.methods.base_config import Base
from crossview.methods.evgap.config import Config, Encoder
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


# Losses of the whole model (test_evgap_reference.py compares each with a transcription)


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


def test_measures_tell_aligned_views_from_others() -> None:
    model, batch = Model(GROUPS).eval(), batch_of(GROUPS)
    aligned = dict(batch, video=batch["video"][:, :1].expand_as(batch["video"]))
    with torch.no_grad():
        right, wrong = model.measures(aligned), model.measures(batch)
    assert float(right["in_batch_R@1"]) == 1.0
    assert float(right["similarity_gap"]) > float(wrong["similarity_gap"])


# Parameters


def test_a_checkpoint_holds_one_encoder_and_what_belongs_to_the_loss() -> None:
    parts = ("attention.query", "attention.key_value", "attention.out", "norm1", "norm2", "feed.0", "feed.3")
    layers = [f"layers.{k}.{part}" for k in range(3) for part in parts]
    encoder = {f"encoder.{name}.{kind}" for name in ("project", *layers) for kind in ("weight", "bias")}
    encoder |= {"encoder.token", "encoder.positions"}
    norms = {f"encoder.norms.{k}.{kind}" for k in range(3) for kind in ("weight", "bias")}
    assert set(Model(TINY).state_dict()) == encoder | {"logits.log_scale"}
    assert set(Model(GROUPS).state_dict()) == encoder | {"logits.log_scale", "logits.bias"}
    pre = dataclasses.replace(TINY, encoder=dataclasses.replace(TINY.encoder, norm="pre"))
    assert set(Model(pre).state_dict()) == encoder | norms | {"logits.log_scale"}
    printed = Model(dataclasses.replace(GROUPS, scale="fixed", bias="none"))
    assert set(printed.state_dict()) == encoder | {"logits.log_scale"}
    assert {name for name, _ in printed.named_parameters()} == encoder


def test_scale_and_bias_start_as_the_options_say() -> None:
    logits = Model(dataclasses.replace(GROUPS, scale_init=20.0, bias_init=-16.0)).logits
    assert logits.bias is not None
    assert (float(logits.scale().detach()), float(logits.bias.detach())) == (pytest.approx(20.0), -16.0)
    assert float(Model(TINY).logits.log_scale.detach()) == pytest.approx(2.659260)  # ln(1 / 0.07)


def test_weights_start_as_xavier_draws_them_and_codes_near_zero() -> None:
    encoder = ClipEncoder(2048, 20, Encoder())
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name.endswith("weight"):
            rows, columns = parameter.shape
            assert float(parameter.detach().std()) == pytest.approx((2 / (rows + columns)) ** 0.5, rel=0.01), name
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.1), name


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_weights_of_linear_layers_alone_decay_and_the_loss_has_a_rate_of_its_own(config: Config) -> None:
    model = Model(dataclasses.replace(config, logits_lr=30.0))
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, others, logits = model.parameter_groups(0.07)
    assert [group["weight_decay"] for group in (decayed, others, logits)] == [0.07, 0.0, 0.0]
    assert [group.get("lr_scale") for group in (decayed, others, logits)] == [None, None, 30.0]
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    loss = {name for name in names.values() if name.startswith("logits.")}
    assert len(linear) == 1 + 3 * 5
    assert {names[id(p)] for p in decayed["params"]} == linear
    assert {names[id(p)] for p in logits["params"]} == loss
    assert {names[id(p)] for p in others["params"]} == set(names.values()) - linear - loss
    assert sum(len(group["params"]) for group in (decayed, others, logits)) == len(names)


def test_a_frozen_base_and_a_fixed_scale_are_not_optimised() -> None:
    base = Base(model="vit_tiny_patch16_224", weights="random", size_px=64, width=48, depth=1, heads=3)
    model = Model(dataclasses.replace(GROUPS, input="video", base=base, base_grid=2, scale="fixed", bias="none"))
    groups = model.parameter_groups(0.05)
    assert len(groups) == 2
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.encoder.parameters()}


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


# Embedding (test_evgap_reference.py compares it with a transcription)


def test_windows_per_pass_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = Model(TINY).eval(), torch.randn(2, 21, 2, 12)
    with torch.no_grad():
        whole = model.embed(video)
        monkeypatch.setattr("crossview.methods.evgap.model.WINDOWS", 6)
        torch.testing.assert_close(model.embed(video), whole, atol=1e-6, rtol=0)
