"""The frozen image encoder that a method builds on. No torch: `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossview.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Base:
    """The frozen image encoder: any timm ViT."""

    model: str = "vit_base_patch16_clip_quickgelu_224.openai"
    """timm's name; the quickgelu variant is the activation that OpenAI's CLIP weights were trained with."""
    weights: str = "hub"
    """"hub" loads the weights of that name, "random" draws them from `seed`, else a .safetensors or .pt file; a prefix
    "module." or "_orig_mod." of all its names is removed."""
    seed: int = 0
    """Of random weights: the same configuration gives the same base in every process."""
    size_px: int = 224
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Of each colour in [0, 1]; CLIP's by default."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    chunk: int = 64
    """Frames per pass; bounds memory, changes no result."""
    width: int | None = None
    """Smaller than the name says, as are the next three; for random weights or a file of that shape."""
    depth: int | None = None
    heads: int | None = None
    patch_px: int | None = None

    def __post_init__(self) -> None:
        for name in ("size_px", "chunk", "width", "depth", "heads", "patch_px"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"base.{name} is {value}; it must be at least 1")
        if self.weights not in (
            "hub",
            "random",
        ):  # workers run elsewhere: a relative path would mean another file there
            object.__setattr__(self, "weights", str(Path(self.weights).resolve()))
        if any(s <= 0 for s in self.std):
            raise UserError(f"base.std is {self.std}; every entry must be above 0")
        if self.weights == "hub" and any(v is not None for v in (self.width, self.depth, self.heads, self.patch_px)):
            raise UserError(
                "base.weights is 'hub' with a changed width, depth, heads or patch_px; published weights fit only the "
                "named shape: leave those out, or pass weights='random' or a file"
            )
