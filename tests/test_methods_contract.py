"""What every method must do, over the names of the folders under methods/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from crossview.datasets.sampling.spec import Sampling
from crossview.methods.example_batch import example_batch
from crossview.methods.method import Method, build
from crossview.methods.recipe import Optim, Recipe
from crossview.platform.config import config_class, method_names, preset, presets
from crossview.platform.report.figures import method_figures

BATCH = 2


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(params=method_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def method(name: str) -> Method:
    return build(name, preset(name, "debug").method)


def sampling_of(name: str) -> Sampling:
    return preset(name, "debug").method.sampling()


def clip_of(name: str) -> Tensor:
    """One view's clips, (B, T, 3, H, W)."""
    spec = next(iter(sampling_of(name).views.values()))
    return torch.randint(0, 256, (BATCH, spec.frames, 3, spec.size_px, spec.size_px), dtype=torch.uint8)


def test_every_folder_is_a_method() -> None:
    assert "byov" in method_names()


def test_every_preset_builds_its_config(name: str) -> None:
    assert "debug" in presets(name)
    for make in presets(name).values():
        recipe: Recipe = make()
        assert isinstance(recipe.method, config_class(name))
        assert isinstance(recipe.optim, Optim)
        sampling = recipe.method.sampling()
        assert isinstance(sampling, Sampling)
        for kind, count in sampling.labels.items():  # errors name the option that sets the count
            value: Any = recipe
            for part in sampling.label_options[kind].split("."):
                value = value[part] if isinstance(value, dict) else getattr(value, part)
            assert value == count


def test_losses_are_finite_scalars_and_reach_every_parameter(name: str, method: Method) -> None:
    losses = method(example_batch(sampling_of(name), BATCH))
    assert "loss" in losses
    for value in losses.values():
        assert value.shape == ()
        assert bool(value.isfinite())
    losses["loss"].backward()
    trainable = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert trainable
    assert [n for n, p in trainable.items() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []
    groups = method.parameter_groups(0.1)
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in trainable.values()}


def test_embeddings_are_one_vector_per_frame(name: str, method: Method) -> None:
    video = clip_of(name)
    with torch.no_grad():
        for embed in (method.embed, *method.baselines().values()):
            z = embed(video)
            assert z.shape[:2] == video.shape[:2]
            assert z.ndim == 3
            assert z.is_floating_point()
            assert bool(z.isfinite().all())


def test_fixed_baselines_are_those_that_no_trained_parameter_changes(name: str, method: Method) -> None:
    video, fixed = clip_of(name), method.fixed_baselines
    assert fixed <= method.baselines().keys()
    with torch.no_grad():
        before = {row: embed(video) for row, embed in method.baselines().items()}
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += torch.linspace(0.1, 1, parameter.numel()).view_as(parameter)
        after = {row: embed(video) for row, embed in method.baselines().items()}
    assert {row for row in before if torch.equal(before[row], after[row])} == fixed


def test_clips_have_one_vector_each_with_gradients(name: str, method: Method) -> None:
    z = method.embed_clip(clip_of(name))
    assert z.shape[0] == BATCH
    assert z.ndim == 2
    assert bool(z.isfinite().all())
    assert z.requires_grad


def test_measures_are_finite_scalars(name: str, method: Method) -> None:
    with torch.no_grad():
        measured = method.eval().measures(example_batch(sampling_of(name), 4))
    for value in measured.values():
        assert value.shape == ()
        assert bool(value.isfinite())


def test_a_run_can_start_from_anothers_weights(name: str, method: Method) -> None:
    torch.manual_seed(7)
    fresh = build(name, preset(name, "debug").method)
    fresh.start_from(method.state_dict())
    video = clip_of(name)
    with torch.no_grad():
        assert torch.equal(fresh.eval().embed_clip(video), method.eval().embed_clip(video))
    largest = max((p.numel(), n) for n, p in method.named_parameters() if p.requires_grad)[1]
    with pytest.raises(ValueError, match="is missing"):
        fresh.start_from({n: w for n, w in method.state_dict().items() if n != largest})


def test_compiled_gives_the_same_loss(name: str, method: Method) -> None:
    """By the tracing front end, which is where Python that does not compile fails; its eager back end needs no C++."""
    method.eval()
    batch = example_batch(sampling_of(name), BATCH)
    compiled = torch.compile(method, backend="aot_eager")
    losses, expected = compiled(batch), method(batch)
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-5)
    losses["loss"].backward()


def test_cached_features_are_accepted_in_place_of_video(name: str, method: Method) -> None:
    video = clip_of(name)
    features = method.frozen_features(video)
    if features is None:
        pytest.skip(f"{name} has no frozen part")
    assert features.dtype == torch.float16
    assert features.shape[:2] == video.shape[:2]
    with torch.no_grad():
        assert method.embed(features).shape == method.embed(video).shape


def test_bfloat16_autocast_stays_close(name: str, method: Method) -> None:
    batch = example_batch(sampling_of(name), BATCH)
    exact = method(batch)["loss"].detach()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(batch)["loss"]
    mixed.backward()
    assert bool(mixed.isfinite())
    torch.testing.assert_close(mixed.detach().float(), exact, rtol=0.05, atol=1e-2)


def test_the_order_of_a_batch_does_not_change_its_samples(name: str, method: Method) -> None:
    method.eval()
    batch = example_batch(sampling_of(name), 3)

    def part(*rows: int) -> dict[str, Any]:
        return {k: v[list(rows)] for k, v in batch.items()}

    with torch.no_grad():
        whole, turned = method(part(0, 1, 2)), method(part(2, 0, 1))
    for key, value in whole.items():
        torch.testing.assert_close(turned[key], value, rtol=1e-4, atol=1e-5)
    if method.batch_dependent:
        return
    with torch.no_grad():
        alone = [method(part(i)) for i in range(3)]
    for key, value in whole.items():
        torch.testing.assert_close(torch.stack([a[key] for a in alone]).mean(), value, rtol=1e-4, atol=1e-5)


def test_nothing_random_is_left_in_a_step(name: str, method: Method) -> None:
    method.eval()
    batch = example_batch(sampling_of(name), BATCH)
    with torch.no_grad():
        torch.manual_seed(1)
        first = method(batch)["loss"]
        torch.manual_seed(2)
        assert torch.equal(method(batch)["loss"], first)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_recordings_shorter_than_a_clip_have_a_vector_for_every_frame(method: Method, name: str, frames: int) -> None:
    video = clip_of(name)[:, :1].expand(-1, frames, -1, -1, -1)
    method.eval()
    with torch.no_grad():
        for embed in (method.embed, *method.baselines().values()):
            vectors = embed(video)
            assert vectors.shape[:2] == (BATCH, frames)
            assert bool(vectors.isfinite().all())


def test_weights_survive_a_round_trip(name: str, method: Method) -> None:
    torch.manual_seed(5)
    fresh = build(name, preset(name, "debug").method)
    fresh.load_state_dict(method.state_dict())
    video = clip_of(name)
    with torch.no_grad():
        assert torch.equal(fresh.embed(video), method.embed(video))


def test_figures_are_drawn(name: str, method: Method) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for figure in method_figures(name, method, example_batch(sampling_of(name), BATCH)).values():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        assert canvas.buffer_rgba().nbytes > 10_000
