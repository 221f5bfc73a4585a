"""BYOV's losses, gradients and embeddings equal those of the paper's equations written out by loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from byov_plain import Plain
from byov_tiny import TINY, batch_of, randomised
from torch import Tensor

from crossview.methods.byov.config import Config, Weights, presets
from crossview.methods.byov.model import Model
from crossview.methods.byov.stm import merge
from crossview.methods.byov.studies import studies

OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "weights": {"weights": Weights(msm_ego=0.5, msm_exo=2, mcm_ego=0.25, mcm_exo=3)},
    "one view": {"weights": Weights(msm_exo=0, mcm_ego=0)},
    "MSM alone": {"weights": Weights(mcm_ego=0, mcm_exo=0)},
    "MCM alone": {"weights": Weights(msm_ego=0, msm_exo=0)},
    "ratios": {"stm_ratio": 0.5, "msm_ratio": 0.3, "mcm_ratio": 0.5},
    "all patches": {"stm_ratio": None},
    "all positions": {"loss_on": "all"},
    "centred input": {"input_norm": "clip"},
    "token targets": {"target_norm": "token"},
    "clip targets": {"target_norm": "clip"},
    "released norm": {"final_norm": False},
    "self view not causal": {"causal_msm": False},
    "causal encoder": {"causal_encoder": True},
    "segments": {"segment_embedding": True},
    "index clock": {"time_code": "index"},
    "no clock": {"time_code": "none"},
    "training gap": {"stm_evaluation_gap": "training"},
}


def published() -> dict[str, Config]:
    """The options of every preset and of every variant of a study, on the tiny network."""
    recipes = {name: make() for name, make in presets().items()}
    recipes |= {f"{study}: {variant}": r for study, found in studies().items() for variant, r in found.variants.items()}
    tiny = {"base": TINY.base, "encoder": TINY.encoder, "decoder": TINY.decoder}
    return {name: replace(r.method, **tiny) for name, r in recipes.items() if isinstance(r.method, Config)}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def close(ours: Tensor, theirs: Tensor, name: str = "") -> None:
    torch.testing.assert_close(
        ours.double(), theirs.double(), rtol=1e-3, atol=2e-5, msg=lambda found: f"{name}: {found}"
    )


def gradients(value: Tensor, parameters: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, [parameters[n] for n in names], retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def same_training(config: Config, batch: dict[str, Tensor], *, each: bool = False) -> None:
    """Every loss, and the gradients of the total, or of each loss, in all parameters."""
    model = randomised(Model(config))
    plain = Plain(model)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    losses, expected = model(batch), plain.losses(batch)
    assert losses.keys() == expected.keys()
    for loss, value in losses.items():
        assert value.shape == ()
        close(value, expected[loss], loss)
        if each or loss == "loss":
            ours = gradients(value, dict(model.named_parameters()), trained)
            theirs = gradients(expected[loss], plain.parameters, trained)
            for name in trained:
                close(ours[name], theirs[name], f"gradient of {loss} in {name}")


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_and_gradients_are_those_of_the_equations(name: str) -> None:
    config = replace(TINY, **OPTIONS[name])
    same_training(config, batch_of(config, 2), each=name in ("paper", "segments"))


@pytest.mark.parametrize("name", published())
def test_presets_and_studies_train_on_the_losses_of_the_equations(name: str) -> None:
    config = published()[name]
    same_training(config, batch_of(config, 1))


@pytest.mark.parametrize("time_code", ["continuous", "index"])
def test_clips_of_another_length_share_the_clock_of_the_trained_one(time_code: str) -> None:
    config = replace(TINY, time_code=time_code)
    same_training(config, batch_of(config, 2, frames=7))


def test_features_of_the_base_give_the_losses_of_the_equations() -> None:
    batch = batch_of(TINY, 2)
    same_training(TINY, batch | {v: torch.randn(2, 10, 12, 48).half() for v in ("ego", "exo")})


def test_training_and_eval_mode_have_the_same_losses() -> None:
    """There is no dropout (the released dp_rate is unused)."""
    model, batch = randomised(Model(TINY)), batch_of(TINY, 2)
    training, evaluated = model.train()(batch), model.eval()(batch)
    assert all(torch.equal(training[name], value) for name, value in evaluated.items())
    assert not any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())


@pytest.mark.parametrize("gap", [1, 3])
def test_merged_tokens_are_those_of_the_loop_to_one_millionth(gap: int) -> None:
    tokens = torch.randn(2, 8, 49, 16)
    expected = torch.stack([Plain(Model(TINY)).merge(t.double(), gap) for t in tokens])
    torch.testing.assert_close(merge(tokens, 0.3, gap).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("frames", [5, 27])
def test_embeddings_are_those_of_the_equations(name: str, frames: int) -> None:
    config = replace(TINY, **OPTIONS[name])
    model = randomised(Model(config))
    plain = Plain(model)
    model.base.chunk = 7  # recordings go through in pieces, 3 frames of each of these two
    video = torch.randint(0, 256, (2, frames, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected = torch.stack([plain.embed(v) for v in video])
        assert model.embed(video).shape == (2, frames, 32)
        close(model.embed(video), expected, "embed")
        close(model.embed_clip(video), expected.mean(1), "embed_clip")


@pytest.mark.parametrize("name", ["paper", "centred input", "training gap", "all patches"])
def test_baselines_are_those_of_the_equations(name: str) -> None:
    model = randomised(Model(replace(TINY, **OPTIONS[name])))
    plain = Plain(model)
    video = torch.randint(0, 256, (2, 27, 3, 64, 64), dtype=torch.uint8)
    found = model.baselines()
    assert found.keys() == {"frozen features", "frozen mean", "no time code"}
    with torch.no_grad():
        close(found["frozen features"](video), torch.stack([plain.recording(v) for v in video]), "frozen features")
        close(found["frozen mean"](video), torch.stack([plain.tokens(v).mean(1) for v in video]), "frozen mean")
        close(found["no time code"](video), torch.stack([plain.embed(v, "none") for v in video]), "no time code")


def test_fine_tuning_reaches_the_whole_encoder_through_a_clips_vector() -> None:
    model = randomised(Model(TINY))
    plain, video = Plain(model), batch_of(TINY, 1)["ego"]
    trained = [n for n, _ in model.encoder.named_parameters(prefix="encoder")]
    direction = torch.randn(32, dtype=torch.float64)
    ours = gradients((model.embed_clip(video)[0] * direction).sum(), dict(model.named_parameters()), trained)
    theirs = gradients((plain.embed(video[0]).mean(0) * direction).sum(), plain.parameters, trained)
    for name in trained:
        close(ours[name], theirs[name], name)


def test_what_the_figures_compare_is_what_the_losses_compare() -> None:
    model, batch = randomised(Model(replace(TINY, target_norm="token"))), batch_of(TINY, 2)
    predictions, target, splits = model.inspect(batch)
    losses = Plain(model).losses(batch)
    for task in ("msm", "mcm"):
        mask = splits[task].mask
        for i, view in enumerate(("ego", "exo")):
            clips = range(2 * i, 2 * i + 2)
            error = [(predictions[task][c] - target[c])[mask[c]].square().mean() for c in clips]
            close(torch.stack(error).mean(), losses[f"{task}/{view}"], f"{task}/{view}")
