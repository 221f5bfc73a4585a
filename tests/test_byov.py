"""BYOV: token merging, masks, causality, the four losses and the embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crossview.methods.base_config import Base
from crossview.methods.byov.config import Config, Decoder, Encoder, Weights, presets
from crossview.methods.byov.masking import num_masked, restore, split, take
from crossview.methods.byov.model import Model
from crossview.methods.byov.networks import Decoder as DecoderNetwork
from crossview.methods.byov.networks import Encoder as EncoderNetwork
from crossview.methods.byov.stm import merge, merge_stream, num_selected, selected
from crossview.methods.byov.timecode import time_code

TINY = Config(
    base=Base(model="vit_tiny_patch16_224", weights="random", size_px=64, width=48, depth=1, heads=3),
    encoder=Encoder(width=32, depth=2, heads=4),
    decoder=Decoder(width=32, depth=2, heads=4),
    frames=10,
)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch_of(config: Config, size: int = 3) -> dict[str, Tensor]:
    """Random video with frame indices spread over recordings of different lengths."""
    T, px = config.frames, config.base.size_px
    batch = {"sample": torch.arange(size), "seed": torch.arange(size) * 1_000 + 5}
    for view in ("ego", "exo"):
        length = torch.randint(T, 4 * T, (size,))
        frames = (torch.rand(size, T).sort(1).values * length[:, None]).long()
        batch |= {
            view: torch.randint(0, 256, (size, T, 3, px, px), dtype=torch.uint8),
            f"{view}/frames": frames,
            f"{view}/num_frames": length,
        }
    return batch


def merged_by_loops(tokens: Tensor, ratio: float) -> Tensor:
    """Token merging as the paper words it, one frame at a time."""
    B, T, N, _ = tokens.shape
    out = torch.zeros(B, T, tokens.shape[-1])
    for b in range(B):
        for t in range(T):
            s = min(t, T - 2)
            score = [float((tokens[b, s, n] - tokens[b, s + 1, n]).abs().mean()) for n in range(N)]
            best = sorted(range(N), key=lambda n: -score[n])[: round(ratio * N)]
            out[b, t] = torch.stack([tokens[b, t, n] for n in best]).mean(0)
    return out


# Selective token merging


@pytest.mark.parametrize(("patches", "kept"), [(196, 59), (256, 77), (49, 15)])
def test_stm_keeps_thirty_percent_of_the_patches(patches: int, kept: int) -> None:
    assert num_selected(0.3, patches) == kept
    assert selected(torch.randn(2, 3, patches, 4), 0.3).shape == (2, 3, kept)


def test_stm_equals_a_loop_over_frames() -> None:
    tokens = torch.randn(2, 5, 49, 8)
    torch.testing.assert_close(merge(tokens, 0.3), merged_by_loops(tokens, 0.3), rtol=0, atol=1e-6)


def test_stm_selects_a_patch_that_moves_and_reuses_the_last_ranking() -> None:
    tokens = torch.randn(1, 1, 196, 8).expand(1, 6, 196, 8) + 1e-3 * torch.randn(1, 6, 196, 8)
    tokens[0, 3, 77] += 5
    index = selected(tokens, 0.3)
    assert 77 in index[0, 3]
    assert 77 in index[0, 2]
    assert torch.equal(index[:, -1], index[:, -2])


def test_stm_off_is_the_mean_of_all_patches() -> None:
    tokens = torch.randn(2, 4, 9, 5)
    torch.testing.assert_close(merge(tokens, None), tokens.mean(2))
    torch.testing.assert_close(merge(tokens[:, :1], None), tokens[:, :1].mean(2))


def test_stm_refuses_a_single_frame() -> None:
    with pytest.raises(ValueError, match=r"1 frame.*give 2 or more"):
        merge(torch.randn(1, 1, 9, 4), 0.3)
    with pytest.raises(ValueError, match=r"1 frame.*give 2 or more"):
        merge_stream([torch.randn(1, 1, 9, 4)], 0.3)


@settings(deadline=None, max_examples=30)
@given(frames=st.integers(2, 23), chunk=st.integers(1, 9), gap=st.integers(1, 5), ratio=st.sampled_from([0.3, None]))
def test_stm_of_chunks_equals_stm_of_the_whole(frames: int, chunk: int, gap: int, ratio: float | None) -> None:
    gap = min(gap, frames - 1)
    tokens = torch.randn(2, frames, 16, 4, generator=torch.Generator().manual_seed(frames))
    assert torch.equal(merge_stream(tokens.split(chunk, dim=1), ratio, gap), merge(tokens, ratio, gap))


# Masks


@pytest.mark.parametrize(("frames", "ratio", "hidden"), [(32, 0.4, 13), (32, 0.8, 26), (20, 0.4, 8), (20, 0.8, 16)])
def test_masks_hide_exactly_as_many_frames_as_the_ratio_says(frames: int, ratio: float, hidden: int) -> None:
    assert num_masked(ratio, frames) == hidden
    mask, visible = split(torch.arange(50), frames, ratio, 0)
    assert (mask.sum(1) == hidden).all()
    assert visible.shape == (50, frames - hidden)
    assert (visible.diff(dim=1) > 0).all()
    assert not mask.gather(1, visible).any()


def test_masks_are_independent_per_sample_view_and_task() -> None:
    model = Model(TINY)
    seed = torch.arange(40)
    msm, mcm = model.split(seed, "msm", 10).mask, model.split(seed, "mcm", 10).mask
    assert len(msm.unique(dim=0)) > 30
    assert not torch.equal(msm[:40], msm[40:])
    assert 0.3 < float((msm[:40] & msm[40:]).sum() / msm[:40].sum()) < 0.5
    assert float((msm & mcm).sum() / msm.sum()) < 0.95


def test_visible_frames_return_to_their_places() -> None:
    x = torch.randn(6, 20, 5)
    mask, visible = split(torch.arange(6), 20, 0.4, 3)
    token = torch.full((5,), 9.0)
    back = restore(take(x, visible), visible, token, 20)
    torch.testing.assert_close(back, torch.where(mask[..., None], token, x))


# Networks


@pytest.mark.parametrize(("depth", "count"), [(4, 3_423_488), (3, 2_633_728)])
def test_parameter_counts_are_the_papers(depth: int, count: int) -> None:
    encoder = EncoderNetwork(768, Encoder(), final_norm=True)
    decoder = DecoderNetwork(256, 768, Decoder(depth=depth), segments=False)
    assert sum(p.numel() for p in encoder.parameters()) == 9_676_032
    assert sum(p.numel() for p in decoder.parameters()) == count


def test_shapes_of_every_step() -> None:
    model, batch = Model(TINY), batch_of(TINY)
    tokens = model.frozen_features(batch["ego"])
    assert tokens.shape == (3, 10, 16, 48)
    assert tokens.dtype == torch.float16
    assert model.merged(batch["ego"]).shape == (3, 10, 48)
    predictions, target, _ = model.inspect(batch)
    assert target.shape == predictions["msm"].shape == predictions["mcm"].shape == (6, 10, 48)
    assert model.embed(batch["ego"]).shape == (3, 10, 32)


def decoded(model: Model, task: str, latents: Tensor, visible: Tensor, context: Tensor) -> Tensor:
    code = time_code("continuous", torch.arange(10)[None], torch.tensor([10]), 10, 32)
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
    assert float((a["mcm"][0] - b["mcm"][0]).abs().max()) > 1e-4


# Losses


def test_swapping_the_videos_swaps_the_losses() -> None:
    model = Model(TINY)
    merged, frames, length, splits = model._inputs(batch_of(TINY))
    halves = torch.cat([torch.arange(3, 6), torch.arange(3)])
    turned = {t: type(s)(s.mask[halves], s.visible[halves]) for t, s in splits.items()}
    a = model.losses(merged, frames, length, splits)
    b = model.losses(merged[halves], frames[halves], length[halves], turned)
    for task in ("msm", "mcm"):
        torch.testing.assert_close(a[f"{task}/ego"], b[f"{task}/exo"])
        torch.testing.assert_close(a[f"{task}/exo"], b[f"{task}/ego"])


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


def test_the_weighted_terms_sum_to_the_loss() -> None:
    weights = Weights(msm_ego=0.5, msm_exo=2, mcm_ego=0.25, mcm_exo=3)
    out = Model(dataclasses.replace(TINY, weights=weights))(batch_of(TINY))
    assert set(out) == {"loss", "msm/ego", "msm/exo", "mcm/ego", "mcm/exo"}
    expected = 0.5 * out["msm/ego"] + 2 * out["msm/exo"] + 0.25 * out["mcm/ego"] + 3 * out["mcm/exo"]
    torch.testing.assert_close(out["loss"], expected)


def test_a_task_without_weight_is_left_out() -> None:
    out = Model(dataclasses.replace(TINY, weights=Weights(mcm_ego=0, mcm_exo=0)))(batch_of(TINY))
    assert set(out) == {"loss", "msm/ego", "msm/exo"}


@pytest.mark.parametrize("loss_on", ["masked", "all"])
def test_visible_positions_count_only_where_all_do(loss_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(dataclasses.replace(TINY, loss_on=loss_on))
    merged, frames, length, splits = model._inputs(batch_of(TINY))
    wrong = {t: merged + 7.0 * ~s.mask[..., None] for t, s in splits.items()}  # wrong at the visible positions alone
    monkeypatch.setattr(model, "predict", lambda *_: wrong)
    losses = model.losses(merged, frames, length, splits)
    visible = {"msm": 6 / 10, "mcm": 2 / 10}
    for name in ("msm/ego", "msm/exo", "mcm/ego", "mcm/exo"):
        expected = 49 * visible[name[:3]] if loss_on == "all" else 0.0
        assert float(losses[name]) == pytest.approx(expected, abs=1e-6)


def test_token_normalised_targets_have_unit_channels() -> None:
    model = Model(dataclasses.replace(TINY, target_norm="token"))
    _, target, _ = model.inspect(batch_of(TINY))
    torch.testing.assert_close(target.mean(-1), torch.zeros(6, 10), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1, unbiased=False), torch.ones(6, 10), atol=1e-3, rtol=0)


def test_one_pair_is_learnt_by_heart_and_the_right_partner_helps() -> None:
    """Ten times lower on a pair of 32-frame clips; the cross-view loss rises with a partner of other content."""
    model = Model(dataclasses.replace(TINY, frames=32))
    generator = torch.Generator().manual_seed(3)
    path = torch.randn(4, 32, 48, generator=generator).cumsum(1) * 0.5  # content that both views of a pair share
    merged = torch.cat([path, path.roll(1, dims=-1)])
    frames, length = torch.arange(32).expand(8, 32), torch.full((8,), 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    first = last = 0.0
    for step in range(180):
        splits = {t: model.split(torch.arange(4) + 4 * step, t, 32) for t in ("msm", "mcm")}
        loss = model.losses(merged, frames, length, splits)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = first or loss.item(), loss.item()
    assert last < first / 10
    model.eval()
    other = torch.cat([merged[:4], merged[4:].roll(1, 0)])
    splits = {"mcm": model.split(torch.arange(4), "mcm", 32)}
    with torch.no_grad():
        right = model.losses(merged, frames, length, splits)["mcm/ego"]
        wrong = model.losses(other, frames, length, splits)["mcm/ego"]
    assert right < wrong


# Embedding


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


def test_cached_features_stand_in_for_video() -> None:
    model, batch = Model(TINY), batch_of(TINY)
    cached = batch | {v: model.frozen_features(batch[v]) for v in ("ego", "exo")}
    torch.testing.assert_close(model(cached)["loss"], model(batch)["loss"], rtol=2e-2, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(model.embed(cached["ego"]), model.embed(batch["ego"]), rtol=0, atol=0.1)
    assert set(model.figures(cached)) == {"prediction_similarity"}


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


# Options


def test_the_continuous_code_is_a_share_of_the_recording() -> None:
    code = time_code("continuous", torch.tensor([[0, 9], [0, 99]]), torch.tensor([10, 100]), 32, 8)
    twice = time_code("continuous", torch.tensor([[0, 19]]), torch.tensor([20]), 32, 8)
    assert code.shape == (2, 2, 8)
    torch.testing.assert_close(code[0, 0, 0], torch.sin(torch.tensor(0.5 / 10 * 32)))
    assert float((code[0] - twice[0]).abs().max()) < float((code[0, 0] - code[0, 1]).abs().max())


def test_the_index_code_counts_the_clip_and_is_interpolated_beyond_it() -> None:
    frames = torch.tensor([[3, 50, 51, 90]])
    clip = time_code("index", frames, torch.tensor([100]), 4, 8)
    torch.testing.assert_close(clip[0, :, 0], torch.arange(4).float().sin())
    long = time_code("index", torch.arange(8)[None], torch.tensor([8]), 4, 8)
    expected = torch.nn.functional.interpolate(clip.mT, 8, mode="linear", align_corners=False).mT
    torch.testing.assert_close(long, expected)


def test_the_norm_stands_after_the_blocks_unless_the_released_order_is_asked_for() -> None:
    x = torch.randn(2, 5, 48)
    after = EncoderNetwork(48, TINY.encoder, final_norm=True)(x)
    before = EncoderNetwork(48, TINY.encoder, final_norm=False)(x)
    torch.testing.assert_close(after.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    assert float(before.mean(-1).abs().max()) > 1e-3


def test_the_evaluation_gap_follows_the_recordings_length() -> None:
    video = torch.randint(0, 256, (1, 40, 3, 64, 64), dtype=torch.uint8)
    model = Model(dataclasses.replace(TINY, stm_evaluation_gap="training"))
    torch.testing.assert_close(model.merged(video), merge(model.base(video), 0.3, gap=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"msm_ratio": 1.0}, "msm_ratio is 1.0"),
        ({"mcm_ratio": 0.01}, "mcm_ratio is 0.01 with 10 frames"),
        ({"stm_ratio": 30}, "stm_ratio is 30"),
        ({"frames": 1}, "frames is 1"),
        ({"encoder": Encoder(width=30, heads=4)}, "heads must divide the width"),
        ({"segment_embedding": True, "weights": Weights(mcm_ego=0, mcm_exo=0)}, "segment_embedding"),
    ],
)
def test_impossible_options_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)  # type: ignore[arg-type]


def test_weights_are_checked() -> None:
    with pytest.raises(ValueError, match=r"weights\.msm_ego is -1"):
        Weights(msm_ego=-1)
    with pytest.raises(ValueError, match="are all 0"):
        Weights(msm_ego=0, msm_exo=0, mcm_ego=0, mcm_exo=0)


@pytest.mark.parametrize(
    ("name", "frames", "batch", "steps"),
    [
        ("break_eggs", 32, 4, 9_000),
        ("pour_milk", 32, 1, 23_100),
        ("pour_liquid", 32, 1, 41_100),
        ("tennis_forehand", 20, 1, 51_900),
    ],
)
def test_the_papers_recipes(name: str, frames: int, batch: int, steps: int) -> None:
    recipe = presets()[name]()
    assert isinstance(recipe.method, Config)
    assert recipe.method.frames == frames
    optim = recipe.optim
    assert (optim.optimizer, optim.lr, optim.weight_decay, optim.schedule) == ("adam", 1e-5, 5e-6, "constant")
    assert (optim.batch, optim.steps, optim.epochs) == (batch, steps, None)


@pytest.mark.parametrize(("pairs", "perspectives"), [("ego-exo", ["ego", "exo"]), ("merged", ["any", "any"])])
def test_the_sampling_is_two_random_clips_of_one_action(pairs: str, perspectives: list[str]) -> None:
    sampling = dataclasses.replace(TINY, pairs=pairs).sampling()
    assert sampling.pairing == "unpaired"
    assert [v.perspective for v in sampling.views.values()] == perspectives
    assert all(v.frames == 10 and v.spread == "random" and v.size_px == 64 for v in sampling.views.values())


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
