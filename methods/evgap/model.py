"""EVGAP as plain torch: its training objective and its embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.backbone import Frozen, Pooled
from crossview.methods.base import FrozenViT
from crossview.methods.collect import gather, workers
from crossview.methods.evgap.config import MAX_SCALE, Config
from crossview.methods.evgap.encoder import ClipEncoder
from crossview.methods.evgap.losses import group_loss, indicators, pair_loss
from crossview.methods.handover import take_over
from crossview.methods.method import Batch, Method

WINDOWS = 1024
"""Clips per pass when embedding a whole recording; bounds memory, does not change the result."""


class Views(NamedTuple):
    """Unit class tokens of every layer, (layers, B, M, D) and (layers, B, N, D), and which cameras are present."""

    ego: Tensor
    exo: Tensor
    ego_mask: Tensor | None
    exo_mask: Tensor | None


class Logits(nn.Module):
    """The logit scale, stored as its logarithm, and step 2's bias."""

    log_scale: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        log_scale = torch.tensor(math.log(config.scale_init))
        self.learned = config.scale == "learned"
        if self.learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        with_bias = config.step == "groups" and config.bias == "learned"
        self.bias = nn.Parameter(torch.tensor(config.bias_init)) if with_bias else None

    def scale(self) -> Tensor:
        """The logit scale; in training, a learned one is first clamped to [1, 100], as CLIP's is after each step."""
        if self.learned and self.training:
            with torch.no_grad():
                self.log_scale.clamp_(0, math.log(MAX_SCALE))
        return self.log_scale.exp()


