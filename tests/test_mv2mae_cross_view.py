"""MV2MAE's cross-view decoder, measures, embeddings and bad input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from mv2mae_tiny import TINY, batch_of, model_of
from torch import Tensor

from crossview.methods.mv2mae.config import Config, Masking, Motion, Transformer, Weights
from crossview.methods.mv2mae.figures import attention_map, draw
from crossview.methods.mv2mae.model import Model
from crossview.methods.mv2mae.recordings import cover


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# Cross-attention


def test_cross_attention_has_rows_of_sum_1_over_the_visible_source() -> None:
    model, batch = model_of(), batch_of()
    clips = model.clips(batch)
    latents = model.encode(clips)
    assert model.cross_decoder is not None
    target = type(clips.split)(*(part[3:] for part in clips.split))
    maps = model.cross_decoder.attention(latents[3:], target, latents[:3], clips.split.visible[:3])
    assert maps.shape == (3, 2, 32, 10)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 2, 32))


def test_the_papers_map_is_512_by_154() -> None:
    slim = Transformer(width=24, depth=1, heads=3)
    model = model_of(replace(Config(), encoder=slim, same_decoder=slim, cross_decoder=slim))
    clips = model.clips(batch_of(model.config, 1))
    maps = attention_map(model, model.encode(clips), clips)
    assert maps.shape == (512, 512)
    torch.testing.assert_close(maps.sum(1), torch.ones(512))
    assert torch.equal(maps[:, clips.split.hidden[0]], torch.zeros(512, 358))
    assert bool((maps[:, clips.split.visible[0]] > 0).all())


def test_maps_lie_in_the_grids_order_whatever_the_decoders() -> None:
    """The map of the layer is that of its inputs, token by token."""
    model, batch = model_of(), batch_of(size=1)
    clips = model.clips(batch)
    latents, split = model.encode(clips), clips.split
    decoder = model.cross_decoder
    assert decoder is not None
    maps = attention_map(model, latents, clips, layer=0, head=1)
    block = decoder.blocks[0]
    x = torch.empty(1, 32, 24)
    x[0, split.visible[1]] = decoder.project(latents[1]) + decoder.positions[split.visible[1]]
    x[0, split.hidden[1]] = decoder.mask_token + decoder.positions[split.hidden[1]]
    memory = decoder.project(latents[:1]) + decoder.positions[split.visible[0]]
    alone = block.map(x, memory)[0, 1]  # type: ignore[operator]
    torch.testing.assert_close(maps[:, split.visible[0]], alone)


def test_a_map_is_the_attention_that_the_block_applies() -> None:
    model = model_of()
    assert model.cross_decoder is not None
    block: Any = model.cross_decoder.blocks[0]
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    inputs: list[Tensor] = []
    block.cross.register_forward_pre_hook(lambda _module, given: inputs.extend(given))
    x, memory = torch.randn(2, 32, 24), torch.randn(2, 10, 24)
    block(x, memory)
    values = block.cross.v(inputs[1]).unflatten(-1, (2, 12))
    mixed = torch.einsum("bhls,bshd->blhd", block.map(x, memory), values).flatten(2)
    torch.testing.assert_close(block.cross.proj(mixed), block.cross(*inputs[:2]), atol=1e-5, rtol=1e-4)


def test_the_source_is_read_and_its_absence_shows() -> None:
    model, batch = model_of(), batch_of()
    clips = model.clips(batch)
    latents = model.encode(clips)
    right, wrong = (model._cross_error(latents, clips, shift) for shift in (0, 1))
    assert not torch.equal(right, wrong)
    same = model.same_view(latents, clips.split)
    turned = model.same_view(torch.cat([latents[:3].roll(1, 0), latents[3:]]), clips.split)
    assert torch.equal(same[1], turned[1])


def two_cameras(count: int, seed: int) -> dict[str, Tensor]:
    """Coloured squares that wander over one plane; the second camera sees it transposed and in other colours."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.full((count, 2, 3, 32, 32), 60.0)
    for _ in range(3):
        colour = torch.rand(count, 3, generator=generator) * 195 + 60
        x, y = (torch.randint(0, 24, (count,), generator=generator) for _ in range(2))
        dx, dy = (torch.randint(-2, 3, (count,), generator=generator) for _ in range(2))
        for b in range(count):
            for t in range(2):
                left, top = (int(v.clamp(0, 24)) for v in (x[b] + t * dx[b], y[b] + t * dy[b]))
                video[b, t, :, top : top + 8, left : left + 8] = colour[b, :, None, None]
    seeds = torch.randint(0, 2**40, (count,), generator=generator)
    other = video.mT[:, :, [2, 0, 1]]
    return {"source": other.to(torch.uint8), "target": video.to(torch.uint8), "seed": seeds, "sample": seeds}


