"""Ego-Exo's loss in plain loops: samples cropped one by one, maps painted box by box, one network pass per head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods import noise
from crossview.methods.egoexo.config import Backbone, Config, presets
from crossview.methods.egoexo.model import Model


def sizes() -> dict[str, Callable[[], tuple[Config, int]]]:
    """Configurations and batch sizes to time, by name."""
    return {"laptop": _laptop, "paper": _paper}


def _laptop() -> tuple[Config, int]:
    backbone = Backbone(width=16, beta_inverse=4, blocks=(1, 2, 2, 1), temporal_blocks=(1, 2, 2, 1))
    config = Config(
        backbone=backbone, classes={"action": 10}, object_classes=100, frames=16, frame_px=128, crop_px=96,
        geometry=Geometry(), short_side_px=(108, 136), boxes=8, map_width=64,
    )  # fmt: skip
    return config, 4


def _paper() -> tuple[Config, int]:
    config = presets()["kinetics400"]().method
    assert isinstance(config, Config)
    return replace(config), 16


def reference(model: Model, batch: dict[str, Tensor]) -> Tensor:
    """The same loss as `model(batch)["loss"]`, with the model's weights, in training mode and without dropout."""
    c, w = model.config, model.config.weights
    samples = [_sample(c, batch, b) for b in range(len(batch["seed"]))]
    clips = torch.stack([clip for clip, _ in samples]).transpose(1, 2)  # (B, 3, T, H, W)
    indices = [
        math.floor(i * (c.frames - 1) / (c.frames // c.backbone.alpha - 1)) for i in range(c.frames // c.backbone.alpha)
    ]
    slow, fast = _pathways(model, torch.stack([clips[:, :, i] for i in indices], dim=2), clips)
    total = torch.zeros((), device=clips.device)
    for kind, layer in model.classifier.items():
        logits = layer(_pool(slow, fast))
        for b in range(len(logits)):
            total = total - w.action * logits[b].log_softmax(0)[batch[f"clip/label/{kind}"][b].argmax()] / len(logits)
    for task, layer in model.score_heads.items():
        student = F.log_softmax(layer(_pool(slow, fast)), dim=1)
        teacher = F.softmax(batch[f"clip/scores/{task}"], dim=1)
        total = total + getattr(w, task) * F.kl_div(student, teacher, reduction="batchmean")
    assert model.map_head is not None
    for channel, weight in enumerate((w.hand_map, w.object_map)):
        logits = model.map_head(slow)[:, channel]
        target = torch.stack([_painted(boxes, channel + 1, indices, logits.shape[-1]) for _, boxes in samples])
        total = total + weight * F.binary_cross_entropy_with_logits(logits, target.to(logits.device))
    return total


def _sample(c: Config, batch: dict[str, Tensor], b: int) -> tuple[Tensor, list[list[list[float]]]]:
    """One sample, frame by frame: the cropped and normalised clip (T, 3, H, W), and lists of its boxes."""
    scale, x, y, mirrored = noise.uniform(batch["seed"][b : b + 1], 4, 0)[0]
    low, high = c.short_side_px or (c.crop_px, c.crop_px)
    share = c.crop_px / (low + (high - low) * scale)
    left, top, flip = x * (1 - share), y * (1 - share), bool(mirrored < c.flip)
    # In the same steps as the method's: another rounding of a place may change a pixel by a level.
    middle = (torch.arange(c.crop_px, device=share.device) + 0.5) / c.crop_px
    columns, rows = left + share * (1 - middle if flip else middle), top + share * middle
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None] * 2 - 1
    frames = []
    for frame in batch["clip"][b]:
        pixels = F.grid_sample(frame[None].float(), grid, padding_mode="border", align_corners=False)[0]
        frames.append((pixels.round().clamp(0, 255) / 255 - 0.45) / 0.225)
    place = float(left), float(top), float(share)
    boxes = [[_moved(box, *place, flip=flip) for box in frame] for frame in batch["clip/boxes"][b].tolist()]
    return torch.stack(frames), boxes


def _moved(box: list[float], left: float, top: float, share: float, *, flip: bool) -> list[float]:
    kind, x1, y1, x2, y2, score = box
    x1, x2, y1, y2 = (x1 - left) / share, (x2 - left) / share, (y1 - top) / share, (y2 - top) / share
    if flip:
        x1, x2 = 1 - x2, 1 - x1
    x1, y1, x2, y2 = (min(max(v, 0.0), 1.0) for v in (x1, y1, x2, y2))
    return [kind, x1, y1, x2, y2, score] if x2 > x1 and y2 > y1 else [0.0] * 6


def _painted(boxes: list[list[list[float]]], kind: int, indices: list[int], side: int) -> Tensor:
    target = torch.zeros(len(indices), side, side)
    for t, frame in enumerate(indices):
        for k, x1, y1, x2, y2, score in boxes[frame]:
            if k == kind:
                c1, r1, c2, r2 = (min(max(math.floor(v * side), 0), side - 1) for v in (x1, y1, x2, y2))
                cells = target[t, r1 : r2 + 1, c1 : c2 + 1]
                target[t, r1 : r2 + 1, c1 : c2 + 1] = torch.maximum(cells, torch.full_like(cells, score))
    return target


def _pathways(model: Model, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
    """Pathway after pathway, stage by stage."""
    net = model.backbone
    x, y = net.slow_stem(slow), net.fast_stem(fast)
    for stage in range(4):
        x = torch.cat([x, net.lateral[stage](y, x.shape[2])], dim=1)
        x, y = net.slow_stages[stage](x), net.fast_stages[stage](y)
    return x, y


def _pool(slow: Tensor, fast: Tensor) -> Tensor:
    return torch.cat([F.adaptive_avg_pool3d(x, 1).flatten(1) for x in (slow, fast)], dim=1)
