"""BYOV: parameter counts, causality, what the losses reach, what the embedding depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from byov_tiny import TINY, batch_of
from torch import Tensor, nn

from crossview.methods.blocks import Attention
from crossview.methods.byov.config import Decoder, Encoder
from crossview.methods.byov.figures import draw
from crossview.methods.byov.model import Model
from crossview.methods.byov.networks import Decoder as DecoderNetwork
from crossview.methods.byov.networks import Encoder as EncoderNetwork
from crossview.methods.byov.timecode import time_code


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("depth", "count"), [(4, 3_423_488), (3, 2_633_728)])
def test_parameter_counts_are_the_papers(depth: int, count: int) -> None:
    encoder = EncoderNetwork(768, Encoder(), final_norm=True)
    decoder = DecoderNetwork(256, 768, Decoder(depth=depth), segments=False)
    assert sum(p.numel() for p in encoder.parameters()) == 9_676_032
    assert sum(p.numel() for p in decoder.parameters()) == count


def test_the_trained_networks_start_as_mae_does() -> None:
    """Xavier-uniform weights, zero biases, mask token of std 0.02; both segments start alike."""
    encoder = EncoderNetwork(48, Encoder(), final_norm=True)
    decoder = DecoderNetwork(256, 48, Decoder(), segments=True)
    for module in (*encoder.modules(), *decoder.modules()):
        if isinstance(module, nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            assert 0.9 * bound < float(module.weight.detach().abs().max()) <= bound
            assert float(module.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()
    assert float(decoder.mask_token.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert decoder.segments is not None
    assert not decoder.segments.any()


def test_shapes_of_every_step() -> None:
    model, batch = Model(TINY), batch_of(TINY)
    tokens = model.frozen_features(batch["ego"])
    assert tokens.shape == (3, 10, 16, 48)
    assert tokens.dtype == torch.float16
    assert model.merged(batch["ego"]).shape == (3, 10, 48)
    predictions, target, _ = model.inspect(batch)
    assert target.shape == predictions["msm"].shape == predictions["mcm"].shape == (6, 10, 48)
    assert model.embed(batch["ego"]).shape == (3, 10, 32)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, width, hidden, depth in (("encoder", 32, 96, 2), ("decoder", 24, 48, 2)):
        assert shapes[f"{name}.blocks.{depth - 1}.mlp.0.weight"] == (hidden, width)
        assert f"{name}.blocks.{depth}.mlp.0.weight" not in shapes


def decoded(model: Model, task: str, latents: Tensor, visible: Tensor, context: Tensor) -> Tensor:
    code = time_code("continuous", torch.arange(10)[None], torch.tensor([10]), 10, 24)
    if task == "msm":
        return model.decoder.self_view(latents, visible, code, causal=True)
    return model.decoder.cross_view(latents, visible, code, context, code)


@pytest.mark.parametrize("task", ["msm", "mcm"])
def test_the_self_view_decoder_is_causal_and_the_cross_view_decoder_is_not(task: str) -> None:
    model = Model(TINY)
    visible = torch.tensor([[0, 2, 3, 6, 7, 9]])
    latents, context = torch.randn(1, 6, 32), torch.randn(1, 10, 32)
    other = latents.clone()
    other[0, 3] = torch.randn(32)  # stands at position 6
    change = (
        (decoded(model, task, other, visible, context) - decoded(model, task, latents, visible, context))
        .detach()
        .abs()
        .amax(-1)[0]
    )
    assert (change[6:] > 1e-4).all()
    if task == "msm":
        assert float(change[:6].max()) <= 1e-6
    else:
        assert (change[:6] > 1e-5).all()


def test_the_causal_mask_hides_later_frames_however_well_they_match() -> None:
    """The released mask adds log(1e-45) = -103 to later frames' energies, not minus infinity."""
    attention = Attention(8, 2)
    x = torch.randn(1, 6, 8)
    with torch.no_grad():
        attention.qkv.weight[:16].mul_(100)
        other = torch.cat([x[:, :3], 50 * torch.randn(1, 3, 8)], 1)
        assert torch.equal(attention(x, causal=True)[:, :3], attention(other, causal=True)[:, :3])


def test_a_causal_encoder_keeps_later_frames_from_earlier_predictions() -> None:
    for causal in (True, False):
        model = Model(dataclasses.replace(TINY, causal_encoder=causal))
        merged = torch.randn(2, 10, 48)
        frames, length = torch.arange(10).expand(2, 10), torch.full((2,), 10)
        splits = {"msm": model.split(torch.tensor([1]), "msm", 10)}
        later = splits["msm"].visible[0, -1]
        other = merged.clone()
        other[0, later] = torch.randn(48)
        a, b = (model.predict(x, frames, length, splits)["msm"][0, :later] for x in (merged, other))
        assert (float((a - b).detach().abs().max()) <= 1e-6) == causal


def test_cross_view_prediction_uses_the_other_view() -> None:
    model = Model(TINY)
    merged, frames, length = torch.randn(2, 10, 48), torch.arange(10).expand(2, 10), torch.full((2,), 10)
    splits = {t: model.split(torch.tensor([1]), t, 10) for t in ("msm", "mcm")}
    other = merged.clone()
    other[1] = torch.randn(10, 48)
    a, b = (model.predict(x, frames, length, splits) for x in (merged, other))
    assert torch.equal(a["msm"][0], b["msm"][0])
    assert float((a["mcm"][0] - b["mcm"][0]).detach().abs().max()) > 1e-4


