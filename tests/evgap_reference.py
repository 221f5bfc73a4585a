"""EVGAP written out clip by clip: what `Model` is compared with. Uses its weights by name and none of its code."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.methods.evgap.model import Model


def forward(model: Model, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that `model(batch)` returns, from equations 1 to 4 with the README's readings."""
    ego, exo, there = tokens_of(model, batch)
    return losses(model, ego, exo, there) | indicators(ego[-1], exo[-1], there)


def tokens_of(model: Model, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, list[list[bool]]]:
    """Unit class tokens of ego (layers, B, M, D) and exo (layers, B, N, D), and which of the M + N cameras are there.

    Clips are drawn noise for in the order in which the network sees them: ego before exo in step 1, scene by scene in
    step 2.
    """
    M, N = model.config.ego_views, model.config.exo_views
    if model.config.step == "pairs":
        B = len(batch["ego"])
        clips = [*batch["ego"], *batch["exo"]]
        lengths = [_length(batch, name, b) for name in ("ego", "exo") for b in range(B)]
        tokens = _unit(class_tokens(model, torch.stack(clips), lengths))
        return tokens[:, :B, None], tokens[:, B:, None], [[True, True]] * B
    B = len(batch["video"])
    clips = [batch["video"][b, v] for b in range(B) for v in range(M + N)]
    lengths = [_length(batch, "video", b) for b in range(B) for _ in range(M + N)]
    tokens = _unit(class_tokens(model, torch.stack(clips), lengths)).unflatten(1, (B, M + N))
    return tokens[:, :, :M], tokens[:, :, M:], batch["video/mask"].tolist()


def _length(batch: Mapping[str, Tensor], name: str, b: int) -> int:
    key = f"{name}/length"
    frames = batch[name].shape[2 if name == "video" else 1]
    return int(batch[key][b]) if key in batch else frames


def losses(model: Model, ego: Tensor, exo: Tensor, there: list[list[bool]]) -> dict[str, Tensor]:
    """The loss of each layer (equation 1 or 2), and their weighted sum (equations 3 and 4)."""
    log_scale = model.state_dict(keep_vars=True)["logits.log_scale"]
    scale, out = log_scale.exp(), {}
    bias = model.state_dict(keep_vars=True).get("logits.bias", torch.zeros(()))
    depth = len(ego)
    total = torch.zeros((), dtype=torch.float64)
    for number in range(1, depth + 1):
        if number < depth and model.config.auxiliary == 0:
            continue
        a, b = ego[number - 1], exo[number - 1]
        pairs = model.config.step == "pairs"
        loss = _pairs(a[:, 0], b[:, 0], scale) if pairs else _groups(a, b, scale, bias, there)
        out[f"layer{number}"] = loss
        total = total + (1.0 if number == depth else model.config.auxiliary) * loss
    out |= {"loss": total, "scale": scale}
    return out | ({"bias": bias} if "logits.bias" in model.state_dict() else {})


def _pairs(ego: Tensor, exo: Tensor, scale: Tensor) -> Tensor:
    """Equation 1: each ego clip has to find its exo clip among all, and each exo clip its ego clip."""
    terms = []
    for i in range(len(ego)):
        right = (scale * (ego[i] @ exo[i])).exp()
        terms.append(-(right / sum((scale * (ego[i] @ exo[j])).exp() for j in range(len(exo)))).log())
        terms.append(-(right / sum((scale * (ego[j] @ exo[i])).exp() for j in range(len(ego)))).log())
    return torch.stack(terms).mean()


def _groups(ego: Tensor, exo: Tensor, scale: Tensor, bias: Tensor, there: list[list[bool]]) -> Tensor:
    """Equation 2: the mean over every ego and every exo clip of the batch, of cameras that are there."""
    B, M, N = len(ego), ego.shape[1], exo.shape[1]
    total, count = torch.zeros((), dtype=torch.float64), 0
    for i in range(B):
        for j in range(B):
            z = 1 if i == j else -1
            for m in range(M):
                for n in range(N):
                    if there[i][m] and there[j][M + n]:
                        total = total - F.logsigmoid(z * (scale * (ego[i, m] @ exo[j, n]) + bias))
                        count += 1
    return total / count


