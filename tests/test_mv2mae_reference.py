"""MV2MAE's losses, gradients, measures and embeddings equal a plain transcription of the method, option by option."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import mv2mae_reference as reference
import pytest
import torch
from mv2mae_reference_parts import parameters
from mv2mae_tiny import batch_of
from recognition_tiny import labelled
from torch import Tensor, nn

from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.recognition.augment_config import NO_AUGMENTATION
from crossview.downstream.recognition.config import Config as Recognition
from crossview.downstream.recognition.model import Model as Classifier
from crossview.methods.mv2mae import model as code
from crossview.methods.mv2mae.config import Config, Masking, Motion, Transformer, Weights
from crossview.methods.mv2mae.model import Model

T = TypeVar("T", bound=nn.Module)
BASE = Config(
    frames=6,
    size_px=16,
    patch_px=4,
    encoder=Transformer(width=32, depth=2, heads=2),
    same_decoder=Transformer(width=24, depth=1, heads=3),
    cross_decoder=Transformer(width=20, depth=2, heads=5, mlp_ratio=2.0),
    masking=Masking(ratio=0.6),
    embed_stride=3,
)
"""3 x 4 x 4 tokens, of which 28 are hidden; every stack has a shape of its own."""
STUDY = replace(
    BASE,
    positions="grid",
    masking=Masking(ratio=0.6, kind="tube"),
    weights=Weights(same_source=0.1, same_target=0.1),
    swap_roles=True,
    target_norm="channel",
    crop_scales=(),
)
PRETRAINING = {
    "published": BASE,
    "debug": replace(BASE, positions="grid"),
    "study": STUDY,
    "study, same view only": replace(STUDY, weights=replace(STUDY.weights, cross=0.0)),
    "study, no motion weights": replace(STUDY, motion=Motion(temperature=None)),
    "factors": replace(BASE, weights=Weights(same_source=0.5, same_target=2.0, cross=3.0)),
    "source only": replace(BASE, weights=Weights(same_source=0.7, same_target=0.0, cross=0.0)),
    "target only": replace(BASE, weights=Weights(same_source=0.0, same_target=1.0, cross=0.5)),
    "cross view only": replace(BASE, weights=Weights(same_source=0.0, same_target=0.0), swap_roles=True),
    "literal formula": replace(
        BASE, motion=Motion(norm="l2", rescale=False, temperature=600.0), target_norm="token", flip=0.5
    ),
    "standardised": replace(BASE, motion=Motion(scale="standardised", norm="l2", first_frame="zero", temperature=5.0)),
    "hidden tokens only": replace(BASE, motion=Motion(over="masked", scale="0-1", temperature=0.2)),
    "no motion, hidden only": replace(BASE, motion=Motion(over="masked", temperature=None), flip=1.0, crop_scales=()),
}
FINE = replace(BASE, encoder=Transformer(width=32, depth=3, heads=2))
FINETUNING = {"published": FINE, "grid": replace(FINE, positions="grid")}
CLASSIFIER = Recognition(
    classes={"action": 5},
    frames=6,
    size_px=16,
    dropout=0.4,
    drop_path=0.3,
    label_smoothing=0.2,
    augmentation=NO_AUGMENTATION,
)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def model_of(config: Config) -> Model:
    """Random everywhere: biases start at 0 and norms at 1, where a mistake would not show."""
    return shaken(Model(config))


def shaken(model: T) -> T:
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def moving(video: Tensor) -> Tensor:
    """Noise whose strength differs from place to place, so that motion weights do too."""
    strength = torch.rand(len(video), 1, 1, 4, 4).repeat_interleave(4, -1).repeat_interleave(4, -2)
    return (128 + (video.float() - 128) * strength).to(torch.uint8)


def pair_of(config: Config, size: int = 3) -> dict[str, Tensor]:
    batch = batch_of(config, size)
    return batch | {view: moving(batch[view]) for view in ("source", "target")}


def clips_of(config: Config, size: int = 5) -> dict[str, Tensor]:
    batch = labelled(replace(CLASSIFIER, frames=config.frames, size_px=config.size_px), size)
    label = batch["video/label/action"]
    label[0, -1] = 1  # one clip of two classes
    return batch | {"video": moving(batch["video"]), "video/label/action": label}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def same_gradients(model: nn.Module, loss: Tensor, p: dict[str, Tensor], expected: Tensor) -> None:
    trained = [(name.removeprefix("encoder.method."), q) for name, q in model.named_parameters() if q.requires_grad]
    names, ours = zip(*trained, strict=True)
    assert list(names) == list(p)
    found = torch.autograd.grad(loss, ours)
    for name, a, b in zip(names, found, torch.autograd.grad(expected, list(p.values())), strict=True):
        largest = float(b.abs().max())
        assert largest > 1e-5 or name.endswith("cross.k.bias"), name  # a bias of keys has none: softmax takes it out
        torch.testing.assert_close(
            a.double(), b, rtol=1e-4, atol=1e-4 * largest + 1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_has_the_references_losses_and_gradients(name: str, training: bool) -> None:
    config = PRETRAINING[name]
    model, batch = model_of(config).train(training), pair_of(config)
    p = parameters(model)
    found, expected = model(batch), reference.losses(p, config, batch, training=training)
    same(found, expected)
    same_gradients(model, found["loss"], p, expected["loss"])


@pytest.mark.parametrize("name", PRETRAINING)
def test_gains_are_the_references(name: str) -> None:
    config = PRETRAINING[name]
    model, batch = model_of(config).eval(), pair_of(config)
    with torch.no_grad():
        same(model.measures(batch), reference.measures(parameters(model), config, batch))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", FINETUNING)
def test_finetuning_has_the_references_loss_and_gradients(name: str, training: bool) -> None:
    config = FINETUNING[name]
    model = shaken(Classifier(CLASSIFIER, ClipEncoder(Model(config)))).train(training)
    batch = clips_of(config)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    p = {n.removeprefix("encoder.method."): value for n, value in parameters(model).items() if n in trained}
    torch.manual_seed(3)
    found = model(batch)
    torch.manual_seed(3)
    expected = reference.classify(p, config, CLASSIFIER, batch, training=training)
    same(found, expected)
    same_gradients(model, found["loss"], p, expected["loss"])


@pytest.mark.parametrize("config", [BASE, STUDY], ids=["published", "study"])
def test_a_clip_has_the_references_vector(config: Config) -> None:
    model, video = model_of(config).eval(), pair_of(config)["source"]
    expected = torch.stack([reference.embed_clip(parameters(model), config, clip) for clip in video])
    same({"vector": model.embed_clip(video)}, {"vector": expected})


@pytest.mark.parametrize("length", [1, 5, 18, 19, 41, 72])
@pytest.mark.parametrize("config", [BASE, replace(STUDY, tubelet=3)], ids=["published", "study"])
def test_recordings_have_the_references_frame_vectors(
    config: Config, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows span 18 frames; so few clips at a time that a recording takes several rounds."""
    monkeypatch.setattr(code, "_CHUNK", 4)
    model = model_of(config).eval()
    video = torch.randint(0, 256, (2, length, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = torch.stack([reference.embed(parameters(model), config, recording) for recording in video])
        same({"vectors": model.embed(video)}, {"vectors": expected})


def test_every_norm_has_videomaes_epsilon() -> None:
    for model in (model_of(BASE), Classifier(CLASSIFIER, ClipEncoder(model_of(BASE)))):
        norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert {m.eps for m in norms} == {1e-6}
