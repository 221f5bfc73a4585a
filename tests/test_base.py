"""The frozen ViT: its tokens, its weights and their errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from crossview.methods.base import FrozenViT
from crossview.methods.base_config import Base

TINY = Base(model="vit_tiny_patch16_224", weights="random", size_px=64, width=48, depth=2, heads=3)


def video(size_px: int = 64, frames: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, frames, 3, size_px, size_px), dtype=torch.uint8, generator=generator)


def test_tokens_are_the_last_blocks_patches_before_the_norm() -> None:
    base = FrozenViT(TINY)
    x = (video()[0].float() / 255 - torch.tensor(TINY.mean).view(3, 1, 1)) / torch.tensor(TINY.std).view(3, 1, 1)
    base.vit.norm = torch.nn.Identity()
    expected = base.vit.forward_features(x)[:, 1:]  # the first token is CLS
    torch.testing.assert_close(base(video())[0], expected, atol=1e-5, rtol=1e-4)


def test_register_and_class_tokens_are_dropped() -> None:
    config = dataclasses.replace(TINY, model="vit_small_patch14_reg4_dinov2", size_px=56)
    assert FrozenViT(config)(video(56)).shape == (2, 5, 16, 48)


def test_chunks_change_nothing_and_other_sizes_are_resized() -> None:
    whole = FrozenViT(TINY)(video())
    torch.testing.assert_close(FrozenViT(dataclasses.replace(TINY, chunk=3))(video()), whole, atol=1e-5, rtol=1e-4)
    assert FrozenViT(TINY)(video(100)).shape == whole.shape


def equal_weights(one: FrozenViT, other: FrozenViT) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def test_random_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = FrozenViT(TINY)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal_weights(FrozenViT(TINY), first)
    assert not equal_weights(FrozenViT(dataclasses.replace(TINY, seed=1)), first)


def test_the_base_is_never_trained() -> None:
    base = FrozenViT(TINY).double().train()
    assert next(base.vit.parameters()).dtype == torch.float64
    assert not base.vit.training
    assert not any(p.requires_grad for p in base.parameters())
    assert not base(video()).requires_grad


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_file_is_loaded_and_its_classifier_dropped(suffix: str, tmp_path: Path) -> None:
    source = FrozenViT(dataclasses.replace(TINY, seed=9))
    state = source.vit.state_dict() | {"head.weight": torch.zeros(10, 48), "head.bias": torch.zeros(10)}
    file = tmp_path / f"vit{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    loaded = FrozenViT(dataclasses.replace(TINY, weights=str(file)))
    assert equal_weights(loaded, source)
    assert torch.equal(loaded(video()), source(video()))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = FrozenViT(TINY).vit.state_dict()
    state["blocks.0.attn.extra"] = torch.zeros(1)
    state["norm.weight"] = torch.zeros(7)
    del state["blocks.1.norm1.bias"]
    save_file(state, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match="do not fit") as error:
        FrozenViT(dataclasses.replace(TINY, weights=str(tmp_path / "vit.safetensors")))
    for part in ("blocks.0.attn.extra is unknown", "blocks.1.norm1.bias is missing", "norm.weight is (7,), not (48,)"):
        assert part in str(error.value)


def test_missing_corrupt_and_mistyped_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors")
    (tmp_path / "weights.npz").write_bytes(b"")
    for weights, message in [
        (str(tmp_path / "none.pt"), "no such file"),
        (str(tmp_path / "broken.safetensors"), "not a readable file of tensors"),
        (str(tmp_path / "weights.npz"), "must end in .safetensors"),
        ("hubb", "no such file: give"),
    ]:
        with pytest.raises(ValueError, match=message):
            FrozenViT(dataclasses.replace(TINY, weights=weights))


def test_an_unreachable_hub_says_what_to_pass_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"network is unreachable.*base\.weights=FILE"):
        FrozenViT(Base())


def test_unknown_models_and_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="timm has no such model"):
        FrozenViT(dataclasses.replace(TINY, model="vit_gigantic"))
    with pytest.raises(ValueError, match="must be a plain timm ViT"):
        FrozenViT(Base(model="resnet18", weights="random", size_px=64))
    with pytest.raises(ValueError, match=r"weights is 'hub' with a changed"):
        Base(width=48)