def indicators(ego: Tensor, exo: Tensor, there: list[list[bool]]) -> dict[str, Tensor]:
    """Similarity within and across scenes, length of the mean vectors, recall at 1 in both directions."""
    M, N = ego.shape[1], exo.shape[1]
    egos = [(i, ego[i, m].detach()) for i in range(len(ego)) for m in range(M) if there[i][m]]
    exos = [(j, exo[j, n].detach()) for j in range(len(exo)) for n in range(N) if there[j][M + n]]
    alike = [float(a @ b) for i, a in egos for j, b in exos if i == j]
    others = [float(a @ b) for i, a in egos for j, b in exos if i != j]

    def found(queries: list[tuple[int, Tensor]], gallery: list[tuple[int, Tensor]]) -> float:
        nearest = [max(gallery, key=lambda item: float(item[1] @ q))[0] for _, q in queries]
        return sum(scene == n for (scene, _), n in zip(queries, nearest, strict=True)) / len(queries)

    return {
        "positive": torch.tensor(sum(alike) / len(alike)),
        "negative": torch.tensor(sum(others) / len(others)),
        "ego_mean": torch.stack([v for _, v in egos]).mean(0).norm(),
        "exo_mean": torch.stack([v for _, v in exos]).mean(0).norm(),
        "R@1": torch.tensor((found(egos, exos) + found(exos, egos)) / 2),
    }


def embed(model: Model, video: Tensor) -> Tensor:
    """Each frame by the window of `frames` frames around it, cut where the recording begins and ends: (B, T, D)."""
    B, T, W = len(video), video.shape[1], model.config.frames
    rows = []
    for b in range(B):
        for t in range(T):
            first = t - W // 2
            window = video[b, max(first, 0) : min(first + W, T)]
            rows.append(_unit(class_tokens(model, window[None], [len(window)]))[-1, 0])
    return torch.stack(rows).unflatten(0, (B, T))


def embed_clip(model: Model, video: Tensor) -> Tensor:
    """The last layer's class token of each clip: (B, D)."""
    return _unit(class_tokens(model, video, [video.shape[1]] * len(video)))[-1]


def class_tokens(model: Model, clips: Tensor, lengths: list[int]) -> Tensor:
    """(n, T, ...) clips, of which the first `lengths` frames count, -> (layers, n, D), normalised by LayerNorm.

    Dropout's factors come from torch's generator, part by part of the network for all clips and all T frames; the last
    layer draws them for its class token alone.
    """
    encoder, (n, T) = model.config.encoder, clips.shape[:2]

    def noise(*shape: int) -> Tensor:
        return F.dropout(torch.ones(n, *shape, dtype=torch.float64), encoder.dropout, training=model.training)

    first, parts = noise(1 + T, encoder.width), []
    for k in range(encoder.depth):
        rows = 1 if k == encoder.depth - 1 else 1 + T
        attention = noise(encoder.heads, rows, 1 + T)
        parts.append((attention, *(noise(rows, width) for width in (encoder.width, encoder.hidden, encoder.width))))
    features = frame_features(model, clips)
    found = []
    for c in range(n):
        own = [[factors[c] for factors in part] for part in parts]
        found.append(_one_clip(model, features[c, : lengths[c]], first[c], own))
    return torch.stack(found, 1)