@pytest.mark.parametrize("view", ["ego", "exo"])
def test_each_self_view_loss_reaches_its_own_latents_and_the_decoder(view: str) -> None:
    """The released code scores view 2 on latents that were never decoded: no gradient reaches those it should."""
    model, seen = Model(TINY), []

    def keep(_module: object, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    hook = model.encoder.register_forward_hook(keep)
    model(batch_of(TINY))[f"msm/{view}"].backward()
    hook.remove()
    msm, mcm, _ = seen  # visible to MSM, visible to MCM, complete
    own, other = (slice(0, 3), slice(3, 6)) if view == "ego" else (slice(3, 6), slice(0, 3))
    assert msm.grad is not None
    assert float(msm.grad[own].abs().sum()) > 0
    assert float(msm.grad[other].abs().sum()) == 0
    assert mcm.grad is None or float(mcm.grad.abs().sum()) == 0
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.decoder.blocks.parameters())


def test_the_embedding_depends_on_neither_batch_chunk_nor_generator() -> None:
    model = Model(TINY)
    video = batch_of(TINY, 2)["exo"].repeat(1, 2, 1, 1, 1)[:, :17]
    with torch.no_grad():
        whole = model.embed(video)
        assert whole.shape == (2, 17, 32)
        for chunk in (1, 5, 64):
            model.base.chunk = chunk
            torch.manual_seed(chunk)
            alone = torch.cat([model.embed(video[i : i + 1]) for i in range(2)])
            torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(model.embed(video), whole, atol=1e-5, rtol=1e-4)


def test_cached_features_stand_in_for_video() -> None:
    model, batch = Model(TINY), batch_of(TINY)
    cached = batch | {v: model.frozen_features(batch[v]) for v in ("ego", "exo")}
    torch.testing.assert_close(model(cached)["loss"], model(batch)["loss"], rtol=2e-2, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(model.embed(cached["ego"]), model.embed(batch["ego"]), rtol=0, atol=0.1)
    assert set(draw(model, cached)) == {"prediction_similarity"}


def test_tokens_beyond_float16_are_not_cached() -> None:
    model = Model(TINY)
    for parameter in model.base.vit.parameters():
        nn.init.constant_(parameter, 1e4)
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224.*exceed float16.*cache_features off"):
        model.frozen_features(batch_of(TINY, 1)["ego"])


def test_the_embedding_is_float32_and_close_under_autocast() -> None:
    model, video = Model(TINY), batch_of(TINY, 1)["ego"]
    with torch.no_grad():
        exact = model.embed(video)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.embed(video)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0, atol=0.1)


def test_a_clip_that_never_changes_has_finite_clip_targets() -> None:
    model = Model(dataclasses.replace(TINY, target_norm="clip"))
    target = model._target(torch.ones(2, 10, 48))
    assert torch.equal(target, torch.zeros(2, 10, 48))


def test_the_embedding_needs_no_decoder() -> None:
    model, video = Model(TINY), batch_of(TINY)["ego"]
    with torch.no_grad():
        before = model.embed(video)
        del model.decoder
        assert torch.equal(model.embed(video), before)


def test_a_checkpoint_brings_the_base_along() -> None:
    trained = Model(dataclasses.replace(TINY, base=dataclasses.replace(TINY.base, seed=1)))
    fresh = Model(trained.config.without_pretrained())
    fresh.load_state_dict(trained.state_dict(), strict=True)
    video = batch_of(TINY)["ego"]
    with torch.no_grad():
        assert torch.equal(fresh.embed(video), trained.embed(video))


def test_training_leaves_the_base_as_it_was() -> None:
    model, batch = Model(TINY), batch_of(TINY)
    before = {k: v.clone() for k, v in model.base.vit.state_dict().items()}
    model.train()
    assert not model.base.vit.training
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(batch)["loss"].backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in model.base.vit.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in model.base.vit.parameters())


def test_without_its_time_code_the_encoder_cannot_tell_when_a_frame_lies() -> None:
    model = Model(dataclasses.replace(TINY, stm_ratio=None))
    still = torch.randint(0, 256, (1, 1, 3, 64, 64), dtype=torch.uint8).expand(1, 12, -1, -1, -1)
    with torch.no_grad():
        assert float(model.embed(still).std(1).max()) > 1e-3
        assert float(model.baselines()["no time code"](still).std(1).max()) < 1e-5
        assert float(model.baselines()["frozen features"](still).std(1).max()) < 1e-5


def test_centring_takes_away_what_never_changes_in_a_clip() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, input_norm="clip", target_norm="clip", stm_ratio=None)
    model = Model(config).eval()
    features = torch.randn(2, 9, 16, model.base.width, dtype=torch.float64).float()
    shifted = features + torch.randn(2, 1, 1, model.base.width)
    with torch.no_grad():
        torch.testing.assert_close(model.embed(shifted), model.embed(features), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(
            Model(dataclasses.replace(config, input_norm="none")).merged(shifted), model.merged(shifted)
        )
        target = model._target(features.mean(2))
    torch.testing.assert_close(target.mean(1), torch.zeros(2, model.base.width), rtol=0, atol=1e-5)
    torch.testing.assert_close(target.square().mean((1, 2)), torch.ones(2), rtol=1e-3, atol=0)
