"""MV2MAE: tokens, masks, motion weights and the three losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mv2mae_tiny import TINY, batch_of, model_of
from torch import Tensor

from crossview.errors import UserError
from crossview.methods.mv2mae import motion
from crossview.methods.mv2mae.config import VIT_B, VIT_T, Config, Masking, Motion, presets
from crossview.methods.mv2mae.model import Model
from crossview.methods.mv2mae.networks import CrossDecoder, DropPath, Encoder, SameDecoder
from crossview.methods.mv2mae.tokens import moments, patchify, split, take, unpatchify
from crossview.platform.config import Data, Experiment, from_dict, to_dict
from crossview.platform.train.lr_schedule import learning_rate


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# Tokens


def test_a_clip_is_512_tokens_of_1536_values_and_back() -> None:
    config = Config()
    video = torch.rand(2, 16, 3, 128, 128)
    tokens = patchify(video, config)
    assert tokens.shape == (2, 512, 1536) == (2, config.tokens, config.token_values)
    assert torch.equal(unpatchify(tokens, config), video)
    first = video[0, :2, :, 16:32, 32:48].permute(0, 2, 3, 1).flatten()  # tubelet 0, row 1, column 2; colour fastest
    assert torch.equal(tokens[0, 1 * 8 + 2], first)


@pytest.mark.parametrize(
    ("width", "encoder"), [(192, 5_631_552), (384, 21_879_936), (768, 86_227_200)], ids=["ViT-T", "ViT-S", "ViT-B"]
)
def test_encoders_have_videomaes_parameter_counts(width: int, encoder: int) -> None:
    stack = {192: VIT_T, 384: Config().encoder, 768: VIT_B}[width]
    network = Encoder(replace(Config(), encoder=stack))
    assert sum(p.numel() for p in network.parameters()) == encoder


def test_decoders_have_the_known_parameter_counts() -> None:
    """Blocks, norm and head; each has its own projection (384 x 192) and mask token beside them."""
    for network, count in ((SameDecoder(Config()), 2_075_520), (CrossDecoder(Config()), 2_671_488)):
        parts = {name: p.numel() for name, p in network.named_parameters()}
        assert sum(n for name, n in parts.items() if name.startswith(("blocks.", "norm.", "head."))) == count
        assert {name for name in parts if not name.startswith(("blocks.", "norm.", "head."))} == {
            "project.weight",
            "mask_token",
        }


def test_weights_start_as_in_mae() -> None:
    model = Model(TINY)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            largest = math.sqrt(6 / sum(module.weight.shape))  # Xavier-uniform
            assert 0.95 * largest < float(module.weight.detach().abs().max()) <= largest, name
    for name, value in model.named_parameters():
        assert not name.endswith("bias") or not value.any(), name
        assert not name.endswith("mask_token") or 0.01 < float(value.detach().std()) < 0.03, name


@pytest.mark.parametrize("kind", ["token", "channel"])
def test_normalised_targets_have_mean_0_and_variance_1(kind: str) -> None:
    video = torch.rand(2, 4, 3, 32, 32) * torch.tensor([0.3, 1, 2]).view(3, 1, 1) + torch.rand(2, 1, 3, 1, 1)
    tokens = patchify(video, TINY)
    mean, std = moments(tokens, kind)
    values = (tokens - mean) / std
    parts = values.unflatten(-1, (-1, 3)) if kind == "channel" else values[..., None]
    torch.testing.assert_close(parts.mean(2), torch.zeros_like(parts[:, :, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(parts.var(2), torch.ones_like(parts[:, :, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(values * std + mean, tokens, atol=1e-5, rtol=0)
    clips = model_of(replace(TINY, target_norm=kind)).clips(batch_of(TINY))
    assert float(clips.target.mean(-1).abs().max()) < 1e-4


# Masks


@pytest.mark.parametrize(
    ("kind", "ratio", "hidden"),
    [("random", 0.7, 358), ("tube", 0.7, 352), ("random", 0.5, 256), ("random", 0.75, 384), ("random", 0.9, 460)],
)
def test_masks_hide_as_many_tokens_as_the_ratio_says(kind: str, ratio: float, hidden: int) -> None:
    parts = split(torch.arange(20), Masking(ratio=ratio, kind=kind), 8, 64, 0)  # type: ignore[arg-type]
    assert parts.hidden.shape == (20, hidden)
    assert parts.visible.shape == (20, 512 - hidden)
    assert torch.equal(torch.cat(parts, dim=1).sort(1).values, torch.arange(512).expand(20, -1))
    assert len(parts.hidden.unique(dim=0)) == 20
    assert torch.equal(
        torch.cat([parts.visible, parts.hidden], 1).gather(1, parts.order), torch.arange(512).expand(20, -1)
    )
    if kind == "tube":
        assert torch.equal(
            parts.hidden.view(20, 8, -1) % 64, (parts.hidden.view(20, 8, -1) % 64)[:, :1].expand(-1, 8, -1)
        )


def test_source_and_target_masks_are_independent_draws() -> None:
    parts = model_of(Config()).clips(batch_of(Config(), 2)).split.hidden
    source, target = (torch.zeros(2, 512).scatter(1, half, 1) for half in parts.chunk(2))
    assert not torch.equal(source, target)
    assert float((source * target).sum(1).mean()) == pytest.approx(512 * 0.7**2, rel=0.1)


def test_masks_depend_on_the_seed_alone() -> None:
    model, batch = model_of(), batch_of(TINY)
    again = {name: value[[2, 0]] for name, value in batch.items()}
    torch.manual_seed(9)
    for whole, part in zip(model.clips(batch).split, model.clips(again).split, strict=True):
        assert torch.equal(torch.cat([half[[2, 0]] for half in whole.chunk(2)]), part)


# Motion weights


def test_weights_are_the_softmax_of_the_norms() -> None:
    norms = torch.tensor([[0.0, 60, 120, 180]])
    literal = motion.weigh(norms, Motion(rescale=False))
    torch.testing.assert_close(literal, torch.tensor([[0.0321, 0.0871, 0.2369, 0.6439]]), atol=5e-5, rtol=0)
    torch.testing.assert_close(motion.weigh(norms, Motion()), 4 * literal)
    assert float(motion.weigh(norms, Motion()).mean()) == pytest.approx(1)
    assert torch.equal(motion.weigh(norms, Motion(temperature=None)), torch.ones(1, 4))


def test_a_still_clip_weighs_all_tokens_alike() -> None:
    video = torch.randint(0, 256, (2, 1, 3, 32, 32), dtype=torch.uint8).expand(-1, 4, -1, -1, -1)
    norms = motion.differences(video, TINY)
    assert torch.equal(norms, torch.zeros(2, 32))
    torch.testing.assert_close(motion.weigh(norms, TINY.motion), torch.ones(2, 32))


def test_a_high_temperature_is_the_plain_mean_squared_error() -> None:
    batch = batch_of(TINY)
    hot, plain = (Model(replace(TINY, motion=Motion(temperature=temperature))) for temperature in (1e9, None))
    plain.load_state_dict(hot.state_dict())
    for name, value in plain.eval()(batch).items():
        torch.testing.assert_close(hot.eval()(batch)[name], value, rtol=1e-6, atol=1e-6)


def test_effective_tokens_rise_with_the_temperature() -> None:
    norms = motion.differences(batch_of(TINY)["source"], TINY) * torch.rand(32)
    found = [motion.effective(motion.weigh(norms, Motion(temperature=t))) for t in (1, 4, 15, 60, 240, 1e6)]
    assert all(bool((a <= b + 1e-3).all()) for a, b in itertools.pairwise(found))
    torch.testing.assert_close(found[-1], torch.full((3,), 32.0))
    one_hot = motion.weigh(torch.tensor([[1e4, 0.0, 0.0]]), Motion())
    torch.testing.assert_close(motion.effective(one_hot), torch.ones(1))


def test_motion_raises_the_share_of_its_own_token_and_sample_alone() -> None:
    video = torch.full((2, 4, 3, 32, 32), 90, dtype=torch.uint8)
    video[0, 3, :, 8:16, 16:24] += 100  # tubelet 1, row 1, column 2
    weights = motion.weigh(motion.differences(video, TINY), TINY.motion)
    moved = 16 + 4 + 2
    assert int(weights[0].argmax()) == moved
    others = torch.arange(32) != moved
    assert bool((weights[0, others] < 1).all())
    torch.testing.assert_close(weights[0, others], weights[0, :1].expand(31))
    torch.testing.assert_close(weights[1], torch.ones(32))
    turned = motion.weigh(motion.differences(video.flip(0), TINY), TINY.motion)
    assert torch.equal(turned.flip(0), weights)


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        ("0-255", 1.0),
        ("0-1", 1 / 255),
        ("standardised", math.sqrt(sum(s**-2 for s in (0.229, 0.224, 0.225)) / 3) / 255),
    ],
)
def test_scale_and_norm_are_as_named(scale: str, factor: float) -> None:
    video = torch.full((1, 4, 3, 32, 32), 50, dtype=torch.uint8)
    video[:, 1::2] += 30  # every difference is 30
    for norm, per_value in (("rms", 1.0), ("l2", math.sqrt(2 * 8 * 8 * 3))):
        config = replace(TINY, motion=Motion(scale=scale, norm=norm))  # type: ignore[arg-type]
        expected = torch.full((1, 32), 30 * factor * per_value)
        torch.testing.assert_close(motion.differences(video, config), expected)


def test_the_first_frame_copies_the_second_difference_or_has_none() -> None:
    video = torch.full((1, 4, 3, 32, 32), 50, dtype=torch.uint8)
    video[:, 1:] += 40  # between the first two frames alone
    for rule, factor in (("copy", 1.0), ("zero", math.sqrt(0.5))):
        norms = motion.differences(video, replace(TINY, motion=Motion(first_frame=rule)))[0]  # type: ignore[arg-type]
        torch.testing.assert_close(norms, torch.cat([torch.full((16,), 40 * factor), torch.zeros(16)]))


def test_weights_come_from_the_real_pixels_and_carry_no_gradient() -> None:
    model, batch = model_of(), batch_of(TINY)
    clips = model.clips(batch)
    assert not clips.weights.requires_grad
    real = motion.weigh(motion.differences(torch.cat([batch["source"], batch["target"]]), TINY), TINY.motion)
    torch.testing.assert_close(clips.weights, real.gather(1, clips.split.hidden))
    torch.testing.assert_close(model(batch)["effective_tokens"], motion.effective(real).mean())
    masked = model_of(replace(TINY, motion=Motion(over="masked"))).clips(batch)
    torch.testing.assert_close(masked.weights.mean(1), torch.ones(6))


# Losses


def test_predictions_at_visible_places_do_not_count() -> None:
    model, batch = model_of(), batch_of(TINY)
    before = model(batch)
    shift = torch.zeros(1, 32, 24)
    shift[:, :10] = torch.randn(24)  # visible tokens come first in a decoder's sequence

    def wrong(_module: object, _inputs: object, output: Tensor) -> Tensor:
        return output + shift

    assert model.same_decoder is not None
    assert model.cross_decoder is not None
    for decoder in (model.same_decoder, model.cross_decoder):
        decoder.blocks[-1].register_forward_hook(wrong)
    for name, value in before.items():
        assert torch.equal(model(batch)[name], value)
    shift[:, 10:] = torch.randn(24)
    assert not torch.equal(model(batch)["cross"], before["cross"])


@pytest.mark.parametrize("side", ["source", "target"])
def test_hidden_pixels_never_reach_the_encoder(side: str) -> None:
    model, batch = model_of(), batch_of(TINY)
    clips = model.clips(batch)
    row = 0 if side == "source" else 3
    tokens = patchify(batch[side], TINY).clone()
    tokens[0, clips.split.hidden[row]] = 255 - tokens[0, clips.split.hidden[row]]
    changed = model.clips(batch | {side: unpatchify(tokens, TINY)})
    assert not torch.equal(changed.target, clips.target)
    assert torch.equal(model.encode(changed), model.encode(clips))


def test_gradients_reach_the_visible_source_through_the_cross_loss_alone() -> None:
    model, batch = model_of(), batch_of(TINY)
    clips = model.clips(batch)
    pixels = clips.tokens.clone().requires_grad_()
    latents = model.encode(clips._replace(tokens=pixels))
    (cross,) = torch.autograd.grad(model._cross_error(latents, clips).sum(), pixels, retain_graph=True)
    hidden, visible = (take(cross[:3], index[:3]) for index in clips.split)
    assert torch.equal(hidden, torch.zeros_like(hidden))
    assert bool((visible.abs().sum(-1) > 0).all())
    (own,) = torch.autograd.grad(model.same_view(latents, clips.split)[1].square().sum(), pixels)
    assert torch.equal(own[:3], torch.zeros_like(own[:3]))
    assert bool((take(own[3:], clips.split.visible[3:]).abs().sum(-1) > 0).all())


# How it is optimised


def test_pretraining_decays_no_bias_norm_or_mask_token() -> None:
    model = model_of()
    free = {id(p) for group in model.parameter_groups(0.05) if not group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in free}
    assert names == {n for n, _ in model.named_parameters() if "norm" in n or n.endswith(("bias", "mask_token"))}
    assert all("lr_scale" not in group for group in model.parameter_groups(0.05))


def test_the_published_schedule() -> None:
    optim = presets()["ntu60"]().optim
    total = 16_000
    rates = [learning_rate(optim, step, total) for step in (0, 200, 400, total)]
    assert rates == pytest.approx([0, 3e-4, 6e-4, 4e-5])
    assert max(learning_rate(optim, step, total) for step in range(0, total, 50)) == pytest.approx(6e-4)


def test_dropped_paths_keep_the_mean_and_rest_in_evaluation() -> None:
    drop, x = DropPath(0.3), torch.ones(4000, 1, 1)
    assert float(drop(x).mean()) == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(drop(x).unique(), torch.tensor([0, 1 / 0.7]))
    assert torch.equal(drop.eval()(x), x)
    model = Model(TINY)
    assert {m.chance for m in model.modules() if isinstance(m, DropPath)} == {0.0}
    model.fine_tune(drop_path=0.1)
    assert [block.drop_path.chance for block in model.encoder.blocks] == [0.0, 0.1]  # type: ignore[union-attr]


def test_a_configuration_of_the_versions_that_fine_tuned() -> None:
    recipe = presets()["debug"]()
    values = to_dict("mv2mae", Experiment(data=Data(catalog=Path("any")), method=recipe.method, optim=recipe.optim))
    older = {"stage": "pretrain", "finetuning": {"classes": 60, "drop_path": 0.1}}
    assert from_dict(values | {"method": values["method"] | older})[1].method == recipe.method
    with pytest.raises(UserError, match="no longer has; fine-tune its pre-training run with `crossview train recog"):
        from_dict(values | {"method": values["method"] | older | {"stage": "finetune"}})
    with pytest.raises(UserError, match="finetune"):
        from_dict(values | {"method": values["method"] | {"finetune": {}}})
