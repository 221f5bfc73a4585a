"""EVGAP's loss in plain loops: a pass per camera, attention as matrices, a loss per layer and pair of cameras."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.methods.evgap.config import Config, Encoder
from crossview.methods.evgap.encoder import ClipEncoder, Layer
from crossview.methods.evgap.model import Model


def sizes() -> dict[str, Callable[[], tuple[Config, int]]]:
    """Configurations and batch sizes to time, by name."""
    return {"laptop": _laptop, "paper": _paper}


def _laptop() -> tuple[Config, int]:
    encoder = Encoder(width=128, depth=4, heads=4, hidden=512, dropout=0.0)
    return Config(step="groups", feature_width=512, encoder=encoder, ego_views=2, exo_views=4), 10


def _paper() -> tuple[Config, int]:
    return Config(step="groups", encoder=Encoder(dropout=0.0)), 60


def reference(model: Model, batch: dict[str, Tensor]) -> Tensor:
    """The same loss as `model(batch)["loss"]`, with the model's weights and without dropout."""
    if model.config.step == "pairs":
        ego = [_tokens(model, batch["ego"], batch["ego/length"])]
        exo = [_tokens(model, batch["exo"], batch["exo/length"])]
    else:
        cameras = [_tokens(model, clips, batch["video/length"]) for clips in batch["video"].unbind(1)]
        ego, exo = cameras[: model.config.ego_views], cameras[model.config.ego_views :]
    total = torch.zeros((), device=ego[0][0].device)
    for layer in range(len(model.encoder.layers)):
        weight = 1.0 if layer == len(model.encoder.layers) - 1 else model.config.auxiliary
        if model.config.step == "pairs":
            loss = _contrastive(model, ego[0][layer], exo[0][layer])
        else:
            loss = _grouped(model, [e[layer] for e in ego], [x[layer] for x in exo], batch["video/mask"])
        total = total + weight * loss
    return total


def _contrastive(model: Model, ego: Tensor, exo: Tensor) -> Tensor:
    target = torch.arange(len(ego), device=ego.device)
    logits = model.logits.scale() * ego @ exo.T
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def _grouped(model: Model, ego: list[Tensor], exo: list[Tensor], mask: Tensor) -> Tensor:
    """The sigmoid loss of each pair of cameras, one after another."""
    B = len(ego[0])
    signs = 2 * torch.eye(B, device=mask.device) - 1
    total, count = torch.zeros((), device=mask.device), torch.zeros((), device=mask.device)
    for m, a in enumerate(ego):
        for n, b in enumerate(exo):
            logits = model.logits.scale() * a @ b.T
            if model.logits.bias is not None:
                logits = logits + model.logits.bias
            there = (mask[:, m, None] & mask[None, :, len(ego) + n]).float()
            total = total - (F.logsigmoid(signs * logits) * there).sum()
            count = count + there.sum()
    return total / count


def _tokens(model: Model, clips: Tensor, length: Tensor) -> list[Tensor]:
    """Unit class tokens of every layer for one camera's clips (B, T, N, D)."""
    encoder = model.encoder
    x = encoder.project(clips.flatten(2).float())
    x = x + torch.stack([_positions(encoder, x.shape[1], int(n)) for n in length])
    first = (encoder.token + encoder.positions[0]).expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1)
    hidden = torch.arange(x.shape[1], device=x.device) > length[:, None]
    tokens = []
    for layer, norm in zip(encoder.layers, encoder.norms, strict=True):
        x = _layer(layer, x, hidden)  # type: ignore[arg-type]
        tokens.append(F.normalize(norm(x[:, 0]), dim=-1))
    return tokens


def _positions(encoder: ClipEncoder, frames: int, length: int) -> Tensor:
    """One clip's positions, frame by frame, read between the two nearest rows of the table."""
    table = encoder.positions[1:]
    rows = []
    for t in range(frames):
        place = min(max((t + 0.5) / length * len(table) - 0.5, 0.0), len(table) - 1.0)
        low = math.floor(place)
        high = min(low + 1, len(table) - 1)
        rows.append((1 - (place - low)) * table[low] + (place - low) * table[high])
    return torch.stack(rows)


def _layer(layer: Layer, x: Tensor, hidden: Tensor) -> Tensor:
    """Every token of the layer."""
    if layer.pre:
        x = x + _attention(layer, layer.norm1(x), hidden)
        return x + layer.feed(layer.norm2(x))
    x = layer.norm1(x + _attention(layer, x, hidden))
    return layer.norm2(x + layer.feed(x))


def _attention(layer: Layer, x: Tensor, hidden: Tensor) -> Tensor:
    """Head by head, with the whole matrix of weights in memory."""
    attention = layer.attention
    q, (k, v) = attention.query(x), attention.key_value(x).chunk(2, dim=-1)
    width = x.shape[-1] // attention.heads
    heads = []
    for h in range(attention.heads):
        part = slice(h * width, (h + 1) * width)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(width)
        weights = scores.masked_fill(hidden[:, None], -torch.inf).softmax(-1)
        heads.append(weights @ v[..., part])
    return attention.out(torch.cat(heads, dim=-1))
