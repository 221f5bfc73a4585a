"""Layers, tokens, masks and weights of MV2MAE's plain reference, for one clip at a time in float64."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor, nn

from crossview.methods import noise
from crossview.methods.mv2mae.config import Config

Parameters = dict[str, Tensor]
MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)


def parameters(model: nn.Module) -> Parameters:
    """Copies in float64, by name, to differentiate by."""
    return {name: value.detach().double().requires_grad_() for name, value in model.named_parameters()}


# Layers


def norm(p: Parameters, at: str, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return x * p[f"{at}.weight"] + p[f"{at}.bias"]


def linear(p: Parameters, at: str, x: Tensor) -> Tensor:
    return x @ p[f"{at}.weight"].T + p[f"{at}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k' / sqrt(d)) v, head by head: (L, D), (S, D), (S, D) -> (L, D)."""
    out = []
    for head in range(heads):
        d = q.shape[1] // heads
        part = slice(head * d, (head + 1) * d)
        e = (q[:, part] @ k[:, part].T / math.sqrt(d)).exp()
        out.append(e / e.sum(1, keepdim=True) @ v[:, part])
    return torch.cat(out, dim=1)


def self_attention(p: Parameters, at: str, x: Tensor, heads: int) -> Tensor:
    """Biases for queries and values alone."""
    wq, wk, wv = p[f"{at}.qkv.weight"].chunk(3)
    return linear(p, f"{at}.proj", attend(x @ wq.T + p[f"{at}.q_bias"], x @ wk.T, x @ wv.T + p[f"{at}.v_bias"], heads))


def mlp(p: Parameters, at: str, x: Tensor) -> Tensor:
    x = linear(p, f"{at}.0", x)
    return linear(p, f"{at}.2", x * (1 + torch.erf(x / math.sqrt(2))) / 2)


def block(p: Parameters, at: str, x: Tensor, heads: int, kept: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Pre-norm residual attention and MLP; `kept` scales the two branches."""
    x = x + kept[0] * self_attention(p, f"{at}.attn", norm(p, f"{at}.norm1", x), heads)
    return x + kept[1] * mlp(p, f"{at}.mlp", norm(p, f"{at}.norm2", x))


def cross_block(p: Parameters, at: str, x: Tensor, memory: Tensor, heads: int) -> Tensor:
    x = x + self_attention(p, f"{at}.attn", norm(p, f"{at}.norm1", x), heads)
    memory = norm(p, f"{at}.norm_memory", memory)
    q = linear(p, f"{at}.cross.q", norm(p, f"{at}.norm2", x))
    k, v = linear(p, f"{at}.cross.k", memory), linear(p, f"{at}.cross.v", memory)
    x = x + linear(p, f"{at}.cross.proj", attend(q, k, v, heads))
    return x + mlp(p, f"{at}.mlp", norm(p, f"{at}.norm3", x))


# Tokens


def shape(config: Config) -> tuple[int, int]:
    """Tokens in time, and along a side."""
    return config.frames // config.tubelet, config.size_px // config.patch_px


def cut(config: Config, clip: Tensor) -> Tensor:
    """(T, 3, H, W) -> (N, P): by time, row, column, and within a token by frame, row, column, colour."""
    (times, side), f, s = shape(config), config.tubelet, config.patch_px
    return torch.stack(
        [
            clip[t * f : (t + 1) * f, :, y * s : (y + 1) * s, x * s : (x + 1) * s].permute(0, 2, 3, 1).flatten()
            for t in range(times)
            for y in range(side)
            for x in range(side)
        ]
    )


def tokens(config: Config, clip: Tensor) -> Tensor:
    return cut(config, (clip.double() / 255 - MEAN) / STD)


@cache
def code(config: Config, width: int, token: int) -> Tensor:
    """Sines, then cosines, of a token's number; or of its time, row and column, with zeros up to the width."""
    if config.positions == "index":
        angles = [token / 10_000 ** (2 * i / width) for i in range(width // 2)]
    else:
        times, side = shape(config)
        places = ((token // side**2, times), (token // side % side, side), (token % side, side))
        waves = width // 6  # half-waves over the axis: from 1 to its number of tokens, in equal ratios
        angles = [
            math.pi * (i + 0.5) / n * max(2, n) ** (k / max(1, waves - 1)) for i, n in places for k in range(waves)
        ]
    values = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(values + [0.0] * (width - len(values)), dtype=torch.float64)


def codes(config: Config, width: int, places: list[int]) -> Tensor:
    return torch.stack([code(config, width, i) for i in places])


def mask(config: Config, seed: Tensor, stream: int) -> tuple[list[int], list[int]]:
    """Hidden and visible tokens: those with the smallest of N random numbers are hidden."""
    times, side = shape(config)
    tube = config.masking.kind == "tube"
    count = side**2 if tube else times * side**2
    draws = noise.uniform(seed[None], count, stream)[0].tolist()
    smallest = sorted(range(count), key=draws.__getitem__)[: int(Fraction(str(config.masking.ratio)) * count)]
    hidden = [i for i in range(times * side**2) if (i % count if tube else i) in smallest]
    return hidden, [i for i in range(times * side**2) if i not in hidden]


def target(config: Config, values: Tensor) -> Tensor:
    """What a token's prediction is compared with: (P,) -> (P,)."""
    if config.target_norm == "none":
        return values
    colours = [slice(c, None, 3) for c in range(3)] if config.target_norm == "channel" else [slice(None)]
    out = torch.empty_like(values)
    for part in colours:
        centred = values[part] - values[part].mean()
        out[part] = centred / ((centred.square().sum() / (len(centred) - 1)).sqrt() + 1e-6)
    return out


def shares(config: Config, clip: Tensor, among: list[int]) -> Tensor:
    """Equation 2's softmax over the tokens `among`, (n,): shares of sum 1."""
    motion, x = config.motion, clip.double()
    if motion.scale != "0-255":
        x = x / 255
    if motion.scale == "standardised":
        x = x / STD
    steps = [(x[t] - x[t - 1]).abs() for t in range(1, len(x))]
    first = steps[0] if motion.first_frame == "copy" else torch.zeros_like(steps[0])
    square = cut(config, torch.stack([first, *steps])).square()
    length = (square.mean(1) if motion.norm == "rms" else square.sum(1)).sqrt()
    e = (length[among] / (motion.temperature or math.inf)).exp()
    return e / e.sum()
