"""Any timm model as frozen frame features: its output, its weights and its errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from crossview.errors import UserError
from crossview.methods.backbone import Pooled, create
from crossview.methods.base_config import Base

RESNET = Base(model="resnet10t", weights="random", size_px=64)
VIT = Base(model="vit_tiny_patch16_224", weights="random", size_px=64, width=48, depth=2, heads=3)


def video(size_px: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 5, 3, size_px, size_px), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("config", "width"),
    [(RESNET, 512), (VIT, 48), (dataclasses.replace(RESNET, model="mobilenetv3_small_050"), 1024)],
    ids=lambda c: c.model if isinstance(c, Base) else "",
)
def test_the_output_before_the_classifier_is_one_token_per_frame(config: Base, width: int) -> None:
    backbone = Pooled(config)
    features = backbone(video())
    assert features.shape == (2, 5, 1, width)
    assert backbone.width == width
    x = (video()[0].float() / 255 - torch.tensor(config.mean).view(3, 1, 1)) / torch.tensor(config.std).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(features[0, :, 0], backbone.model(x), atol=1e-4, rtol=1e-3)


def test_chunks_change_nothing_and_other_sizes_are_resized() -> None:
    whole = Pooled(RESNET)(video())
    torch.testing.assert_close(Pooled(dataclasses.replace(RESNET, chunk=3))(video()), whole, atol=1e-5, rtol=1e-4)
    assert Pooled(RESNET)(video(80)).shape == whole.shape


def test_it_stays_frozen() -> None:
    backbone = Pooled(RESNET).train()
    before = {n: v.clone() for n, v in backbone.state_dict().items()}
    assert not backbone(video()).requires_grad
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(v, before[n]) for n, v in backbone.state_dict().items())  # batch statistics too


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_file_is_loaded_and_its_classifier_dropped(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    source = timm.create_model("resnet10t", num_classes=7)
    file = tmp_path / f"resnet{suffix}"
    save_file(source.state_dict(), file) if suffix == ".safetensors" else torch.save(source.state_dict(), file)
    loaded = Pooled(dataclasses.replace(RESNET, weights=str(file)))
    weights = source.state_dict()
    assert all(torch.equal(v, weights[n.removeprefix("model.")]) for n, v in loaded.state_dict().items())


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match=r"do not fit the base .*conv1\.0\.weight is missing"):
        Pooled(dataclasses.replace(RESNET, weights=str(tmp_path / "resnet.safetensors")))


TINY = Base(model="vit_tiny_patch16_224", weights="random", size_px=32, width=24, depth=1, heads=2)


def saved_as(kind: str, root: Path) -> tuple[dict[str, torch.Tensor], Base]:
    """A ViT's weights, and a base that reads the file in which a training script saved them."""
    torch.manual_seed(0)
    shape = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, **shape).state_dict()
    content = {
        "plain": state,
        "float16": {k: v.half() for k, v in state.items()},
        "wrapped": {"state_dict": state, "epoch": 3},
        "head": state | {"head.weight": torch.zeros(10, 24), "head.bias": torch.zeros(10)},
        "module": {"module." + k: v for k, v in state.items()},
        "compiled and wrapped": {"model": {"module._orig_mod." + k: v for k, v in state.items()}, "epoch": 3},
        "other size": state | {"pos_embed": torch.zeros(1, 17, 24)},
        "one missing": {k: v for k, v in state.items() if k != "norm.weight"},
        "some prefixed": {("module." if k.startswith("norm") else "") + k: v for k, v in state.items()},
        "a tensor": state["pos_embed"],
        "no tensors": {"epoch": 3, "args": {"lr": 0.1}},
    }[kind]
    torch.save(content, root / f"{kind}.pt")
    return state, dataclasses.replace(TINY, weights=str(root / f"{kind}.pt"))


@pytest.mark.parametrize("kind", ["plain", "float16", "wrapped", "head", "module", "compiled and wrapped"])
def test_weights_as_training_scripts_save_them_are_loaded_whole(kind: str, tmp_path: Path) -> None:
    state, config = saved_as(kind, tmp_path)
    found = create(config, "a ViT").state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("other size", r"pos_embed is \(1, 17, 24\), not \(1, 5, 24\)"),
        ("one missing", r"\(norm\.weight is missing\)"),
        ("some prefixed", r"norm\.weight is missing; 2 of its 18 names start as 'module\.norm\.weight' does"),
        ("a tensor", r"it holds a Tensor, not tensors by name; save the model's state_dict"),
        ("no tensors", r"it holds a dict with the keys 'epoch', 'args', not tensors by name"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(kind: str, message: str, tmp_path: Path) -> None:
    _, config = saved_as(kind, tmp_path)
    with pytest.raises(UserError, match=rf"{kind}\.pt: .*{message}"):
        create(config, "a ViT")


def test_shapes_that_a_model_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"base\.model is 'resnet10t' .*it must be any timm image model"):
        Pooled(dataclasses.replace(RESNET, width=48))


def test_published_weights_want_the_colours_that_they_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **options: object) -> torch.nn.Module:
        assert pretrained
        return make(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ValueError, match=r"base\.mean is \(0\.48.*resnet10t were trained with \(0\.485, 0\.456, 0\.406"
    ):
        Pooled(dataclasses.replace(RESNET, weights="hub"))
    facts = timm.get_pretrained_cfg("resnet10t")
    assert facts is not None
    config = dataclasses.replace(RESNET, weights="hub", mean=facts.mean, std=facts.std)
    assert Pooled(config)(video()).shape == (2, 5, 1, 512)