class Model(Method):
    """Aligns ego and exo clips of the same instant, with one encoder on frozen frame features.

    Parameters under `encoder.` compute embeddings; those under `logits.` are used by the loss only.
    """

    batch_dependent = True
    fixed_baselines = frozenset({"frozen features"})

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.base: Frozen | None = None
        width = config.feature_width
        if config.input == "video":
            self.base = Pooled(config.base) if config.base_grid is None else FrozenViT(config.base)
            width = self.base.width * (config.base_grid or 1) ** 2
        self.width = width
        self.encoder = ClipEncoder(width, config.frames, config.encoder)
        self.logits = Logits(config)

    def reach(self) -> Literal["pass", "workers"]:
        """All workers if step 1 gathers their pairs, otherwise the forward pass."""
        return "workers" if self.config.step == "pairs" and self.config.gather else "pass"

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The total loss (last layer plus weighted other layers), each layer's loss, and indicators of a collapse."""
        views, scale, bias = self.views(batch), self.logits.scale(), self.logits.bias
        kept = slice(None) if self.config.auxiliary else slice(-1, None)
        ego, exo = views.ego[kept], views.exo[kept]
        with torch.autocast(ego.device.type, enabled=False):  # bfloat16 is too coarse for a similarity times 100
            if self.config.step == "pairs":
                losses = pair_loss(ego[:, :, 0], exo[:, :, 0], scale)
            else:
                losses = group_loss(ego, exo, scale, bias, views.ego_mask, views.exo_mask)
            out = {"loss": losses[-1] + self.config.auxiliary * losses[:-1].sum()}
            out |= {f"layer{len(self.encoder.layers) - k}": loss for k, loss in enumerate(losses.flip(0))}
            out |= _last(views) | {"scale": scale}
        return out | ({"bias": bias} if bias is not None else {})

    def views(self, batch: Batch) -> Views:
        """The embeddings that the loss compares: in step 1 with `gather`, in training, those of all workers."""
        if self.config.step == "groups":
            return self._groups(batch)
        joined = torch.cat([self._flat(batch[name]) for name in ("ego", "exo")])  # (2B, T, F)
        lengths = [batch[f"{name}/length"] for name in ("ego", "exo") if f"{name}/length" in batch]
        tokens = self._embedded(joined, torch.cat(lengths) if lengths else None, batch)  # (layers, 2B, D)
        if self.config.gather and torch.is_grad_enabled() and workers() > 1:
            tokens = gather(tokens.unflatten(1, (2, -1)).movedim(2, 0)).movedim(0, 2).flatten(1, 2)
        ego, exo = tokens.chunk(2, dim=1)
        _refuse_without_negatives(ego.shape[1], "pair")
        return Views(ego[:, :, None], exo[:, :, None], None, None)

    def _groups(self, batch: Batch) -> Views:
        video, mask = batch["video"], batch["video/mask"]
        B, V = video.shape[:2]
        M, N = self.config.ego_views, self.config.exo_views
        if M + N != V:
            raise UserError(
                f"the batch has {V} cameras in a group, but ego_views {M} + exo_views {N} are {M + N}; set both "
                "options to match the data (the encoder works with any number of cameras)"
            )
        _refuse_without_negatives(B, "group")
        length = batch["video/length"].repeat_interleave(V) if "video/length" in batch else None
        tokens = self._embedded(self._flat(video.flatten(0, 1)), length, batch)
        ego, exo = tokens.unflatten(1, (B, V)).split([M, N], dim=2)
        return Views(ego, exo, mask[:, :M], mask[:, M:])

    def embed(self, video: Tensor) -> Tensor:
        """Unit vectors (B, T, D'): each frame by the window around it, cut at the recording's ends."""
        features = self._flat(video)
        frames = self.encoder.project(features)  # (B, T, D)
        T, W = frames.shape[1], min(self.config.frames, frames.shape[1])
        t = torch.arange(T, device=frames.device)
        first = (t - self.config.frames // 2).clamp(min=0)
        length = (t - self.config.frames // 2 + self.config.frames).clamp(max=T) - first
        index = (first[:, None] + torch.arange(W, device=t.device)).clamp(max=T - 1)  # (T, W)
        parts = []
        for rows, count in zip(*(x.split(max(1, WINDOWS // len(frames))) for x in (index, length)), strict=True):
            windows = frames[:, rows].flatten(0, 1)  # (B * t, W, D)
            parts.append(self.encoder.clips(windows, count.repeat(len(frames)))[-1].unflatten(0, (len(frames), -1)))
        return _unit(torch.cat(parts, 1), features)

    def clip_input(self) -> Tensor:
        """Features where the encoder reads those, else video."""
        if self.base is None:
            return torch.zeros(1, self.config.frames, 1, self.width)
        return super().clip_input()

    def embed_clip(self, video: Tensor) -> Tensor:
        """The class token of each clip, as a unit vector: (B, D')."""
        features = self._flat(video)
        return _unit(self.encoder(features)[-1], features)

    def layers(self) -> list[list[nn.Parameter]]:
        """The projection with class token and positions, then the encoder's layers; the base is frozen."""
        return self.encoder.depths()

    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """R@1 across perspectives within the batch, and the gap between mean positive and negative similarity."""
        found = _last(self.views(batch))
        return {"in_batch_R@1": found["R@1"], "similarity_gap": found["positive"] - found["negative"]}

    def frozen_features(self, video: Tensor) -> Tensor | None:
        """The base's features as float16 (B, T, N, D), N = base_grid^2 or 1; None if the catalog contains features."""
        if self.base is None:
            return None
        features = self._grid(self.base(video)).half()
        if not features.isfinite().all():
            raise UserError(
                f"base.model {self.config.base.model}: its features exceed float16, so they cannot be cached; train "
                "from video with cache_features off"
            )
        return features

    def baselines(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The frozen features of each frame, as a baseline."""
        return {"frozen features": lambda video: self._flat(video).float()}

    def start_from(self, weights: dict[str, Tensor]) -> list[str]:
        """Load the encoder's weights from a run of either step; scale and bias start from this configuration."""
        return take_over(self, weights, fresh=("logits.",))

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Weight decay on the weights of linear layers only: not on norms, biases, positions, scale."""
        named = [(n, p) for n, p in self.named_parameters() if p.requires_grad and not n.startswith("logits.")]
        decayed = [p for n, p in named if p.ndim > 1 and n != "encoder.positions"]
        others = [p for n, p in named if p.ndim <= 1 or n == "encoder.positions"]
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": weight_decay}]
        groups.append({"params": others, "weight_decay": 0.0})
        if logits := list(self.logits.parameters()):
            groups.append({"params": logits, "weight_decay": 0.0, "lr_scale": self.config.logits_lr})
        return groups

    def _embedded(self, features: Tensor, length: Tensor | None, batch: Batch) -> Tensor:
        """(n, T, F) -> unit class tokens (layers, n, D); raises ValueError if a sample's features are not finite."""
        tokens = self.encoder(features, length)
        _refuse_broken(tokens[-1], features, batch)
        return F.normalize(tokens.float(), dim=-1)

    def _flat(self, video: Tensor) -> Tensor:
        """uint8 (n, T, 3, H, W) or features (n, T, N, D) -> (n, T, F), the encoder's input."""
        if not video.is_floating_point():
            if self.base is None:
                raise UserError(
                    "method.input is 'features', but the catalog contains video; pass --method.input video with a "
                    "--method.base, or use a catalog of features"
                )
            video = self._grid(self.base(video))
        features = video.flatten(2)
        if features.shape[-1] != self.width:
            fix = "use the base and base_grid that computed them" if self.base else "pass --method.feature-width"
            raise UserError(
                f"the features have {' x '.join(map(str, video.shape[2:]))} = {features.shape[-1]} values per frame, "
                f"but this encoder expects {self.width}; {fix}"
            )
        device = features.device.type
        autocast = torch.is_autocast_enabled(device)  # in bfloat16, it cannot concatenate float16 features
        return features.to(torch.get_autocast_dtype(device) if autocast else self.encoder.project.weight.dtype)

    def _grid(self, tokens: Tensor) -> Tensor:
        """A ViT's patch tokens (B, T, N, D), averaged over each cell of the grid -> (B, T, g * g, D)."""
        g = self.config.base_grid
        if g is None or not isinstance(self.base, FrozenViT):
            return tokens
        B, T = tokens.shape[:2]
        image = tokens.flatten(0, 1).mT.unflatten(-1, self.base.grid)  # (B * T, D, h, w)
        return F.adaptive_avg_pool2d(image, g).flatten(2).mT.unflatten(0, (B, T))


def _last(views: Views) -> dict[str, Tensor]:
    return indicators(views.ego[-1], views.exo[-1], views.ego_mask, views.exo_mask)


def _unit(tokens: Tensor, features: Tensor) -> Tensor:
    """Unit vectors (float32); raises ValueError if the features are not finite."""
    if not bool(tokens.isfinite().all()):
        broken = (~features.isfinite().all(-1)).nonzero()
        if len(broken):
            raise UserError(
                f"recording or clip {int(broken[0, 0])} of the batch, frame {int(broken[0, 1])}: the features are not "
                "finite (NaN or infinity); recompute them"
            )
    return F.normalize(tokens.float(), dim=-1)


def _refuse_without_negatives(scenes: int, kind: str) -> None:
    if scenes < 2:
        raise UserError(
            f"the batch has {scenes} {kind} and therefore no negatives; the loss needs at least 2: increase "
            "--optim.batch, --method.clips-per-video or --compute.micro-batch"
        )


def _refuse_broken(tokens: Tensor, features: Tensor, batch: Batch) -> None:
    """Raise ValueError naming the first sample with non-finite features; the loop handles non-finite weights."""
    if bool(tokens.isfinite().all()):
        return
    broken = (~features.isfinite().flatten(1).all(1)).nonzero().flatten()
    if len(broken):
        sample = batch["sample"]
        copies = len(features) // len(sample)
        b = int(broken[0]) // copies if "video" in batch else int(broken[0]) % len(sample)
        raise UserError(
            f"sample {int(sample[b])} of the plan: {len(broken)} of {len(features)} clips have features that are not "
            "finite (NaN or infinity); recompute the features of its recording, or remove it from the catalog"
        )
