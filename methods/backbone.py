"""A frozen timm model as a source of frame features; `base.py` has the one that gives patch tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.base_config import Base
from crossview.methods.handover import mismatch

_WRAPPERS = ("module.", "_orig_mod.")


class Frozen(nn.Module, ABC):
    """A model of single frames in eval mode and without gradients, applied to video in chunks.

    The model is stored in the attribute `name`, which also prefixes its weights. `tokens` is what a subclass makes of
    frames.
    """

    name = "model"
    scale: Tensor
    shift: Tensor
    width: int
    """Channels of a token (D)."""

    def __init__(self, config: Base, model: nn.Module) -> None:
        super().__init__()
        self.add_module(self.name, model.eval().requires_grad_(False))
        self.size_px, self.chunk = config.size_px, config.chunk
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.mean, config.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def train(self, mode: bool = True) -> Frozen:
        """The model stays in eval mode whatever its owner does."""
        super().train(mode)
        self.get_submodule(self.name).eval()
        return self

    @torch.no_grad()
    def forward(self, video: Tensor) -> Tensor:
        """uint8 (B, T, 3, H, W) -> (B, T, N, D)."""
        frames = rearrange(video, "B T C H W -> (B T) C H W")
        tokens = [self.tokens(part) for part in frames.split(self.chunk)]
        return rearrange(torch.cat(tokens), "(B T) N D -> B T N D", B=len(video))

    @abstractmethod
    def tokens(self, frames: Tensor) -> Tensor:
        """Colours in [0, 255], (n, 3, H, W) -> (n, N, D), with gradients where the model has them."""

    def normalised(self, frames: Tensor) -> Tensor:
        """Colours in [0, 255], (n, 3, H, W) -> what the model takes, (n, 3, size_px, size_px)."""
        x = frames.to(self.scale.dtype)
        if x.shape[-2:] != (self.size_px, self.size_px):
            x = nn.functional.interpolate(x, (self.size_px, self.size_px), mode="bicubic", antialias=True).clamp(0, 255)
        return torch.addcmul(self.shift, x, self.scale)


class Pooled(Frozen):
    """Any timm model's output before its classifier: one token per frame."""

    def __init__(self, config: Base) -> None:
        model = create(config, "any timm image model")
        super().__init__(config, model)
        width = getattr(model, "head_hidden_size", None) or model.num_features
        self.width = int(width)  # type: ignore[arg-type]

    def tokens(self, frames: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, 1, D)."""
        pooled: Tensor = self.get_submodule(self.name)(self.normalised(frames))
        return pooled[:, None]


def create(config: Base, must_be: str) -> nn.Module:
    """The timm model of `config` without classifier, with its weights; `must_be` words the rule in errors."""
    shape = {"embed_dim": config.width, "depth": config.depth, "num_heads": config.heads, "patch_size": config.patch_px}
    options: dict[str, Any] = {k: v for k, v in shape.items() if v is not None}
    if not timm.is_model(config.model):
        raise UserError(f"base.model is {config.model!r}; timm has no such model: see timm.list_models('vit_*')")
    with torch.random.fork_rng(devices=[]):  # the base's random numbers are its own: the trained weights' stay the same
        torch.default_generator.manual_seed(config.seed)
        try:
            model = _sized(config, options)
        except TypeError as error:  # a convolutional network knows no width, for one
            raise UserError(f"base.model is {config.model!r} ({error}); it must be {must_be}") from error
    if config.weights not in ("hub", "random"):
        load_weights(model, Path(config.weights))
    return model


def _sized(config: Base, options: dict[str, Any]) -> nn.Module:
    """The model for frames of `size_px`, which only some families take as an argument."""
    make = _from_hub if config.weights == "hub" else _at_random
    try:
        return make(config, options | {"img_size": config.size_px})
    except TypeError:
        return make(config, options)


def _at_random(config: Base, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(config.model, num_classes=0, **options)
    return model


def _from_hub(config: Base, options: dict[str, Any]) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(config.model, pretrained=True, num_classes=0, **options)
    except TypeError:
        raise
    except Exception as error:  # the hub's client raises many errors: offline, timeout, no such file, no such tag
        raise UserError(
            f"base.weights is 'hub', but the weights of {config.model} cannot be fetched ({type(error).__name__}: "
            f"{error}); pass base.weights=FILE with a local .safetensors or .pt file, or base.weights=random for an "
            "untrained base"
        ) from error
    facts = getattr(model, "pretrained_cfg", {})
    for name in ("mean", "std"):
        trained, given = facts.get(name), getattr(config, name)
        if trained is not None and max(abs(a - b) for a, b in zip(trained, given, strict=True)) > 1e-3:
            raise UserError(
                f"base.{name} is {given}, but the weights of {config.model} were trained with {tuple(trained)}; pass "
                f"that as base.{name}"
            )
    return model


def load_weights(model: nn.Module, file: Path) -> None:
    """Load a model's weights strictly; a classifier in the file is ignored, everything else must match.

    Wrappers of training scripts are taken off first: see `tensors_in`.
    """
    if not file.is_file():
        raise UserError(
            f"base.weights is {str(file)!r}; no such file: give a .safetensors or .pt file, 'hub' or 'random'"
        )
    if file.suffix not in (".safetensors", ".pt", ".pth", ".bin"):
        raise UserError(f"base.weights is {str(file)!r}; its name must end in .safetensors, .pt, .pth or .bin")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # safetensors, zip and unpickler each have their own kinds
        raise UserError(
            f"{file}: not a readable file of tensors ({error}); save the model's state_dict again"
        ) from error
    state = tensors_in(file, state)
    wanted = model.state_dict()
    if isinstance(model, VisionTransformer) and not wanted.keys() <= state.keys():
        state = checkpoint_filter_fn(state, model)  # other layouts that timm can read, e.g. OpenAI's and open_clip's
    classifier = _classifier(model)
    state = {k: v for k, v in state.items() if k in wanted or not k.startswith(classifier)}
    if wrong := mismatch(wanted, state):
        wrapped = [name for name in state if name.startswith(_WRAPPERS)]
        prefixed = f"; {len(wrapped)} of its {len(state)} names start as {wrapped[0]!r} does" if wrapped else ""
        raise UserError(
            f"{file}: the weights do not fit the base ({wrong}{prefixed}); "
            "every tensor must match: give base.model, size_px and width as the file was made with"
        )
    model.load_state_dict(state)


def tensors_in(file: Path, content: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    They may be under "model", "state_dict" or "encoder"; a prefix that DistributedDataParallel ("module.") or
    torch.compile ("_orig_mod.") gave to every name is taken off. Raises UserError for anything else than named tensors.
    """
    for key in ("model", "state_dict", "encoder"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = f" with the keys {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise UserError(
            f"{file}: it holds a {type(content).__name__}{keys}, not tensors by name; save the model's state_dict"
        )
    state = {str(name): value for name, value in content.items()}
    while state and (prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), "")):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _classifier(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of what a published file holds beyond the features: a ViT's heads, or what timm names as classifier."""
    named = getattr(model, "default_cfg", {}).get("classifier") or ()
    heads = (named,) if isinstance(named, str) else tuple(named)
    return tuple(f"{name}." for name in (*heads, "head", "head_dist", "fc_norm"))
