"""MV2MAE written out in float64, clip by clip and token by token: what the assembled model has to equal.

Written from equations 1 and 2 of the paper, VideoMAE's encoder and decoder, and CroCo's decoder block. It shares with
the model only its parameters, the options, and the platform's `noise.uniform`, `multi_scale_crop` and `crop_video`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from mv2mae_reference_parts import (
    Parameters,
    block,
    codes,
    cross_block,
    linear,
    mask,
    norm,
    shape,
    shares,
    target,
    tokens,
)
from torch import Tensor

from crossview.downstream.recognition.config import Config as Recognition
from crossview.methods.augment import crop_video, multi_scale_crop
from crossview.methods.mv2mae.config import Config, Transformer

# Pre-training


def encode(
    p: Parameters, config: Config, values: Tensor, places: list[int], kept: list[tuple[float, float]] | None = None
) -> Tensor:
    """One clip's tokens (n, P) at `places` -> (n, D)."""
    x = linear(p, "encoder.embed", values) + codes(config, config.encoder.width, places)
    for i in range(config.encoder.depth):
        x = block(p, f"encoder.blocks.{i}", x, config.encoder.heads, kept[i] if kept else (1.0, 1.0))
    return norm(p, "encoder.norm", x) if "encoder.norm.weight" in p else x  # left out in fine-tuning


class View:
    """One clip, masked and encoded."""

    def __init__(self, p: Parameters, config: Config, clip: Tensor, seed: Tensor, stream: int) -> None:
        self.hidden, self.visible = mask(config, seed, stream)
        whole = tokens(config, clip)
        self.latents = encode(p, config, whole[self.visible], self.visible)
        self.target = torch.stack([target(config, whole[i]) for i in self.hidden])
        everywhere = list(range(len(whole)))
        among = everywhere if config.motion.over == "all" else self.hidden
        share = shares(config, clip, among)
        self.effective = 1 / share.square().sum()
        scale = len(among) if config.motion.rescale or config.motion.temperature is None else 1
        self.weights = torch.stack([share[among.index(i)] * scale for i in self.hidden])


def decode(p: Parameters, config: Config, own: View, source: View | None) -> Tensor:
    """A view's hidden tokens from its own visible ones and, where there is a source, from the source's: (M, P)."""
    at = "same_decoder" if source is None else "cross_decoder"
    stack: Transformer = getattr(config, at)
    visible = own.latents @ p[f"{at}.project.weight"].T
    everywhere = range(len(own.hidden) + len(own.visible))
    rows = [visible[own.visible.index(i)] if i in own.visible else p[f"{at}.mask_token"] for i in everywhere]
    x = torch.stack(rows) + codes(config, stack.width, list(everywhere))
    for i in range(stack.depth):
        if source is None:
            x = block(p, f"{at}.blocks.{i}", x, stack.heads)
        else:
            memory = source.latents @ p[f"{at}.project.weight"].T + codes(config, stack.width, source.visible)
            x = cross_block(p, f"{at}.blocks.{i}", x, memory, stack.heads)
    return linear(p, f"{at}.head", norm(p, f"{at}.norm", x))[own.hidden]


def error(prediction: Tensor, view: View, weights: Tensor) -> Tensor:
    """Equations 1 and 2, the square being a mean over a token's values."""
    return sum(w * (a - b).square().mean() for w, a, b in zip(weights, prediction, view.target, strict=True)) / len(
        weights
    )


def views(p: Parameters, config: Config, batch: dict[str, Tensor], *, training: bool) -> list[tuple[View, View]]:
    """Source and target of every sample. Masks draw from streams 0 and 1, crops from 2 and 3, the flip from 2."""
    pairs = []
    for b, seed in enumerate(batch["seed"]):
        clips = [batch["source"][b], batch["target"][b]]
        if training:
            clips = [cropped(config, clip, seed, 2 + k) for k, clip in enumerate(clips)]
        pairs.append((View(p, config, clips[0], seed, 0), View(p, config, clips[1], seed, 1)))
    return pairs


def cropped(config: Config, clip: Tensor, seed: Tensor, stream: int) -> Tensor:
    if not config.crop_scales and not config.flip:
        return clip
    scales = config.crop_scales or (1.0,)
    crop = multi_scale_crop(seed[None], scales=scales, stream=stream)
    mirrored = multi_scale_crop(seed[None], scales=scales, flip=config.flip, stream=2).flip
    return crop_video(clip[None], replace(crop, flip=mirrored), config.size_px)[0]


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def cross_error(p: Parameters, config: Config, pairs: list[tuple[View, View]], shift: int, weighted: bool) -> Tensor:
    """Targets from the sources `shift` samples before them; with swapped roles also sources from targets."""
    ways = []
    for own, other in ((1, 0), (0, 1))[: 2 if config.swap_roles else 1]:
        for b, pair in enumerate(pairs):
            view, source = pair[own], pairs[(b - shift) % len(pairs)][other]
            weights = view.weights if weighted else torch.ones_like(view.weights)
            ways.append(error(decode(p, config, view, source), view, weights))
    return mean(ways)