def test_the_cross_decoder_learns_to_use_the_other_camera() -> None:
    """A tenth less error than with another's source, and less than without one, on squares never trained on."""
    config = replace(
        TINY,
        frames=2,
        encoder=Transformer(width=48, depth=1, heads=4),
        cross_decoder=Transformer(width=48, depth=2, heads=4),
        masking=Masking(ratio=0.75),
        motion=Motion(temperature=None),
        weights=Weights(same_source=0, same_target=0.2),
        crop_scales=(),
    )
    model, data, steps = Model(config), two_cameras(1024, 1), 300
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    for step in range(steps):
        rows = torch.randint(0, 1024, (48,))
        batch = {name: value[rows] for name, value in data.items()} | {"seed": torch.randint(0, 2**40, (48,))}
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1, step / 30, 2 * (1 - step / steps))
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    unseen = two_cameras(128, 2)
    found, losses = model.eval().measures(unseen), model(unseen)
    assert float(found["cross_view_gain"]) >= 0.10, found
    assert losses["cross"] < 0.9 * losses["same/target"]


# Measures


def test_gains_compare_with_another_samples_source() -> None:
    model, batch = model_of(), batch_of()
    clips = model.clips(batch)
    latents = model.encode(clips)
    equal = clips._replace(weights=torch.ones_like(clips.weights))
    right, wrong = (model._cross_error(latents, equal, shift).mean() for shift in (0, 1))
    found = model.measures(batch)
    torch.testing.assert_close(found["cross_view_gain"], 1 - right / wrong)
    assert set(found) == {f"same_view_gain/{v}" for v in ("source", "target")} | {
        "cross_view_gain",
        "cross_view_gain/moving",
    }
    plain = model_of(replace(TINY, motion=Motion(temperature=None)))
    plain.load_state_dict(model.state_dict())
    for name, value in plain.measures(batch).items():  # variants with and without motion weights are measured alike
        torch.testing.assert_close(found[name], value)


