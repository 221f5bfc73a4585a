"""Segmentation models: sizes, padding, windows, losses, and plain transcriptions of single layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from crossview.downstream.segmentation.asformer import ASFormer, window_mask, windowed_attention
from crossview.downstream.segmentation.c2f_tcn import C2FTCN
from crossview.downstream.segmentation.config import Config
from crossview.downstream.segmentation.ltcontext import Far, LTContext, Near
from crossview.downstream.segmentation.masked_layers import MaskedBatchNorm, instance_norm, prefix, resample
from crossview.downstream.segmentation.model import Model
from crossview.downstream.segmentation.segmenter import SegmentationModel, clipped_smoothing

D, C = 12, 5
MODELS: dict[str, Callable[[], SegmentationModel]] = {
    "c2f_tcn": lambda: C2FTCN(D, C, widths=(16, 16, 16, 8, 8, 8, 8), up_width=8),
    "asformer": lambda: ASFormer(D, C, width=8, dropout=0.0, input_dropout=0.0),
    "asformer, column": lambda: ASFormer(D, C, width=8, window="column", dropout=0.0, input_dropout=0.0),
    "ltcontext": lambda: LTContext(
        D, C, width=8, dropout=0.0, input_dropout=0.0, attention_dropout=0.0, projection_dropout=0.0
    ),
    "ltcontext, normed": lambda: LTContext(
        D, C, width=8, instance_norm=True, dropout=0.0, input_dropout=0.0, attention_dropout=0.0, projection_dropout=0.0
    ),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> SegmentationModel:
    torch.manual_seed(0)
    made = MODELS[request.param]()
    for norm in made.modules():
        if isinstance(norm, MaskedBatchNorm):  # as after training: empty steps are not 0 by chance
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
    return made


def batch(lengths: list[int], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features with noise in the padding, their mask and targets."""
    generator = torch.Generator().manual_seed(3)
    mask = prefix(torch.tensor(lengths), size)
    features = torch.randn(len(lengths), size, D, generator=generator)
    target = torch.randint(0, C, mask.shape, generator=generator).masked_fill(~mask, -100)
    return features, mask, target


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("dim", "expected"), [(512, 4922691), (1024, 5578051), (2048, 6888771), (2560, 7544131), (4096, 9510211)]
)
def test_c2f_tcn_has_the_published_size_without_the_six_weights_that_nothing_reads(dim: int, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(C2FTCN(dim, 202)) == expected - 6


def test_asformer_and_ltcontext_have_the_published_sizes() -> None:
    with torch.device("meta"):
        assert [parameters(ASFormer(dim, 202)) for dim in (2048, 512)] == [1217192, 1118888]
        assert [parameters(LTContext(dim, 202)) for dim in (2048, 512)] == [712008, 613704]


@pytest.mark.parametrize("size", [450, 777])
def test_a_padded_batch_gives_each_video_what_it_gets_alone(model: SegmentationModel, size: int) -> None:
    model.eval()
    lengths = [449, 385, 401, 384, 300, 65, 2, 1]
    features, mask, _ = batch(lengths, size)
    outputs = model(features, mask)
    together = model.probabilities(outputs, mask)
    assert together.sum(-1)[mask].allclose(torch.ones(()))
    assert not together[~mask].any()
    assert outputs[0].shape == (8, size, C)
    for video, length in enumerate(lengths):
        own = mask[video : video + 1, :length]
        alone = model(features[video : video + 1, :length], own)
        for a, b in zip(alone, outputs, strict=True):
            torch.testing.assert_close(a[0], b[video, : a.shape[1]], atol=1e-5, rtol=0)
        torch.testing.assert_close(model.probabilities(alone, own)[0], together[video, :length], atol=1e-5, rtol=0)


def test_padding_changes_no_loss_no_gradient_and_no_statistic(model: SegmentationModel) -> None:
    features, mask, target = batch([400, 90], 400)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    results = []
    for more in (0, 123):
        model.load_state_dict(start)
        model.zero_grad()
        padded = functional.pad(features, (0, 0, 0, more), value=9.0), functional.pad(mask, (0, more))
        losses = model.loss(model(*padded), functional.pad(target, (0, more), value=-100), padded[1])
        losses["loss"].backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        assert len(grads) == len(list(model.parameters()))
        results.append([*losses.values(), *grads, *(b.clone() for b in model.buffers())])
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_sum_over_stages_of_means_over_real_steps(model: SegmentationModel) -> None:
    model.eval().requires_grad_(False)
    features, mask, target = batch([390, 40], 390)
    target[0, 5:9] = -100
    outputs = model(features, mask)
    if isinstance(model, C2FTCN):
        stages = [(model.probabilities(outputs, mask) + 1e-10).log()]
    else:
        stages = [logits.log_softmax(-1) for logits in outputs]
    entropy, smooth = 0.0, 0.0
    for stage in stages:
        entropy += float(-torch.stack([stage[b, t, target[b, t]] for b, t in (target >= 0).nonzero()]).mean())
        changes = [stage[b, t] - stage[b, t - 1] for b, n in ((0, 390), (1, 40)) for t in range(1, n)]
        smooth += float(torch.stack(changes).square().clamp(max=16).mean())
    losses = model.loss(outputs, target, mask)
    assert float(losses["cross_entropy"]) == pytest.approx(entropy, rel=1e-4)
    assert float(losses["smoothing"]) == pytest.approx(smooth, rel=1e-4)
    assert model.smoothing == (0.15 if isinstance(model, ASFormer) else 0.17)
    assert float(losses["loss"]) == pytest.approx(entropy + model.smoothing * smooth, rel=1e-4)
    unlabelled = model.loss(outputs, torch.full_like(target, -100), mask)
    assert float(unlabelled["cross_entropy"]) == 0


def test_smoothing_is_clipped_and_leaves_the_earlier_step_alone() -> None:
    log_p = torch.tensor([[[0.0, -1.0], [-9.0, -3.0]]], requires_grad=True)
    loss = clipped_smoothing(log_p, torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == (16 + 4) / 2
    assert log_p.grad is not None
    assert log_p.grad.tolist() == [[[0, 0], [0, -2]]]
    assert float(clipped_smoothing(log_p[:, :1], torch.ones(1, 1, dtype=torch.bool))) == 0


@pytest.mark.parametrize("lengths", [[1], [3, 1], [64]])
def test_training_on_very_short_videos_is_finite(model: SegmentationModel, lengths: list[int]) -> None:
    features, mask, target = batch(lengths, max(lengths))
    losses = model.loss(model(features, mask), target, mask)
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(b.isfinite().all() for b in model.buffers())


def test_masks_and_shapes_that_break_the_contract_are_refused(model: SegmentationModel) -> None:
    features, mask, _ = batch([4, 4], 6)
    for bad in (mask.flip(1), mask & False, mask[:, :5], mask.float()):
        with pytest.raises(ValueError, match="mask"):
            model(features, bad)
    with pytest.raises(ValueError, match="features"):
        model(features[..., :3], mask)


# --- C2F-TCN ----------------------------------------------------------------------------------------------------------


def test_c2f_tcn_heads_halve_the_steps() -> None:
    model = MODELS["c2f_tcn"]()
    features, mask, _ = batch([1200], 1200)
    assert [o.shape[1] for o in model(features, mask)] == [1200, 600, 300, 150, 75, 37]
    assert [o.shape[1] for o in model(features[:, :383], mask[:, :383])] == [383, 192, 96, 48, 24, 12]


def plain_c2f_tcn(model: C2FTCN, features: Tensor) -> tuple[list[Tensor], Tensor]:
    """One unpadded video in evaluation through PyTorch's own pooling, interpolation and batch norm."""

    def block(x: Tensor, of: nn.Module) -> Tensor:
        for conv, n in zip(of.convs, of.norms, strict=True):
            x = functional.batch_norm(conv(x), n.running_mean, n.running_var, n.weight, n.bias).relu()
        return x

    def to(x: Tensor, size: int) -> Tensor:
        return functional.interpolate(x, size, mode="linear", align_corners=True)

    x = features.transpose(1, 2)
    skips = [x := block(functional.max_pool1d(x, 2) if level else x, b) for level, b in enumerate(model.down)]
    skips.pop()
    x = torch.cat([*(to(model.pyramid(functional.max_pool1d(x, p)), x.shape[2]) for p in (2, 3, 5, 6)), x], 1)
    heads = []
    for level in (5, 4, 3, 2, 1, 0):
        skip = skips.pop()
        x = to(x, 2 * x.shape[2])
        x = block(torch.cat([skip, functional.pad(x, (0, skip.shape[2] - x.shape[2]))], 1), model.up[level])
        heads.insert(0, model.heads[level](x))
    p = sum(w * to(h, features.shape[1]).softmax(1) for h, w in zip(heads, model.ensemble, strict=True))
    assert isinstance(p, Tensor)
    return [h.transpose(1, 2) for h in heads], p.transpose(1, 2)


@pytest.mark.parametrize("length", [384, 501, 767])
@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1, 1), (4, 3, 2, 1, 0, 0)])
def test_c2f_tcn_equals_a_plain_transcription(length: int, weights: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    model = C2FTCN(D, C, widths=(16, 16, 16, 8, 8, 8, 8), up_width=8, ensemble=weights).eval()
    features, mask, _ = batch([length], length)
    outputs = model(features, mask)
    expected, probabilities = plain_c2f_tcn(model, features)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.probabilities(outputs, mask), probabilities, atol=1e-5, rtol=0)


