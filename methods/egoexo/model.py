"""Ego-Exo in plain torch: losses, transfer to fine-tuning, embeddings and measures."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.augment import crop_boxes, crop_video, recolour, scale_crop
from crossview.methods.egoexo import losses
from crossview.methods.egoexo.config import Config
from crossview.methods.egoexo.slowfast import SlowFast, slow_indices
from crossview.methods.handover import take_over
from crossview.methods.method import Batch, Method

CLIP = "clip"
MEAN, STD = 0.45, 0.225
"""Of all three colour channels."""
MAPS = ("hand_map", "object_map")
"""Channels of the interaction map."""
MEASURED_TOGETHER = 16
"""Clips per forward pass of `Model.measures`, whose batch is large; bounds memory."""
_SAME = 1e-6
"""If the best constant's loss is at most this, a batch's targets do not differ and the measure is left out."""


class Model(Method):
    """A SlowFast network with a classifier per label kind and heads for the three signals (arXiv 2104.07905).

    Embeddings depend only on the state under `backbone.`. In training mode clips are randomly cropped and flipped; in
    evaluation mode whole frames are used.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.several_classes = config, config.action_loss == "binary"
        self.backbone = SlowFast(config.backbone)
        width, w = sum(self.backbone.widths), config.weights
        self.dropout = nn.Dropout(config.dropout)
        kinds = config.classes if w.action else {}
        self.classifier = nn.ModuleDict({kind: _linear(width, count) for kind, count in kinds.items()})
        tasks = {"ego": (w.ego, 2), "object": (w.object, config.object_classes)}
        self.score_heads = nn.ModuleDict({t: _linear(width, count) for t, (weight, count) in tasks.items() if weight})
        self.map_head = _MapHead(self.backbone.widths[0], config.map_width) if w.maps else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the heads that were built, and their weighted sum.

        Each signal's loss is averaged over the samples for which the teacher's signal exists.
        """
        clips, boxes = self.inputs(batch)
        return self.losses(batch, boxes, self.predict(clips))

    def losses(self, batch: Batch, boxes: Tensor | None, predictions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of `predict`'s logits, given the batch's labels and scores and the boxes returned by `inputs`."""
        config, parts, factors = self.config, {}, {}
        for kind in self.classifier:
            loss = losses.binary if config.action_loss == "binary" else losses.cross_entropy
            parts[f"action/{kind}"] = loss(predictions[f"action/{kind}"], batch[f"{CLIP}/label/{kind}"])
            factors[f"action/{kind}"] = config.weights.action
        for task in self.score_heads:
            teacher, valid = batch[f"{CLIP}/scores/{task}"], batch[f"{CLIP}/scores/{task}/mask"]
            parts[task] = losses.distill(predictions[task], teacher, valid, getattr(config, f"{task}_temperature"))
            factors[task] = getattr(config.weights, task)
        if boxes is not None:
            logits = predictions["map"]
            target = self.paint(boxes, logits)
            for channel, name in enumerate(MAPS):
                parts[name] = losses.map_error(logits[:, channel], target[:, channel], batch[f"{CLIP}/boxes/mask"])
                factors[name] = getattr(config.weights, name)
        total = sum(factors[name] * value for name, value in parts.items())
        return {"loss": torch.as_tensor(total), **parts}

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Clips uint8 (B, T, 3, H, W) and, with an interaction map, boxes (B, T, K, 6), both under the same crop."""
        clips, boxes = self._video(batch[CLIP]), batch[f"{CLIP}/boxes"] if self.map_head is not None else None
        if not self.training:
            return clips, boxes
        c = self.config
        sides = c.short_side_px or (c.crop_px, c.crop_px)  # the plan has cropped already
        crop = scale_crop(batch["seed"], crop_px=c.crop_px, short_side_px=sides, flip=c.flip)
        clips = crop_video(clips, crop, c.crop_px)
        if c.recolour:
            clips = recolour(clips, batch["seed"], c.recolour)
        return clips, None if boxes is None else crop_boxes(boxes, crop)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Logits by name for uint8 clips: "action/KIND", "ego" and "object" (B, C), "map" (B, 2, T', h, w)."""
        maps = self.backbone(_normalised(clips))
        pooled = self.dropout(torch.cat([x.mean((2, 3, 4)) for x in maps], dim=1))
        out = {f"action/{kind}": head(pooled) for kind, head in self.classifier.items()}
        out |= {task: head(pooled) for task, head in self.score_heads.items()}
        if self.map_head is not None:
            out["map"] = self.map_head(maps[0])
        return out

    def paint(self, boxes: Tensor, logits: Tensor) -> Tensor:
        """The target for the map's logits (B, 2, T', h, w), at the slow pathway's frames."""
        if logits.shape[2] != boxes.shape[1]:
            boxes = boxes.index_select(1, slow_indices(boxes.shape[1], self.config.backbone.alpha, boxes.device))
        return losses.paint(boxes, logits.shape[-1], self.config.map_target)

    def class_logits(self, video: Tensor) -> dict[str, Tensor]:
        """Logits per label kind, from whole frames: uint8 (B, T, 3, H, W) -> (B, C)."""
        pooled = self.dropout(self.embed_clip(video))
        return {kind: head(pooled) for kind, head in self.classifier.items()}

    def class_scores(self, clips: Tensor) -> dict[str, Tensor]:
        """Probabilities per label kind, uint8 (B, T, 3, H, W) -> (B, C), for each test view.

        On frames larger than the training crop, a pooling window of the crop's size slides over all positions, and the
        probabilities of all positions are averaged.
        """
        window = self.config.crop_px // self.config.backbone.stride
        maps = self.backbone(_normalised(self._video(clips)))
        places = torch.cat(
            [nn.functional.avg_pool2d(x.mean(2), min(window, *x.shape[-2:]), stride=1) for x in maps], dim=1
        )
        places = rearrange(places, "B D h w -> B h w D")
        logits = {kind: head(places).float() for kind, head in self.classifier.items()}
        return {k: (x.sigmoid() if self.several_classes else x.softmax(-1)).mean((1, 2)) for k, x in logits.items()}

    def embed_clip(self, video: Tensor) -> Tensor:
        """The classifiers' input: uint8 (B, T, 3, H, W) of the configured length -> (B, D')."""
        if video.shape[1] != self.config.frames:
            raise UserError(
                f"a clip of {video.shape[1]} frames; Ego-Exo is configured for {self.config.frames}: repeat the last "
                "frame of a shorter clip, and cut a longer one"
            )
        maps = self.backbone(_normalised(self._video(video)))
        return torch.cat([x.float().mean((2, 3, 4)) for x in maps], dim=1)

    def embed(self, video: Tensor) -> Tensor:
        """Per frame, the fast features and the slow features of its position in the window, averaged over space.

        The recording is split into windows of the configured length; the last one is shifted to end with the recording,
        and a recording shorter than a window repeats its last frame. The mean over a window is `embed_clip`.
        """
        video, size = self._video(video), self.config.frames
        T = video.shape[1]
        starts = [*range(0, T - size, size), max(0, T - size)]
        parts, done = [], 0
        for start in starts:
            window = video[:, start : start + size]
            short = size - window.shape[1]
            if short:
                window = torch.cat([window, repeat(window[:, -1:], "B 1 C H W -> B t C H W", t=short)], dim=1)
            parts.append(self._per_frame(window)[:, done - start : T - start])
            done = start + size
        return torch.cat(parts, dim=1)

    def layers(self) -> list[list[nn.Parameter]]:
        """The stems and the four stages of the backbone."""
        return self.backbone.layers()

    @torch.no_grad()
    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """For each loss, 1 - loss / loss of the best constant, both less the target's own entropy.

        1 is perfect. The constant is the batch's mean target (per cell for the maps), which no prediction that ignores
        its input can beat on this batch: 0 is equally good, below 0 is worse. Left out where all targets are the same.
        """
        clips, boxes = self.inputs(batch)
        few = [self.predict(part) for part in clips.split(MEASURED_TOGETHER)]
        predictions = {name: torch.cat([p[name] for p in few]).float() for name in few[0]}
        binary = self.config.action_loss == "binary"
        out = {}
        for kind in self.classifier:
            logits, shown = predictions[f"action/{kind}"], batch[f"{CLIP}/label/{kind}"].float()
            if binary:
                out[f"label_{kind}"] = _explained(shown, logits.sigmoid(), binary=True)
                continue
            some = shown.sum(1) > 0
            p = shown[some] / shown[some].sum(1, keepdim=True)
            out[f"label_{kind}"] = _explained(p, logits[some].softmax(1), binary=False)
        for task in self.score_heads:
            valid = batch[f"{CLIP}/scores/{task}/mask"]
            both = batch[f"{CLIP}/scores/{task}"], predictions[task]
            p, q = ((x[valid].float() / getattr(self.config, f"{task}_temperature")).softmax(1) for x in both)
            out[f"{task}_score"] = _explained(p, q, binary=False)
        if boxes is not None:
            valid = batch[f"{CLIP}/boxes/mask"]
            logits = predictions["map"][valid]
            target = self.paint(boxes[valid], logits)
            for channel, name in enumerate(MAPS):
                if getattr(self.config.weights, name):
                    cells = (x[:, channel].flatten(0, 1) for x in (target, logits.sigmoid()))
                    out[name] = _explained(*cells, binary=True)
        return {name: value for name, value in out.items() if value is not None}

    def start_from(self, weights: dict[str, Tensor]) -> list[str]:
        """Pre-training loads everything; fine-tuning the backbone and, for Ego-Exo*, the interaction-map head."""
        if self.config.stage == "pretrain":
            return take_over(self, weights)
        dropped = ["score_heads."] if self.map_head is not None else ["score_heads.", "map_head."]
        return take_over(self, weights, fresh=["classifier."], dropped=dropped)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Weight decay for all parameters but BatchNorm's."""
        norms = {id(p) for m in self.modules() if isinstance(m, nn.BatchNorm3d) for p in m.parameters()}
        decayed = [p for p in self.parameters() if id(p) not in norms]
        kept = [p for p in self.parameters() if id(p) in norms]
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]

    def _per_frame(self, window: Tensor) -> Tensor:
        maps = [x.float().mean((3, 4)).transpose(1, 2) for x in self.backbone(_normalised(window))]  # (B, T', D)
        frames = window.shape[1]
        slow = maps[0][:, torch.arange(frames, device=window.device) * maps[0].shape[1] // frames]
        return torch.cat([slow, *maps[1:]], dim=2)

    def _video(self, clips: Tensor) -> Tensor:
        if clips.ndim != 5 or clips.shape[2] != 3:
            raise UserError(
                f"an input of shape {tuple(clips.shape)}; Ego-Exo takes video, (B, T, 3, H, W): train on a catalog of "
                "videos, not of features"
            )
        return clips


class _MapHead(nn.Module):
    """Convolutions of (1, 3, 3) and (1, 1, 1) on the slow map: (B, D, T', h, w) -> logits (B, 2, T', h, w)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, width, (1, 3, 3), padding=(0, 1, 1))
        self.projection = nn.Conv3d(width, 2, 1)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.projection.weight, std=0.01)
        for conv in (self.conv, self.projection):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of hands (channel 0) and objects (channel 1)."""
        return self.projection(nn.functional.relu(self.conv(x)))


def _linear(width: int, count: int) -> nn.Linear:
    layer = nn.Linear(width, count)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _normalised(clips: Tensor) -> Tensor:
    """uint8 (B, T, 3, H, W), RGB -> float (B, 3, T, H, W)."""
    return (clips.transpose(1, 2).float() / 255 - MEAN) / STD


def _explained(target: Tensor, prediction: Tensor, *, binary: bool) -> Tensor | None:
    """Fraction of the mean target's divergence that the prediction removes; both (n, ...), with values in [0, 1].

    The second dimension is a distribution over classes; with `binary`, each element is its own binary distribution.
    """
    if not len(target):
        return None
    constant, error = (
        losses.probability_divergence(target, q.expand_as(target), binary=binary)
        for q in (target.mean(0, keepdim=True), prediction)
    )
    return 1 - error / constant if constant > _SAME else None