def losses(p: Parameters, config: Config, batch: dict[str, Tensor], *, training: bool) -> dict[str, Tensor]:
    """Everything that pre-training's `forward` returns."""
    pairs, factors = views(p, config, batch, training=training), config.weights
    out = {}
    for side, name in enumerate(("source", "target")):
        if getattr(factors, f"same_{name}"):
            own = [pair[side] for pair in pairs]
            out[f"same/{name}"] = mean([error(decode(p, config, v, None), v, v.weights) for v in own])
    if factors.cross:
        out["cross"] = cross_error(p, config, pairs, 0, weighted=True)
    scales = {"same/source": factors.same_source, "same/target": factors.same_target, "cross": factors.cross}
    total = sum(scales[name] * value for name, value in out.items())
    return {"loss": total, **out, "effective_tokens": mean([v.effective for pair in pairs for v in pair])}


def measures(p: Parameters, config: Config, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gains of pre-training: over the mean of the hidden tokens, and over the source of the sample before."""
    pairs, out = views(p, config, batch, training=False), {}
    for side, name in enumerate(("source", "target")):
        if getattr(config.weights, f"same_{name}"):
            own = [pair[side] for pair in pairs]
            ours = mean([(decode(p, config, v, None) - v.target).square().mean() for v in own])
            out[f"same_view_gain/{name}"] = 1 - ours / mean([v.target.var(correction=0) for v in own])
    if config.weights.cross:
        moving = replace(config, motion=replace(config.motion, temperature=config.motion.temperature or 60.0))
        for name, weighted in (("cross_view_gain", False), ("cross_view_gain/moving", True)):
            seen = views(p, moving, batch, training=False)
            right, wrong = (cross_error(p, moving, seen, shift, weighted) for shift in (0, 1))
            out[name] = 1 - right / wrong
    return out


# Fine-tuning and embeddings


def classify(
    p: Parameters, config: Config, options: Recognition, batch: dict[str, Tensor], *, training: bool
) -> dict[str, Tensor]:
    """Fine-tuning's loss and accuracy; random branches and features are drawn as PyTorch would, layer by layer."""
    depth, clips = config.encoder.depth, batch["video"]
    kept = [[(1.0, 1.0)] * depth for _ in clips]
    dropped = torch.ones(len(clips), config.encoder.width)
    if training:
        for i in range(depth):
            chance = options.drop_path * i / (depth - 1)
            if chance:
                draws = [torch.rand(len(clips), 1, 1).flatten().tolist() for _ in range(2)]
                for b, (first, second) in enumerate(zip(*draws, strict=True)):
                    kept[b][i] = ((first >= chance) / (1 - chance), (second >= chance) / (1 - chance))
        dropped = torch.nn.functional.dropout(dropped, options.dropout)
    found, right = [], []
    for b, clip in enumerate(clips):
        values = tokens(config, clip)
        pooled = norm(p, "heads.norm", encode(p, config, values, list(range(len(values))), kept[b]).mean(0))
        logits = linear(p, "heads.linears.action", pooled * dropped[b])
        label = batch["video/label/action"][b].double()
        wanted = (1 - options.label_smoothing) * label / label.sum() + options.label_smoothing / len(label)
        found.append(-(wanted * (logits - logits.exp().sum().log())).sum())
        right.append(label[int(logits.argmax())])
    return {"loss": mean(found), "action": mean(found), "accuracy": mean(right)}


def embed_clip(p: Parameters, config: Config, clip: Tensor) -> Tensor:
    """(T, 3, H, W) -> (D,)."""
    return latents(p, config, clip).mean(0)


def embed(p: Parameters, config: Config, recording: Tensor) -> Tensor:
    """Windows at even distances that cover the recording, and each frame between the tubelets' times: -> (L, D)."""
    L, stride, span = len(recording), config.embed_stride, config.frames * config.embed_stride
    count = -(-L // span)
    starts = [round(i * max(0, L - span) / max(1, count - 1)) for i in range(count)]
    windows = []
    for start in starts:
        frames = [start + stride * i for i in range(config.frames)]
        seen = latents(p, config, torch.stack([recording[min(i, L - 1)] for i in frames]))
        times = shape(config)[0]
        vectors = [seen[k * len(seen) // times :][: len(seen) // times].mean(0) for k in range(times)]
        whens = [sum(frames[k * config.tubelet :][: config.tubelet]) / config.tubelet for k in range(times)]
        windows.append((vectors, whens))
    return torch.stack(
        [
            torch.stack(
                [between(i, *w) for start, w in zip(starts, windows, strict=True) if start <= i < start + span]
            ).mean(0)
            for i in range(L)
        ]
    )


def between(when: float, vectors: list[Tensor], whens: list[float]) -> Tensor:
    """Linear between neighbours, constant beyond the first and last."""
    if when <= whens[0]:
        return vectors[0]
    for k in range(len(whens) - 1):
        if when <= whens[k + 1]:
            share = (when - whens[k]) / (whens[k + 1] - whens[k])
            return (1 - share) * vectors[k] + share * vectors[k + 1]
    return vectors[-1]


def latents(p: Parameters, config: Config, clip: Tensor) -> Tensor:
    """Of the whole clip, (N, D)."""
    values = tokens(config, clip)
    return encode(p, config, values, list(range(len(values))))
