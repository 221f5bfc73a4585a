"""Ego-Exo transcribed plainly: parameters by name, torch operations, loops over samples and boxes, none of its code.

Formulas and constants are those of the released code (facebookresearch/Ego-Exo) and of PySlowFast, on which it is
based.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.methods import noise
from crossview.methods.egoexo.config import Config

Boxes = list[list[list[float]]]
"""Of one clip: frame, box, (kind, x1, y1, x2, y2, score)."""


@dataclass
class Network:
    """The network with parameters `p` in float64; a training step leaves its new BatchNorm statistics in `running`."""

    config: Config
    p: dict[str, Tensor]
    training: bool
    running: dict[str, Tensor] = field(default_factory=dict)

    def norm(self, x: Tensor, name: str) -> Tensor:
        p = self.p
        mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
        if self.training:
            count = x.numel() / x.shape[1]
            new_mean, new_variance = x.mean((0, 2, 3, 4)), x.var((0, 2, 3, 4), unbiased=False)
            self.running[f"{name}.running_mean"] = 0.9 * mean + 0.1 * new_mean.detach()
            self.running[f"{name}.running_var"] = 0.9 * variance + 0.1 * new_variance.detach() * count / (count - 1)
            mean, variance = new_mean, new_variance
        scaled = (x - mean[:, None, None, None]) / (variance[:, None, None, None] + 1e-5).sqrt()
        return scaled * p[f"{name}.weight"][:, None, None, None] + p[f"{name}.bias"][:, None, None, None]

    def stem(self, x: Tensor, name: str, temporal: int) -> Tensor:
        """A convolution over `temporal` frames and 7 x 7 pixels at stride 2, and a maximum over 3 x 3 at stride 2."""
        weight = self.p[f"{name}.0.weight"]
        assert weight.shape[2:] == (temporal, 7, 7)
        y = F.conv3d(x, weight, stride=(1, 2, 2), padding=(temporal // 2, 3, 3))
        return F.max_pool3d(F.relu(self.norm(y, f"{name}.1")), (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def stage(self, x: Tensor, name: str, stage: int, temporal: int) -> Tensor:
        """Bottlenecks of kernels (temporal, 1, 1), (1, 3, 3) and (1, 1, 1); the first one has the stage's stride."""
        b = self.config.backbone
        for block in range(b.blocks[stage]):
            at = f"{name}.{stage}.{block}"
            stride = b.strides[stage] if block == 0 else 1
            kernel = temporal if block < b.temporal_blocks[stage] else 1
            assert self.p[f"{at}.conv1.weight"].shape[2:] == (kernel, 1, 1)
            y = F.conv3d(x, self.p[f"{at}.conv1.weight"], padding=(kernel // 2, 0, 0))
            y = F.relu(self.norm(y, f"{at}.norm1"))
            y = F.conv3d(y, self.p[f"{at}.conv2.weight"], stride=(1, stride, stride), padding=(0, 1, 1))
            y = F.relu(self.norm(y, f"{at}.norm2"))
            y = self.norm(F.conv3d(y, self.p[f"{at}.conv3.weight"]), f"{at}.norm3")
            if f"{at}.shortcut.0.weight" in self.p:
                x = F.conv3d(x, self.p[f"{at}.shortcut.0.weight"], stride=(1, stride, stride))
                x = self.norm(x, f"{at}.shortcut.1")
            x = F.relu(x + y)
        return x

    def maps(self, clips: Tensor) -> list[Tensor]:
        """The last maps of uint8 clips (B, T, 3, H, W): slow (B, D, T', h, w) and, if there is one, fast."""
        b, kernels = self.config.backbone, (1, 1, 3, 3)  # PySlowFast, of the slow pathway's four stages
        video = ((clips.permute(0, 2, 1, 3, 4).float() / 255 - 0.45) / 0.225).double()
        if b.pathways == "slow":
            x = self.stem(video, "backbone.slow_stem", 1)
            for stage in range(4):
                x = self.stage(x, "backbone.slow_stages", stage, kernels[stage])
            return [x]
        x = torch.stack([video[:, :, t] for t in slow_frames(video.shape[2], b.alpha)], dim=2)
        x, y = self.stem(x, "backbone.slow_stem", 1), self.stem(video, "backbone.fast_stem", 5)
        for stage in range(4):
            name = f"backbone.lateral.{stage}"
            padding = (b.fusion_kernel // 2, 0, 0)
            across = F.conv3d(y, self.p[f"{name}.conv.weight"], stride=(b.alpha, 1, 1), padding=padding)
            x = torch.cat([x, F.relu(self.norm(across, f"{name}.norm"))], dim=1)  # slow first
            x = self.stage(x, "backbone.slow_stages", stage, kernels[stage])
            y = self.stage(y, "backbone.fast_stages", stage, 3)
        return [x, y]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def map_logits(self, slow: Tensor) -> Tensor:
        """(B, 2, T', h, w), from the slow pathway alone."""
        y = F.conv3d(slow, self.p["map_head.conv.weight"], self.p["map_head.conv.bias"], padding=(0, 1, 1))
        return F.conv3d(F.relu(y), self.p["map_head.projection.weight"], self.p["map_head.projection.bias"])


def slow_frames(frames: int, alpha: int) -> list[int]:
    """floor(linspace(0, T - 1, T / alpha)), in whole numbers."""
    count = frames // alpha
    return [i * (frames - 1) // max(1, count - 1) for i in range(count)]


def losses(
    config: Config,
    p: dict[str, Tensor],
    batch: dict[str, Tensor],
    *,
    training: bool,
    rounded: Tensor,
    dropout_seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All losses of a batch, with "loss", and the BatchNorm statistics afterwards.

    `rounded` are the method's clips. A pixel halfway between two levels may be rounded either way, so they must equal
    the transcription's up to that; the losses are then computed from them.
    """
    net, w, size = Network(config, p, training), config.weights, len(batch["seed"])
    samples = [cropped(config, batch, b) if training else whole(batch, b) for b in range(size)]
    distance = (torch.stack([clip for clip, _ in samples]).int() - rounded.int()).abs()
    assert int(distance.max()) <= 1
    assert float(distance.float().mean()) < 5e-4
    maps = net.maps(rounded)
    pooled = torch.cat([m.mean((2, 3, 4)) for m in maps], dim=1)  # slow first
    if training and config.dropout:
        torch.manual_seed(dropout_seed)
        kept = F.dropout(torch.ones_like(pooled), config.dropout) > 0
        pooled = pooled * kept / (1 - config.dropout)  # one mask for all linear heads, none for the map
    out, total = {}, torch.zeros((), dtype=torch.float64)
    if w.action:
        for kind in config.classes:
            logits, labels = net.linear(pooled, f"classifier.{kind}"), batch[f"clip/label/{kind}"]
            each = binary_error if config.action_loss == "binary" else softmax_error
            out[f"action/{kind}"] = mean([each(logits[b], labels[b]) for b in range(size) if counts(config, labels[b])])
            total = total + w.action * out[f"action/{kind}"]
    temperatures = {"ego": (w.ego, config.ego_temperature), "object": (w.object, config.object_temperature)}
    for task, (weight, temperature) in temperatures.items():
        if weight:
            logits, teacher = net.linear(pooled, f"score_heads.{task}"), batch[f"clip/scores/{task}"].double()
            known = [b for b in range(size) if batch[f"clip/scores/{task}/mask"][b]]
            out[task] = mean([distilled(logits[b], teacher[b], temperature) for b in known])
            total = total + weight * out[task]
    if w.hand_map or w.object_map:
        logits = net.map_logits(maps[0])
        known = [b for b in range(size) if batch["clip/boxes/mask"][b]]
        slots = slow_frames(config.frames, config.backbone.alpha if len(maps) == 2 else 1)
        for channel, (name, weight) in enumerate((("hand_map", w.hand_map), ("object_map", w.object_map))):
            errors = []
            for b in known:
                target = painted([samples[b][1][t] for t in slots], channel + 1, logits.shape[-1], config.map_target)
                errors.append(logistic_error(logits[b, channel], target).mean())
            out[name] = mean(errors)
            total = total + weight * out[name]
    return {"loss": total, **out}, net.running


def mean(values: list[Tensor]) -> Tensor:
    """Over the samples that count; 0 if there are none."""
    return torch.stack(values).mean() if values else torch.zeros((), dtype=torch.float64)


def counts(config: Config, labels: Tensor) -> bool:
    """A clip without labels is all negatives in the binary loss and has no softmax target."""
    return config.action_loss == "binary" or bool(labels.any())


def softmax_error(logits: Tensor, labels: Tensor) -> Tensor:
    """-log q, averaged over the labels."""
    shown = labels.nonzero().flatten().tolist()
    return torch.stack([logits.logsumexp(0) - logits[c] for c in shown]).mean()


def logistic_error(logits: Tensor, target: Tensor) -> Tensor:
    """-t log s(x) - (1 - t) log(1 - s(x)) of each element."""
    return -target * F.logsigmoid(logits) - (1 - target) * F.logsigmoid(-logits)


def binary_error(logits: Tensor, labels: Tensor) -> Tensor:
    """BCEWithLogitsLoss: a mean over all classes."""
    return logistic_error(logits, labels.double()).mean()


def distilled(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 sum_c p_c (log p_c - log q_c); released models/losses.py."""
    p, q = (teacher / temperature).softmax(0), (student / temperature).softmax(0)
    return temperature * temperature * sum((p[c] * (p[c].log() - q[c].log()) for c in range(len(p))), torch.zeros(()))


def whole(batch: dict[str, Tensor], b: int) -> tuple[Tensor, Boxes]:
    return batch["clip"][b], batch["clip/boxes"][b].tolist()


def cropped(config: Config, batch: dict[str, Tensor], b: int) -> tuple[Tensor, Boxes]:
    """A training sample and its boxes: scaled to a random side, cropped, flipped, recoloured."""
    seed, crop = batch["seed"][b : b + 1], config.crop_px
    scale, right, down, mirror = noise.uniform(seed, 4, 0)[0].double().tolist()
    low, high = config.short_side_px
    side = low + scale * (high - low)
    left, top, mirrored = right * (side - crop), down * (side - crop), mirror < config.flip
    columns = [left + (crop - 1 - j if mirrored else j) for j in range(crop)]
    rows = [top + i for i in range(crop)]
    frames = [resampled(frame.double(), rows, columns, side) for frame in batch["clip"][b]]
    clip = torch.stack(frames).round()
    if config.recolour:
        draws = noise.uniform(seed, 6, 1)[0].double().tolist()
        for c in range(3):
            gain, shift = 1 + config.recolour * (2 * draws[c] - 1), 100 * config.recolour * (2 * draws[3 + c] - 1)
            clip[:, c] = (gain * clip[:, c] + shift).round().clamp(0, 255)
    boxes = [[moved(box, left, top, side, crop, mirrored=mirrored) for box in f] for f in whole(batch, b)[1]]
    return clip.to(torch.uint8), boxes


def resampled(frame: Tensor, rows: list[float], columns: list[float], side: float) -> Tensor:
    """Pixels of a square frame (3, S, S) scaled to `side`, bilinear between four neighbours."""
    size = frame.shape[-1]

    def neighbours(places: list[float]) -> tuple[list[int], list[int], Tensor]:
        own = [min(max((place + 0.5) * size / side - 0.5, 0), size - 1) for place in places]
        first = [math.floor(v) for v in own]
        share = torch.tensor([v - f for v, f in zip(own, first, strict=True)], dtype=torch.float64)
        return first, [min(f + 1, size - 1) for f in first], share

    (r0, r1, down), (c0, c1, across) = neighbours(rows), neighbours(columns)
    above = frame[:, r0][:, :, c0] * (1 - across) + frame[:, r0][:, :, c1] * across
    below = frame[:, r1][:, :, c0] * (1 - across) + frame[:, r1][:, :, c1] * across
    return above * (1 - down)[:, None] + below * down[:, None]


def moved(box: list[float], left: float, top: float, side: float, crop: int, *, mirrored: bool) -> list[float]:
    """A box in unit coordinates of the crop; kind 0 where nothing of it is left."""
    kind, *edges, score = box
    x1, y1, x2, y2 = (
        min(max(v * side - offset, 0), crop) / crop for v, offset in zip(edges, (left, top) * 2, strict=True)
    )
    if x2 <= x1 or y2 <= y1:
        return [0.0] * 6
    return [kind, *((1 - x2, y1, 1 - x1, y2) if mirrored else (x1, y1, x2, y2)), score]


def painted(frames: Boxes, kind: int, side: int, how: str) -> Tensor:
    """`gen_targets` of the released models/handobj_models.py: both end cells filled, the largest value kept."""
    target = torch.zeros(len(frames), side, side, dtype=torch.float64)
    for t, boxes in enumerate(frames):
        for code, x1, y1, x2, y2, score in boxes:
            if code != kind:
                continue
            first, last = ([min(max(math.floor(v * side), 0), side - 1) for v in at] for at in ((x1, y1), (x2, y2)))
            for row in range(first[1], last[1] + 1):
                for column in range(first[0], last[0] + 1):
                    value = score if how == "soft" else 1.0
                    target[t, row, column] = max(float(target[t, row, column]), value)
    return target


def frame_embeddings(config: Config, p: dict[str, Tensor], video: Tensor) -> Tensor:
    """Each frame in its window: (B, T, 3, H, W) -> (B, T, D'); the last window ends with the recording."""
    net, size, length = Network(config, p, training=False), config.frames, video.shape[1]
    out, seen = [], {}
    for t in range(length):
        start = max(0, min(t // size * size, length - size))
        if start not in seen:
            seen[start] = net.maps(torch.stack([video[:, min(start + i, length - 1)] for i in range(size)], dim=1))
        maps, at = seen[start], t - start
        slot = at // config.backbone.alpha if len(maps) == 2 else at
        out.append(torch.cat([m[:, :, i].mean((2, 3)) for m, i in zip(maps, (slot, at), strict=False)], dim=1))
    return torch.stack(out, dim=1)


def clip_embedding(config: Config, p: dict[str, Tensor], clips: Tensor) -> Tensor:
    """The classifiers' input, of whole clips: the mean of each pathway's map, slow first."""
    return torch.cat([m.mean((2, 3, 4)) for m in Network(config, p, training=False).maps(clips)], dim=1)


def view_scores(config: Config, p: dict[str, Tensor], clips: Tensor, kind: str) -> Tensor:
    """Probabilities of test views: the training crop's pooling window at every place, activation, then the mean."""
    net, side = Network(config, p, training=False), config.crop_px // (4 * math.prod(config.backbone.strides))
    maps = net.maps(clips)
    height, width = maps[0].shape[-2:]
    scores = []
    for top in range(height - side + 1):
        for left in range(width - side + 1):
            parts = [m[..., top : top + side, left : left + side].mean((2, 3, 4)) for m in maps]
            logits = net.linear(torch.cat(parts, dim=1), f"classifier.{kind}")
            scores.append(logits.sigmoid() if config.action_loss == "binary" else logits.softmax(1))
    return torch.stack(scores).mean(0)