def test_fewer_workers_keep_the_passes_whose_steps_are_averaged_together() -> None:
    assert Model(Config(classes=3, width=4), None).reach() == "pass"


def test_batch_norm_is_pytorchs_on_the_real_steps() -> None:
    x, mask = torch.randn(3, 4, 9) * 3 + 5, prefix(torch.tensor([9, 4, 1]), 9)
    ours, theirs = MaskedBatchNorm(4), nn.BatchNorm1d(4)
    for _ in range(2):
        real = theirs(x.transpose(1, 2)[mask])
        torch.testing.assert_close(ours(x, mask[:, None].float()).transpose(1, 2)[mask], real, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    normed = instance_norm(x, mask[:, None].float())
    torch.testing.assert_close(normed[1:2, :, :4], functional.instance_norm(x[1:2, :, :4]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("source", "target"), [(1, 1), (1, 6), (6, 1), (5, 10), (7, 3)])
def test_resampling_is_linear_interpolation_of_the_real_steps(source: int, target: int) -> None:
    x = torch.randn(1, 2, 8)
    got = resample(x, torch.tensor([source]), torch.tensor([target]), 11)
    expected = functional.interpolate(x[..., :source], target, mode="linear", align_corners=True)
    torch.testing.assert_close(got, functional.pad(expected, (0, 11 - target)))


# --- ASFormer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [2, 8, 64])
def test_band_and_column_windows(block: int) -> None:
    band, column = (window_mask(block, block, kind) for kind in ("band", "column"))
    assert band.shape == column.shape == (block, 2 * block)
    for i in range(block):
        assert band[i].nonzero().flatten().tolist() == list(range(i, i + block))
        assert column[i].nonzero().flatten().tolist() == list(range(2 * block - 1))


@pytest.mark.parametrize("kind", ["band", "column"])
@pytest.mark.parametrize("block", [1, 2, 16, 128])
@pytest.mark.parametrize("length", [1, 100, 130])
def test_windowed_attention_equals_a_loop_over_queries(kind: str, block: int, length: int) -> None:
    torch.manual_seed(2)
    q, k, v = torch.randn(3, 1, length, 4)
    got = windowed_attention(q, k, v, torch.ones(1, length, dtype=torch.bool), block, kind)
    for t in range(length):
        first = t - block // 2 if kind == "band" else t // block * block - block // 2
        count = block if kind == "band" else max(2 * block - 1, 1)
        seen = [s for s in range(first, first + count) if 0 <= s < length]
        weights = (k[0, seen] @ q[0, t] / 2).softmax(0)
        torch.testing.assert_close(got[0, t], weights @ v[0, seen], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attend", ["asformer", "near", "far"])
def test_padded_keys_get_no_weight_however_well_they_match(attend: str) -> None:
    """ASFormer's code adds log(1e-6) to their energies, which 14 more outweigh."""
    torch.manual_seed(8)
    q, k, v = torch.randn(3, 1, 40, 4)
    mask = prefix(torch.tensor([29]), 40)
    k[:, 29:], v[:, 29:] = 100 * q[:, 28:29], 1e3
    attended: dict[str, Callable[[], Tensor]] = {
        "asformer": lambda: windowed_attention(q, k, v, mask, 8, "band"),
        "near": lambda: Near(8, 8, 0.0, 0.0).attended(q, k, v, mask),
        "far": lambda: Far(8, 8, 0.0, 0.0).attended(q, k, v, mask),
    }
    assert float(attended[attend]()[0, :29].abs().max()) < 10  # as large as real values are


def test_asformer_decoders_weigh_attention_ever_less() -> None:
    weights: list[float] = []
    model = ASFormer(D, C, width=8, layers=1)
    for stage in model.stages:
        stage.register_forward_pre_hook(lambda _, inputs: weights.append(inputs[3]))
    features, mask, _ = batch([10], 10)
    model(features, mask)
    assert weights == pytest.approx([1, 1, 0.0498, 0.00248], rel=1e-2)


def test_asformer_equals_a_plain_transcription() -> None:
    torch.manual_seed(6)
    model = ASFormer(D, C, width=8, layers=4).eval()
    features, mask, _ = batch([70], 70)
    x, previous = features.transpose(1, 2), None
    for number, (stage, got) in enumerate(zip(model.stages, model(features, mask), strict=True)):
        x = stage.project(x)
        for i, layer in enumerate(stage.layers):
            y = layer.conv(x).relu()
            normed = functional.instance_norm(y)
            q, k, v = layer.query(normed), layer.key(normed), layer.value(normed if previous is None else previous)
            energy = q.transpose(1, 2) @ k / 2
            gap = torch.arange(70) - torch.arange(70)[:, None]
            half = 2**i // 2
            energy = energy.masked_fill((gap < -half) | (gap >= max(half, 1)), -torch.inf)
            attended = v @ energy.softmax(-1).transpose(1, 2)
            x = x + layer.project(y + (1, 1, 0.049787, 0.00247875)[number] * layer.out(attended.relu()))
        previous = x
        logits = stage.classify(x)
        torch.testing.assert_close(got, logits.transpose(1, 2), atol=1e-5, rtol=1e-4)
        x = logits.softmax(1)


# --- LTContext --------------------------------------------------------------------------------------------------------


def test_near_windows_hold_the_real_keys_alone() -> None:
    mask = torch.ones(1, 1000, dtype=torch.bool)
    counts = Near(8, 64, 0.0, 0.0).allowed(mask).sum(-1).flatten().tolist()
    assert counts == [96, *[128] * 14, 72]


@pytest.mark.parametrize("length", [1, 13, 40])
def test_near_and_far_equal_loops_over_queries(length: int) -> None:
    torch.manual_seed(4)
    q, k, v = torch.randn(3, 1, length, 4)
    mask = torch.ones(1, length, dtype=torch.bool)
    near, far = (m.attended(q, k, v, mask)[0, :length] for m in (Near(8, 8, 0.0, 0.0), Far(8, 8, 0.0, 0.0)))
    for t in range(length):
        first = t // 8 * 8 - 4
        seen = [s for s in range(first, first + 16) if 0 <= s < length]
        torch.testing.assert_close(near[t], (k[0, seen] @ q[0, t] / 2).softmax(0) @ v[0, seen], atol=1e-5, rtol=1e-4)
        seen = list(range(t % 8, length, 8))
        torch.testing.assert_close(far[t], (k[0, seen] @ q[0, t] / 2).softmax(0) @ v[0, seen], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("normed", [False, True])
def test_ltcontext_equals_a_plain_transcription(normed: bool) -> None:
    torch.manual_seed(7)
    model = LTContext(D, C, width=8, layers=3, window=8, stride=8, instance_norm=normed).eval()
    features, mask, _ = batch([70], 70)
    x, previous = features.transpose(1, 2), None
    at = torch.arange(70)
    first = (at // 8 * 8 - 4)[:, None]
    seen = {"near": (at >= first) & (at < first + 16), "far": at % 8 == at[:, None] % 8}
    norm = functional.instance_norm if normed else nn.Identity()
    for number, (stage, got) in enumerate(zip(model.stages, model(features, mask), strict=True)):
        x = stage.project(x)
        for block in stage.blocks:
            y = functional.gelu(block.conv(x))
            for name in ("near", "far"):
                of = getattr(block, name)
                z = norm(y)
                q, k, v = of.query(z), of.key(z), of.value(z if previous is None else norm(previous))
                energy = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).masked_fill(~seen[name], -torch.inf)
                y = y + of.out(functional.gelu(v @ energy.softmax(-1).transpose(1, 2)))
            x = x + block.project(y)
        previous = model.reduce(x) if number == 0 else x
        logits = stage.classify(x)
        torch.testing.assert_close(got, logits.transpose(1, 2), atol=1e-5, rtol=1e-4)
        x = logits.softmax(1)


def test_ltcontext_is_without_instance_norm_unless_asked() -> None:
    torch.manual_seed(5)
    plain = LTContext(D, C, width=8).eval()
    normed = LTContext(D, C, width=8, instance_norm=True).eval()
    normed.load_state_dict(plain.state_dict())
    features, mask, _ = batch([50], 50)
    x = functional.gelu(plain.stages[0].blocks[0].conv(torch.ones(1, 8, 50)))
    assert plain.stages[0].blocks[0]._norm(x, mask) is x
    assert not torch.allclose(plain(features, mask)[0], normed(features, mask)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: C2FTCN(D, C, ensemble=(1, 1)), "ensemble is"),
        (lambda: C2FTCN(D, C, kernel=4), "kernel is 4"),
        (lambda: C2FTCN(D, 0), "classes is 0"),
        (lambda: ASFormer(D, C, width=9), "width is 9"),
        (lambda: ASFormer(D, C, window="row"), "window is 'row'"),
        (lambda: ASFormer(D, C, dropout=1.0), "dropout is 1.0"),
        (lambda: LTContext(D, C, window=7), "window is 7"),
        (lambda: LTContext(D, C, width=6), "width is 6"),
        (lambda: LTContext(D, C, smoothing=-1), "smoothing is -1"),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
