"""EVGAP's whole forward pass, its embeddings and their gradients against the same written out clip by clip."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import evgap_reference as reference
import pytest
import torch
from evgap_tiny import GROUPS, TINY, batch_of
from torch import Tensor

from crossview.methods.base_config import Base
from crossview.methods.evgap import model as evgap_model
from crossview.methods.evgap.config import Config
from crossview.methods.evgap.model import Model

DROPOUT = dataclasses.replace(TINY.encoder, dropout=0.2)
PRE = dataclasses.replace(DROPOUT, norm="pre")
CASES: dict[str, Config] = {
    "pairs": TINY,
    "pairs, pre-norm": dataclasses.replace(TINY, encoder=PRE),
    "pairs, last layer alone": dataclasses.replace(TINY, auxiliary=0.0),
    "pairs, one distance between frames": dataclasses.replace(TINY, window_length="resampled"),
    "pairs, fixed scale": dataclasses.replace(TINY, scale="fixed", scale_init=1.0),
    "groups": GROUPS,
    "groups, pre-norm": dataclasses.replace(GROUPS, encoder=PRE),
    "groups, as the study": dataclasses.replace(GROUPS, encoder=PRE, scale_init=20.0, bias_init=-16.0),
    "groups, last layer alone": dataclasses.replace(GROUPS, auxiliary=0.0),
    "groups, as printed": dataclasses.replace(GROUPS, scale="fixed", scale_init=0.155, bias="none"),
    "groups, learned scale without bias": dataclasses.replace(GROUPS, bias="none"),
    "groups, one distance between frames": dataclasses.replace(GROUPS, window_length="resampled"),
    "groups of one camera each": dataclasses.replace(GROUPS, ego_views=1, exo_views=1),
}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def model_of(config: Config) -> Model:
    """In float64, with dropout, and with no weight at a value, such as 0 or 1, that hides where it is used."""
    if config.encoder.dropout == 0:
        config = dataclasses.replace(config, encoder=DROPOUT)
    model = Model(config).double()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch_for(config: Config, size: int = 4) -> dict[str, Tensor]:
    """Clips of their own lengths, of which a camera is missing here and there."""
    batch = batch_of(config, size)
    if config.window_length == "resampled":
        batch = {name: value for name, value in batch.items() if not name.endswith("/length")}
    if config.step == "groups" and config.exo_views > 1:
        batch["video/mask"][1, 3] = batch["video/mask"][2, 0] = batch["video/mask"][2, 4] = False
    return batch


def assert_like(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].double(), value.double(), rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_every_output_and_gradient_is_that_of_the_reference(name: str, training: bool) -> None:
    model, batch = model_of(CASES[name]).train(training), batch_for(CASES[name])
    torch.manual_seed(1)
    found = model(batch)
    torch.manual_seed(1)
    expected = reference.forward(model, batch)
    assert_like(found, expected)
    assert_like(gradients(model, found["loss"]), gradients(model, expected["loss"]))


def test_dropout_acts_in_training_alone() -> None:
    model, batch = model_of(TINY), batch_for(TINY)
    assert not torch.equal(model(batch)["loss"], model(batch)["loss"])
    assert torch.equal(model.eval()(batch)["loss"], model(batch)["loss"])


@pytest.mark.parametrize(("start", "kept"), [(math.log(150.0), 100.0), (-0.5, 1.0)])
def test_a_learned_scale_is_brought_into_its_range_in_training_alone(start: float, kept: float) -> None:
    model, batch = model_of(TINY), batch_for(TINY)
    model.logits.log_scale.data.fill_(start)
    assert float(model.eval()(batch)["scale"].detach()) == pytest.approx(math.exp(start))
    assert float(model.train()(batch)["scale"].detach()) == pytest.approx(kept)
    assert float(model.logits.log_scale.detach()) == pytest.approx(math.log(kept))
    fixed = model_of(dataclasses.replace(GROUPS, scale="fixed", scale_init=0.155, bias="none"))
    assert float(fixed(batch_for(GROUPS))["scale"]) == pytest.approx(0.155)


@pytest.mark.parametrize("frames", [8, 7], ids=["even window", "odd window"])
@pytest.mark.parametrize("T", [21, 6, 3], ids=["long", "shorter than a window", "shorter than half of one"])
def test_a_frame_is_embedded_by_the_window_around_it(frames: int, T: int) -> None:
    model = model_of(dataclasses.replace(TINY, frames=frames)).eval()
    video = torch.randn(2, T, 2, 12)
    with torch.no_grad():
        found = model.embed(video)
        torch.testing.assert_close(found.double(), reference.embed(model, video), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", [DROPOUT, PRE], ids=["post", "pre"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_clip_is_embedded_by_its_class_token_with_gradients(encoder: Any, training: bool) -> None:
    model = model_of(dataclasses.replace(TINY, encoder=encoder)).train(training)
    video, weight = torch.randn(3, 11, 2, 12), torch.randn(3, 32)
    torch.manual_seed(1)
    found = model.embed_clip(video)
    torch.manual_seed(1)
    expected = reference.embed_clip(model, video)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    used = [p for p in model.encoder.parameters() if p.requires_grad]
    ours = torch.autograd.grad((found * weight).sum(), used, allow_unused=True)
    theirs = torch.autograd.grad((expected * weight).sum(), used, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)  # pre-norm: the norms of earlier layers' tokens
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("grid", [2, 3, None])
def test_video_is_read_through_the_frozen_base(grid: int | None) -> None:
    base = Base(model="vit_tiny_patch16_224", weights="random", size_px=96, width=48, depth=2, heads=3, chunk=7)
    if grid is None:
        base = Base(model="resnet10t", weights="random", size_px=32)
    size_px = base.size_px
    model = model_of(dataclasses.replace(TINY, input="video", base=base, base_grid=grid)).eval()
    video = torch.randint(0, 256, (2, 5, 3, size_px, size_px), dtype=torch.uint8)
    with torch.no_grad():
        expected = reference.frame_features(model, video)
        cached = model.frozen_features(video)
        assert cached is not None
        assert cached.dtype == torch.float16
        assert cached.shape == (2, 5, (grid or 1) ** 2, 48 if grid else 512)
        torch.testing.assert_close(cached.double().flatten(2), expected, rtol=2e-3, atol=2e-3)
        frozen = model.baselines()["frozen features"](video)
        torch.testing.assert_close(frozen, expected.float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.embed(video).double(), reference.embed(model, video), rtol=1e-4, atol=1e-5)
        whole = reference.embed_clip(model, video)
        torch.testing.assert_close(model.embed_clip(video).double(), whole, rtol=1e-4, atol=1e-5)
    batch = {"sample": torch.arange(2), "ego": video, "exo": video.flip(-1)}
    assert_like(model(batch), reference.forward(model, batch))
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith("base."))


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_measures_are_recall_and_the_gap_between_similarities(config: Config) -> None:
    model, batch = model_of(config).eval(), batch_for(config, 6)
    with torch.no_grad():
        found, expected = model.measures(batch), reference.forward(model, batch)
    wanted = {"in_batch_R@1": expected["R@1"], "similarity_gap": expected["positive"] - expected["negative"]}
    assert_like(found, wanted)


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_under_autocast_the_encoder_alone_is_in_bfloat16(config: Config) -> None:
    model, batch = model_of(config).float().eval(), batch_for(config)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        views, found = model.views(batch), model(batch)
    there = reference.tokens_of(model.double(), batch)[2]
    exact = reference.forward(model, batch)
    ego, exo = views.ego.double(), views.exo.double()
    expected = reference.losses(model, ego, exo, there) | reference.indicators(ego[-1], exo[-1], there)
    assert_like(found, expected)
    assert float((found["loss"] - exact["loss"]).detach().abs()) > 1e-4  # it does run in bfloat16
    torch.testing.assert_close(found["loss"].double(), exact["loss"], rtol=0.1, atol=0.1)


# Workers


class Workers:
    """Two workers in this process: the second one's tokens are constants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Tensor] = []
        self.other: Tensor | None = None
        monkeypatch.setattr(evgap_model, "workers", lambda: 2)
        monkeypatch.setattr(evgap_model, "gather", self.gather)

    def gather(self, x: Tensor) -> Tensor:
        self.sent.append(x.detach())
        return x if self.other is None else torch.cat([x, self.other])


