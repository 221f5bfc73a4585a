"""MV2MAE's loss in plain loops: one encoder pass per view, tokens picked one by one, attention written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.methods import noise
from crossview.methods.mv2mae.config import Config, Transformer, presets
from crossview.methods.mv2mae.model import Model
from crossview.methods.mv2mae.tokens import MEAN, STD


def sizes() -> dict[str, Callable[[], tuple[Config, int]]]:
    """Configurations and batch sizes to time, by name; without random crops, which stand outside the loss."""
    return {"laptop": _laptop, "paper": _paper}


def _laptop() -> tuple[Config, int]:
    decoder = Transformer(width=96, depth=2, heads=3)
    encoder = Transformer(width=192, depth=4, heads=3)
    return Config(encoder=encoder, same_decoder=decoder, cross_decoder=decoder, crop_scales=()), 4


def _paper() -> tuple[Config, int]:
    config = presets()["ntu60"]().method
    assert isinstance(config, Config)
    return replace(config, crop_scales=()), 16


def reference(model: Model, batch: dict[str, Tensor]) -> Tensor:
    """The same loss as `model(batch)["loss"]`, with the model's weights; for default masks and motion."""
    config = model.config
    views = {name: _view(model, batch[name], batch["seed"], k) for k, name in enumerate(("source", "target"))}
    total = torch.zeros((), device=batch["seed"].device)
    for name, factor in (("source", config.weights.same_source), ("target", config.weights.same_target)):
        if factor:
            view = views[name]
            x = _sequence(model.same_decoder, view)
            for block in model.same_decoder.blocks:  # type: ignore[union-attr]
                x = _block(block, x)
            total = total + factor * _error(model.same_decoder, x, view)
    if config.weights.cross:
        decoder: Any = model.cross_decoder
        source, target = views["source"], views["target"]
        memory = F.linear(source["latents"], decoder.project.weight) + _places(decoder, source["visible"])
        x = _sequence(decoder, target)
        for block in decoder.blocks:
            x = x + _self_attention(block.attn, block.norm1(x))
            x = x + _cross_attention(block.cross, block.norm2(x), block.norm_memory(memory))
            x = x + block.mlp(block.norm3(x))
        total = total + config.weights.cross * _error(decoder, x, target)
    return total


def _view(model: Model, video: Tensor, seed: Tensor, stream: int) -> dict[str, Any]:
    """Tokens, masks, weights and latents of one view; the encoder is run for it alone."""
    config = model.config
    tokens = torch.stack([_tokens(config, clip) for clip in video])
    hidden, visible = [], []
    for b in range(len(seed)):
        order = noise.uniform(seed[b : b + 1], config.tokens, stream)[0].argsort(stable=True).tolist()
        count = config.masking.count(*config.grid)
        hidden.append(sorted(order[:count]))
        visible.append(sorted(order[count:]))
    x = model.encoder.embed(_picked(tokens, visible)) + _places(model.encoder, visible)
    for block in model.encoder.blocks:
        x = _block(block, x)
    weights = torch.stack([_weights(config, clip) for clip in video])
    return {
        "latents": model.encoder.norm(x),
        "hidden": hidden,
        "visible": visible,
        "target": _picked(tokens, hidden),
        "weights": torch.stack([torch.stack([w[i] for i in index]) for w, index in zip(weights, hidden, strict=True)]),
    }


def _tokens(config: Config, clip: Tensor) -> Tensor:
    """Each tubelet cut out of a clip, (N, P)."""
    mean, std = (torch.tensor(v, device=clip.device).view(3, 1, 1) for v in (MEAN, STD))
    pixels = (clip.float() / 255 - mean) / std
    return torch.stack([cut.permute(0, 2, 3, 1).flatten() for cut in _tubelets(config, pixels)])


def _weights(config: Config, clip: Tensor) -> Tensor:
    """Softmax of each tubelet's root mean square difference on 0-255, times their number: (N,)."""
    frames = clip.float()
    changes = [frames[1] - frames[0]] + [frames[t] - frames[t - 1] for t in range(1, len(frames))]
    norms = torch.stack([cut.square().mean().sqrt() for cut in _tubelets(config, torch.stack(changes))])
    assert config.motion.temperature is not None
    return F.softmax(norms / config.motion.temperature, dim=0) * config.tokens


def _tubelets(config: Config, video: Tensor) -> list[Tensor]:
    p, side = config.patch_px, config.size_px // config.patch_px
    return [
        video[t * config.tubelet : (t + 1) * config.tubelet, :, y * p : (y + 1) * p, x * p : (x + 1) * p]
        for t in range(config.grid[0])
        for y in range(side)
        for x in range(side)
    ]


def _picked(tokens: Tensor, index: list[list[int]]) -> Tensor:
    return torch.stack([torch.stack([row[i] for i in chosen]) for row, chosen in zip(tokens, index, strict=True)])


def _places(network: Any, index: list[list[int]]) -> Tensor:
    return torch.stack([torch.stack([network.positions[i] for i in chosen]) for chosen in index])


def _sequence(decoder: Any, view: dict[str, Any]) -> Tensor:
    """All tokens of each clip in the grid's order, one by one."""
    projected = F.linear(view["latents"], decoder.project.weight)
    clips = []
    for latents, visible in zip(projected, view["visible"], strict=True):
        place = {i: k for k, i in enumerate(visible)}
        rows = [latents[place[i]] if i in place else decoder.mask_token for i in range(len(decoder.positions))]
        clips.append(torch.stack(rows) + decoder.positions)
    return torch.stack(clips)


def _error(decoder: Any, x: Tensor, view: dict[str, Any]) -> Tensor:
    """Every token is predicted, the hidden ones are picked and weighed, clip by clip."""
    predictions = decoder.head(decoder.norm(x))
    errors = []
    for b, hidden in enumerate(view["hidden"]):
        wrong = torch.stack([predictions[b, i] for i in hidden]) - view["target"][b]
        errors.append((wrong.square().mean(1) * view["weights"][b]).sum() / len(hidden))
    return torch.stack(errors).mean()


def _block(block: Any, x: Tensor) -> Tensor:
    x = x + _self_attention(block.attn, block.norm1(x))
    mixed: Tensor = x + block.mlp(block.norm2(x))
    return mixed


def _self_attention(layer: Any, x: Tensor) -> Tensor:
    q, k, v = F.linear(x, layer.qkv.weight).chunk(3, dim=-1)
    return layer.proj(_attend(q + layer.q_bias, k, v + layer.v_bias, layer.heads))


def _cross_attention(layer: Any, x: Tensor, memory: Tensor) -> Tensor:
    return layer.proj(_attend(layer.q(x), layer.k(memory), layer.v(memory), layer.heads))


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The whole map is written out, scaled, softmaxed and multiplied: (B, L, D), twice (B, S, D) -> (B, L, D)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (attention @ v).transpose(1, 2).flatten(2)