def test_a_perfect_and_a_constant_prediction_have_gains_1_and_0(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of(), batch_of()
    target = model.clips(batch).target
    for prediction, gain in ((target, 1.0), (target.mean((1, 2), keepdim=True).expand_as(target), 0.0)):
        monkeypatch.setattr(model, "same_view", lambda *_, p=prediction: dict(enumerate(p.chunk(2))))
        assert float(model.measures(batch)["same_view_gain/target"]) == pytest.approx(gain, abs=1e-5)


def test_without_a_cross_loss_there_is_no_cross_decoder() -> None:
    model, batch = model_of(replace(TINY, weights=Weights(cross=0))), batch_of()
    assert not any("cross" in name for name, _ in model.named_parameters())
    assert set(model(batch)) == {"loss", "same/source", "same/target", "effective_tokens"}
    assert set(model.measures(batch)) == {"same_view_gain/source", "same_view_gain/target"}
    assert set(draw(model, batch)) == {"motion_weights", "reconstruction"}
    alone = model_of(replace(TINY, weights=Weights(same_source=0, same_target=0)))
    assert not any("same" in name for name, _ in alone.named_parameters())
    assert set(alone(batch)) == {"loss", "cross", "effective_tokens"}
    half = model_of(replace(TINY, weights=Weights(same_source=0)))
    assert set(half(batch)) == {"loss", "same/target", "cross", "effective_tokens"}


# Embeddings


def test_a_clips_vector_is_the_mean_of_the_unmasked_encoders_tokens() -> None:
    model, video = model_of(), batch_of()["source"]
    vector = model.embed_clip(video)
    assert vector.shape == (3, 48)
    torch.testing.assert_close(vector, model.encoder(model._tokens(video)).mean(1))
    model.embed_clip(video).sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize("length", [1, 3, 8, 9, 23, 64])
def test_windows_cover_a_recording_of_any_length(length: int) -> None:
    index, mix = cover(length, 4, 2, 2, torch.device("cpu"))
    assert int(index.max()) == length - 1 or length == 1 or int(index.max()) == length - 2
    assert bool((index.diff(dim=1) <= 2).all())
    torch.testing.assert_close(mix.sum(1), torch.ones(length))
    assert bool((mix >= 0).all())
    middle = index.float().view(-1, 2, 2).mean(-1).flatten()  # of each tubelet
    if length >= 8:
        inside = slice(1, length - 3)
        torch.testing.assert_close(
            (mix @ middle)[inside], torch.arange(length, dtype=torch.float32)[inside], atol=2, rtol=0
        )


def test_frames_of_a_recording_are_embedded_in_windows() -> None:
    model = model_of()
    video = torch.randint(0, 256, (2, 19, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        z = model.embed(video)
        assert z.shape == (2, 19, 48)
        torch.testing.assert_close(torch.cat([model.embed(part[None]) for part in video]), z, atol=1e-5, rtol=1e-4)
        clip = video[:, :8]  # one window of four frames
        means = model.encoder(model._tokens(clip[:, ::2])).unflatten(1, (2, 16)).mean(2)
        torch.testing.assert_close(model.embed(clip)[:, [1, 5]], means, atol=1e-5, rtol=1e-4)
        still = video[:, :1].expand(-1, 12, -1, -1, -1)
        assert model.embed(still).shape == (2, 12, 48)


def test_pixel_baselines_are_coarse_frames_and_their_differences() -> None:
    video = torch.randint(0, 256, (2, 5, 3, 32, 32), dtype=torch.uint8)
    found = {name: baseline(video) for name, baseline in model_of().baselines().items()}
    assert set(found) == {"pixels", "frame differences"}
    frames = video.double()
    changes = torch.stack([(frames[:, max(t, 1)] - frames[:, max(t, 1) - 1]).abs() for t in range(5)], dim=1)
    for name, values in (("pixels", frames), ("frame differences", changes)):
        coarse = values.unflatten(-1, (8, 4)).unflatten(-3, (8, 4)).mean((-1, -3)) / 255  # 8 x 8 cells of 4 x 4 pixels
        torch.testing.assert_close(found[name].double(), coarse.flatten(2), atol=1e-6, rtol=1e-5)
    single = model_of().baselines()["frame differences"](video[:, :1])
    assert torch.equal(single, torch.zeros(2, 1, 192))


# Crops


def test_crops_are_each_views_own_and_flips_are_common() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(24, 4, 3, 32, 32).contiguous()
    batch = batch_of(size=24) | {"source": ramp, "target": ramp}
    model = Model(replace(TINY, flip=0.5))
    source, target = model.clips(batch).video.float().chunk(2)
    rising = [(half[:, 0, 0, 0, -1] > half[:, 0, 0, 0, 0]) for half in (source, target)]
    assert torch.equal(*rising)
    assert 0 < int(rising[0].sum()) < 24
    assert not torch.equal(source, target)
    assert torch.equal(source[:, :1].expand_as(source), source)  # one crop for all frames
    assert torch.equal(model.eval().clips(batch).video[:24], ramp)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masking": Masking(ratio=0.0)}, r"masks 0 of 512 tokens.*at least one token masked and one visible"),
        ({"masking": Masking(ratio=1.0)}, r"masks 512 of 512 tokens"),
        ({"masking": Masking(ratio=0.01, kind="tube")}, r"masks 0 of 512 tokens"),
        ({"frames": 15}, r"frames is 15 and tubelet 2.*multiple of tubelet"),
        ({"frames": 1, "tubelet": 1}, r"frames is 1; it must be at least 2"),
        ({"size_px": 120}, r"size_px is 120 and patch_px 16.*multiple of patch_px"),
        ({"embed_stride": 0}, r"embed_stride is 0; it must be at least 1"),
        ({"encoder": Transformer(width=50, depth=1, heads=4)}, r"heads must divide the width"),
        ({"encoder": Transformer(width=9, depth=1, heads=3)}, r"width is 9; it must be even"),
        ({"crop_scales": (1.2,)}, r"crop_scales \(1.2,\)"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**options)  # type: ignore[arg-type]


def test_weights_and_temperatures_are_checked() -> None:
    with pytest.raises(ValueError, match=r"temperature is 0.0; it must be above 0, or None"):
        Motion(temperature=0.0)
    with pytest.raises(ValueError, match=r"are all 0"):
        Weights(same_source=0, same_target=0, cross=0)
    with pytest.raises(ValueError, match=r"weights.cross is -1; it must be 0 or more"):
        Weights(cross=-1)


def test_clips_that_do_not_fit_are_refused() -> None:
    model, batch = model_of(), batch_of()
    for changed, message in (
        ({"target": batch["target"][:, :2]}, r"view 'target': a tensor of shape \(3, 2, 3, 32, 32\)"),
        ({"source": batch["source"][..., :16]}, r"must be \(B, 4, 3, 32, 32\), video of the training length and size"),
        ({"source": torch.zeros(3, 4, 16, 48)}, r"view 'source'"),
    ):
        with pytest.raises(ValueError, match=message):
            model(batch | changed)
    with pytest.raises(ValueError, match=r"no view 'target', only sample, seed, source; build the batch"):
        model({name: value for name, value in batch.items() if name != "target"})
    with pytest.raises(ValueError, match=r"clip: a tensor of shape \(3, 3"):
        model.embed_clip(batch["source"][:, :3])
    with pytest.raises(ValueError, match=r"recording: a tensor of shape"):
        model.embed(batch["source"][..., :16, :])
    with pytest.raises(ValueError, match=r"a batch of 1 sample has no other source"):
        model.measures({name: value[:1] for name, value in batch.items()})
    plain = model_of(replace(TINY, weights=Weights(cross=0)))
    clips = plain.clips(batch)
    with pytest.raises(ValueError, match=r"weights.cross is 0, so this model has no cross-view decoder"):
        plain.cross_view(plain.encode(clips), clips.split, clips.tokens, clips.split.visible)
