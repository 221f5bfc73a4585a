"""A frozen timm ViT as a source of patch tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from crossview.methods.base_config import Base


class FrozenViT(nn.Module):
    """Patch tokens of the last block, before the ViT's final norm; always in eval mode and without gradients."""

    scale: Tensor
    shift: Tensor

    def __init__(self, config: Base) -> None:
        super().__init__()
        self.vit = _create(config).eval().requires_grad_(False)
        self.width: int = self.vit.embed_dim
        self.grid: tuple[int, int] = self.vit.patch_embed.grid_size
        self.size_px, self.chunk = config.size_px, config.chunk
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.mean, config.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def train(self, mode: bool = True) -> FrozenViT:
        """The ViT stays in eval mode whatever its owner does."""
        super().train(mode)
        self.vit.eval()
        return self

    @torch.no_grad()
    def forward(self, video: Tensor) -> Tensor:
        """uint8 (B, T, 3, H, W) -> (B, T, N, D)."""
        frames = rearrange(video, "B T C H W -> (B T) C H W")
        tokens = [self.tokens(part) for part in frames.split(self.chunk)]
        return rearrange(torch.cat(tokens), "(B T) N D -> B T N D", B=len(video))

    def tokens(self, frames: Tensor) -> Tensor:
        """Colours in [0, 255], (n, 3, H, W) -> (n, N, D), with gradients where the ViT has them."""
        x = frames.to(self.scale.dtype)
        if x.shape[-2:] != (self.size_px, self.size_px):
            x = nn.functional.interpolate(x, (self.size_px, self.size_px), mode="bicubic", antialias=True).clamp(0, 255)
        x = torch.addcmul(self.shift, x, self.scale)
        tokens: Tensor = self.vit.forward_intermediates(
            x, indices=1, norm=False, output_fmt="NLC", intermediates_only=True
        )[-1]  # type: ignore[index, assignment]
        return tokens


def _create(config: Base) -> VisionTransformer:
    shape = {"embed_dim": config.width, "depth": config.depth, "num_heads": config.heads, "patch_size": config.patch_px}
    options: dict[str, Any] = {"num_classes": 0, "img_size": config.size_px}
    options |= {k: v for k, v in shape.items() if v is not None}
    if not timm.is_model(config.model):
        raise ValueError(f"base.model is {config.model!r}; timm knows no such model: see timm.list_models('vit_*')")
    with torch.random.fork_rng(devices=[]):  # the base's random numbers are its own: the trained weights' stay the same
        torch.default_generator.manual_seed(config.seed)
        hub = config.weights == "hub"
        try:
            model = _from_hub(config.model, options) if hub else timm.create_model(config.model, **options)
        except TypeError as error:  # a convolutional network knows no img_size, for one
            raise ValueError(f"base.model is {config.model!r} ({error}); it must be a plain timm ViT") from error
    if not isinstance(model, VisionTransformer):
        raise ValueError(f"base.model is {config.model!r}, a {type(model).__name__}; it must be a plain timm ViT")
    if config.weights not in ("hub", "random"):
        load_weights(model, Path(config.weights))
    return model


def _from_hub(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises a dozen kinds: offline, timeout, no such file, no such tag
        raise ValueError(
            f"base.weights is 'hub', but the weights of {name} cannot be fetched ({type(error).__name__}: {error}); "
            "pass base.weights=FILE with a local .safetensors or .pt file, or base.weights=random for an untrained base"
        ) from error
    return model


def load_weights(vit: VisionTransformer, file: Path) -> None:
    """Load a ViT's weights strictly; a classifier head in the file is dropped, everything else must match."""
    if not file.is_file():
        raise ValueError(
            f"base.weights is {str(file)!r}; no such file: give a .safetensors or .pt file, 'hub' or 'random'"
        )
    if file.suffix not in (".safetensors", ".pt", ".pth", ".bin"):
        raise ValueError(f"base.weights is {str(file)!r}; its name must end in .safetensors, .pt, .pth or .bin")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # safetensors, zip and unpickler each have their own kinds
        raise ValueError(
            f"{file}: not a readable file of tensors ({error}); save the ViT's state_dict again"
        ) from error
    wanted = vit.state_dict()
    if not wanted.keys() <= state.keys():
        state = checkpoint_filter_fn(state, vit)  # other layouts that timm can read, e.g. OpenAI's and open_clip's
    state = {k: v for k, v in state.items() if not k.startswith(("head.", "head_dist.", "fc_norm."))}
    wrong = [f"{k} is missing" for k in wanted.keys() - state.keys()]
    wrong += [f"{k} is unknown" for k in state.keys() - wanted.keys()]
    wrong += [
        f"{k} is {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in wanted.keys() & state.keys()
        if wanted[k].shape != state[k].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{file}: the weights do not fit the base ({'; '.join(sorted(wrong)[:5])}{more}); "
            "every tensor must match: give base.model, size_px and width as the file was made with"
        )
    vit.load_state_dict(state)
