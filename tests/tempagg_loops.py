"""TempAgg in plain loops over numbers, for one sample in eval mode, from its description: slow, and obvious."""

from __future__ import annotations

import math
from typing import Any

Rows = list[list[float]]
"""Snippets or channels by their features."""


def snippets(frames: Rows, shown: list[bool], length: int, count: int) -> list[list[float] | None]:
    """Maxima over equal parts of the last `length` + 1 frames, both ends part of each; None for one without a frame."""
    last = len(frames) - 1
    out: list[list[float] | None] = []
    for k in range(count):
        first, stop = last - length + length * k // count, last - length + length * (k + 1) // count
        there = [frames[t] for t in range(first, stop + 1) if shown[t]]
        out.append([max(column) for column in zip(*there, strict=True)] if there else None)
    return out


def filled(found: list[list[float] | None]) -> Rows:
    """Each empty snippet as the nearest that is not, the later of two; some are not empty."""
    there = [k for k, of in enumerate(found) if of is not None]
    nearest = [min(there, key=lambda j: (abs(j - k), -j)) for k in range(len(found))]
    return [found[j] for j in nearest]  # type: ignore[misc]


def linear(weights: dict[str, Any], name: str, x: list[float]) -> list[float]:
    """W x + b."""
    W, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return [b[i] + sum(W[i][j] * x[j] for j in range(len(x))) for i in range(len(b))]


def mixed(weights: dict[str, Any], name: str, x: Rows) -> Rows:
    """A 1x1 convolution over snippets: each feature by itself."""
    columns = [linear(weights, name, list(column)) for column in zip(*x, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def non_local(weights: dict[str, Any], name: str, x: Rows, y: Rows) -> Rows:
    """Snippets x that attend to snippets y, with the residual and the ReLU after it."""
    theta, phi, g = (mixed(weights, f"{name}.{part}", of) for part, of in (("theta", x), ("phi", y), ("values", y)))
    latent, D = len(theta), len(theta[0])
    attended = []
    for a in range(latent):
        logits = [sum(theta[a][d] * phi[b][d] for d in range(D)) / math.sqrt(latent) for b in range(latent)]
        powers = [math.exp(logit - max(logits)) for logit in logits]
        shares = [power / sum(powers) for power in powers]
        attended.append([sum(shares[b] * g[b][d] for b in range(latent)) for d in range(D)])
    values = [value for row in attended for value in row]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-5)
    scale, shift = weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"]
    normed = [
        [max(0.0, (attended[c][d] - mean) / spread * scale[c][d] + shift[c][d]) for d in range(D)]
        for c in range(latent)
    ]
    back = mixed(weights, f"{name}.back", normed)
    return [[max(0.0, x[k][d] + back[k][d]) for d in range(D)] for k in range(len(x))]


def two_layers(weights: dict[str, Any], name: str, x: Rows) -> list[float]:
    """Linear, ReLU, linear, of all snippets one after the other."""
    flat = [value for row in x for value in row]
    hidden = [max(0.0, value) for value in linear(weights, f"{name}.0", flat)]
    return linear(weights, f"{name}.3", hidden)


def logits(weights: dict[str, Any], spanning: list[Rows], recent: list[Rows], *, attention: bool) -> list[list[float]]:
    """Of each aggregate block, over all kinds of classes in a row."""
    out = []
    for t, window in enumerate(recent):
        joined: list[float] = []
        contexts = []
        for s, scale in enumerate(spanning):
            name = f"tabs.{t}.couplings.{s}"
            past = non_local(weights, f"{name}.past_attention", scale, scale) if attention else scale
            coupled = non_local(weights, f"{name}.coupling", window, past) + window
            joined += two_layers(weights, f"{name}.recent", coupled)
            contexts.append(two_layers(weights, f"{name}.context", past + coupled))
        context = [max(column) for column in zip(*contexts, strict=True)]
        out.append(linear(weights, f"tabs.{t}.classify", linear(weights, f"tabs.{t}.recent", joined) + context))
    return out