def _one_clip(model: Model, frames: Tensor, first: Tensor, noise: list[list[Tensor]]) -> Tensor:
    """(L, F) -> (layers, D)."""
    weights, encoder, L = model.state_dict(keep_vars=True), model.config.encoder, len(frames)
    table = weights["encoder.positions"]
    rows = [weights["encoder.token"] + table[0]]
    for t in range(L):
        projected = weights["encoder.project.weight"] @ frames[t] + weights["encoder.project.bias"]
        rows.append(projected + _position(table[1:], t, L))
    x, tokens = torch.stack(rows) * first[: 1 + L], []
    for k, (on_attention, on_attended, on_hidden, on_fed) in enumerate(noise):
        name, S = f"encoder.layers.{k}", min(len(on_attended), 1 + L)
        seen = _layer_norm(weights, f"{name}.norm1", x) if encoder.norm == "pre" else x
        attended = _attended(weights, f"{name}.attention", seen, on_attention[:, :S, : 1 + L])
        x = x[:S] + attended * on_attended[:S]
        if encoder.norm == "post":
            x = _layer_norm(weights, f"{name}.norm1", x)
        seen = _layer_norm(weights, f"{name}.norm2", x) if encoder.norm == "pre" else x
        hidden = _linear(weights, f"{name}.feed.0", seen).clamp(min=0) * on_hidden[:S]
        x = x + _linear(weights, f"{name}.feed.3", hidden) * on_fed[:S]
        if encoder.norm == "post":
            x = _layer_norm(weights, f"{name}.norm2", x)
        tokens.append(_layer_norm(weights, f"encoder.norms.{k}", x[0]) if encoder.norm == "pre" else x[0])
    return torch.stack(tokens)


def _attended(weights: Mapping[str, Tensor], name: str, x: Tensor, noise: Tensor) -> Tensor:
    """Head by head: x (S, D) and noise (heads, queries, S) -> (queries, D)."""
    heads, queries, _ = noise.shape
    D = x.shape[1]
    q, both = _linear(weights, f"{name}.query", x), _linear(weights, f"{name}.key_value", x)
    k, v, out = both[:, :D], both[:, D:], []
    for h in range(heads):
        part = slice(h * D // heads, (h + 1) * D // heads)
        share = (q[:queries, part] @ k[:, part].T / math.sqrt(D // heads)).softmax(-1)
        out.append((share * noise[h]) @ v[:, part])
    return _linear(weights, f"{name}.out", torch.cat(out, 1))


def _position(table: Tensor, t: int, length: int) -> Tensor:
    """The table's rows stand at the middles of equal parts of the clip: read at the middle of frame t, linearly."""
    place = (t + 0.5) / length * len(table) - 0.5
    place = min(max(place, 0.0), len(table) - 1.0)
    low = math.floor(place)
    high = min(low + 1, len(table) - 1)
    return table[low] * (low + 1 - place) + table[high] * (place - low)


def frame_features(model: Model, video: Tensor) -> Tensor:
    """What the encoder reads of each frame, float64 (n, T, F)."""
    if video.is_floating_point():
        return video.double().flatten(2)
    base, grid = model.config.base, model.config.base_grid
    weights = {name.partition(".")[2]: w for name, w in model.state_dict().items() if name.startswith("base.")}
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (base.mean, base.std))
    pixels = (video.double() / 255 - mean) / std
    frames = pixels.flatten(0, 1)
    assert model.base is not None
    network = model.base.get_submodule(model.base.name)
    if grid is None:
        return network.forward_features(frames).mean((2, 3)).unflatten(0, video.shape[:2])
    x = F.conv2d(frames, weights["vit.patch_embed.proj.weight"], weights["vit.patch_embed.proj.bias"], stride=16)
    h, w = x.shape[2:]
    x = torch.cat([weights["vit.cls_token"].expand(len(x), 1, -1), x.flatten(2).mT], 1) + weights["vit.pos_embed"]
    for block in network.blocks:
        x = block(x)
    patches = x[:, 1:].unflatten(1, (h, w))
    cells = []
    for i in range(grid):
        for j in range(grid):
            rows, columns = slice(i * h // grid, (i + 1) * h // grid), slice(j * w // grid, (j + 1) * w // grid)
            cells.append(patches[:, rows, columns].mean((1, 2)))
    return torch.cat(cells, 1).unflatten(0, video.shape[:2])


def _linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _layer_norm(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt()