def test_step_1_takes_its_negatives_from_all_workers_with_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, workers = model_of(TINY).eval(), Workers(monkeypatch)
    own, other = batch_for(TINY, 3), batch_for(TINY, 3)
    model(other)
    workers.other = workers.sent[0]
    found = model(own)
    (ego, exo, there), (ego2, exo2, there2) = (reference.tokens_of(model, batch) for batch in (own, other))
    joined = [torch.cat([a, b.detach()], 1) for a, b in ((ego, ego2), (exo, exo2))]
    expected = reference.losses(model, joined[0], joined[1], there + there2)
    assert_like(found, expected | reference.indicators(joined[0][-1], joined[1][-1], there + there2))
    assert_like(gradients(model, found["loss"]), gradients(model, expected["loss"]))


@pytest.mark.parametrize("config", [dataclasses.replace(TINY, gather=False), GROUPS], ids=["not asked", "groups"])
def test_nothing_is_gathered_without_being_asked_and_in_step_2(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    model, workers, batch = model_of(config).eval(), Workers(monkeypatch), batch_for(config)
    assert_like(model(batch), reference.forward(model, batch))
    assert workers.sent == []


def test_held_out_batches_are_measured_by_each_worker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, workers, batch = model_of(TINY).eval(), Workers(monkeypatch), batch_for(TINY)
    with torch.no_grad():
        assert_like(model(batch), reference.forward(model, batch))
    assert workers.sent == []


@pytest.mark.parametrize(
    ("change", "reach"),
    [
        ({}, "workers"),
        ({"gather": False}, "pass"),
        ({"step": "groups"}, "pass"),
        ({"step": "groups", "gather": False}, "pass"),
    ],
)
def test_a_sample_depends_on_its_pass_and_in_gathered_pairs_on_all_workers(change: dict[str, Any], reach: str) -> None:
    assert Model(dataclasses.replace(TINY, **change)).reach() == reach
    assert Model.batch_dependent
