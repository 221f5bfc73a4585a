"""BYOV in plain PyTorch: its losses and its embedding of a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.base import FrozenViT
from crossview.methods.byov.config import Config, TimeCode
from crossview.methods.byov.masking import Split, split, take
from crossview.methods.byov.networks import Decoder, Encoder
from crossview.methods.byov.stm import merge, merge_stream
from crossview.methods.byov.timecode import time_code
from crossview.methods.method import Batch, Method

VIEWS = ("ego", "exo")
_STREAMS = {("msm", "ego"): 0, ("msm", "exo"): 1, ("mcm", "ego"): 2, ("mcm", "exo"): 3}


class Model(Method):
    """Masked self-view (MSM) and cross-view modelling (MCM) of merged frame features (arXiv 2503.19706, section 3).

    Only the weights under `encoder.` are needed for the embedding; `decoder.` is for training. Both views go through a
    network in one pass, as the two halves of a batch of 2B: ego first.
    """

    fixed_baselines = frozenset({"frozen features", "frozen mean"})

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.base = FrozenViT(config.base)
        self.encoder = Encoder(self.base.width, config.encoder, final_norm=config.final_norm)
        self.decoder = Decoder(config.encoder.width, self.base.width, config.decoder, segments=config.segment_embedding)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The four losses and their weighted sum; a task whose weights are both 0 is skipped."""
        return self.losses(*self._inputs(batch))

    def inspect(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, dict[str, Split]]:
        """Each task's predictions, their targets, both (2B, T, D), and the splits: what `losses` compares."""
        merged, frames, num_frames, splits = self._inputs(batch)
        return self.predict(merged, frames, num_frames, splits), self._target(merged), splits

    def split(self, seed: Tensor, task: str, frames: int) -> Split:
        """Which frames `task` masks in both views of each sample: seeds (B,) -> a split of 2B clips."""
        ratio = self.config.msm_ratio if task == "msm" else self.config.mcm_ratio
        ego, exo = (split(seed, frames, ratio, _STREAMS[task, v]) for v in VIEWS)
        return Split(torch.cat([ego.mask, exo.mask]), torch.cat([ego.visible, exo.visible]))

    def losses(self, merged: Tensor, frames: Tensor, num_frames: Tensor, splits: dict[str, Split]) -> dict[str, Tensor]:
        """Losses of merged features (2B, T, D), ego first, for the tasks in `splits`."""
        target = self._target(merged)
        predictions = self.predict(merged, frames, num_frames, splits)
        parts: dict[str, Tensor] = {}
        for task, prediction in predictions.items():
            error = (prediction.float() - target).square().mean(-1)  # (2B, T)
            scored = splits[task].mask if self.config.loss_on == "masked" else torch.ones_like(splits[task].mask)
            per_clip = (error * scored).sum(1) / scored.sum(1)
            parts |= {f"{task}/{v}": half.mean() for v, half in zip(VIEWS, per_clip.chunk(2), strict=True)}
        weights = self.config.weights
        total = sum(getattr(weights, name.replace("/", "_")) * value for name, value in parts.items())
        return {"loss": torch.as_tensor(total), **parts}

    def predict(
        self, merged: Tensor, frames: Tensor, num_frames: Tensor, splits: dict[str, Split]
    ) -> dict[str, Tensor]:
        """Each task's predicted features of all frames, (2B, T, D)."""
        x = merged + self._code(frames, num_frames, merged.shape[-1])
        code = self._code(frames, num_frames, self.config.decoder.width)
        out: dict[str, Tensor] = {}
        if "msm" in splits:
            visible = splits["msm"].visible
            latents = self.encoder(take(x, visible), causal=self.config.causal_encoder)
            out["msm"] = self.decoder.self_view(latents, visible, code, causal=self.config.causal_msm)
        if "mcm" in splits:
            visible = splits["mcm"].visible
            latents = self.encoder(take(x, visible))
            context = self.encoder(x)
            out["mcm"] = self.decoder.cross_view(latents, visible, code, _other(context), _other(code))
        return out

    def embed(self, video: Tensor) -> Tensor:
        """The encoder's latents of the complete recording; every frame is embedded, the decoder is not used."""
        return self._embed(video, self.config.time_code)

    def layers(self) -> list[list[nn.Parameter]]:
        """The embedding of the merged features and the blocks of the encoder; the base is frozen."""
        return self.encoder.layers()

    def frozen_features(self, video: Tensor) -> Tensor:
        """Patch tokens of the base, float16 (B, T, N, D)."""
        tokens = self.base(video).half()
        if not tokens.isfinite().all():
            raise UserError(
                f"base.model {self.config.base.model}: its tokens exceed float16, so they cannot be cached; train from "
                "video with cache_features off"
            )
        return tokens

    def baselines(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Baselines: the frozen features, merged and as a plain mean, and the trained encoder without its time code."""
        return {
            "frozen features": self.merged,
            "frozen mean": lambda video: merge_stream(self._chunks(video), None),
            "no time code": lambda video: self._embed(video, "none"),
        }

    def merged(self, video: Tensor) -> Tensor:
        """The encoder's input for a complete recording: video or features -> float32 (B, T, D)."""
        T = video.shape[1]
        gap = 1 if self.config.stm_evaluation_gap == "adjacent" else max(1, round(T / self.config.frames))
        return self._centred(merge_stream(self._chunks(video), self.config.stm_ratio, gap))

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, dict[str, Split]]:
        merged = torch.cat([merge(self._tokens(batch[v]), self.config.stm_ratio) for v in VIEWS])  # (2B, T, D)
        merged = self._centred(merged)
        frames = torch.cat([batch[f"{v}/frames"] for v in VIEWS])
        num_frames = torch.cat([batch[f"{v}/num_frames"] for v in VIEWS])
        return merged, frames, num_frames, {t: self.split(batch["seed"], t, merged.shape[1]) for t in self._tasks()}

    def _centred(self, merged: Tensor) -> Tensor:
        return merged - merged.mean(1, keepdim=True) if self.config.input_norm == "clip" else merged

    def _target(self, merged: Tensor) -> Tensor:
        """What the decoder has to predict, (2B, T, D)."""
        if self.config.target_norm == "token":
            return nn.functional.layer_norm(merged, merged.shape[-1:])
        if self.config.target_norm == "clip":
            centred = merged - merged.mean(1, keepdim=True)
            return centred * centred.square().mean((1, 2), keepdim=True).add(1e-6).rsqrt()
        return merged

    def _embed(self, video: Tensor, kind: TimeCode) -> Tensor:
        x = self.merged(video)
        B, T = x.shape[:2]
        frames = torch.arange(T, device=x.device).expand(B, T)
        return self.encoder(x + self._code(frames, torch.full((B,), T, device=x.device), x.shape[-1], kind)).float()

    def _code(self, frames: Tensor, num_frames: Tensor, width: int, kind: TimeCode | None = None) -> Tensor:
        return time_code(kind or self.config.time_code, frames, num_frames, self.config.frames, width)

    def _tokens(self, video: Tensor) -> Tensor:
        """Patch tokens (B, T, N, D), from the base unless the batch already holds them."""
        return video if video.is_floating_point() else self.base(video)

    def _chunks(self, video: Tensor) -> Iterator[Tensor]:
        """Patch tokens of a complete recording, a few frames at a time."""
        for part in video.split(max(1, self.base.chunk // video.shape[0]), dim=1):
            yield self._tokens(part)

    def _tasks(self) -> list[str]:
        w = self.config.weights
        return [t for t, used in (("msm", w.msm_ego or w.msm_exo), ("mcm", w.mcm_ego or w.mcm_exo)) if used]


def _other(x: Tensor) -> Tensor:
    """Swap the views: (2B, ...) -> (2B, ...)."""
    return torch.cat(x.chunk(2)[::-1])
