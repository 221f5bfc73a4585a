"""A frozen timm ViT as a source of patch tokens."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from crossview.errors import UserError
from crossview.methods.backbone import Frozen, create
from crossview.methods.base_config import Base


class FrozenViT(Frozen):
    """Patch tokens of the last block, before the ViT's final norm; always in eval mode and without gradients."""

    name = "vit"
    vit: VisionTransformer

    def __init__(self, config: Base) -> None:
        model = create(config, "a plain timm ViT")
        if not isinstance(model, VisionTransformer):
            raise UserError(f"base.model is {config.model!r}, a {type(model).__name__}; it must be a plain timm ViT")
        super().__init__(config, model)
        self.width: int = model.embed_dim
        self.grid: tuple[int, int] = model.patch_embed.grid_size

    def tokens(self, frames: Tensor) -> Tensor:
        """Colours in [0, 255], (n, 3, H, W) -> (n, N, D), with gradients where the ViT has them."""
        tokens: Tensor = self.vit.forward_intermediates(
            self.normalised(frames), indices=1, norm=False, output_fmt="NLC", intermediates_only=True
        )[-1]  # type: ignore[index, assignment]
        return tokens
