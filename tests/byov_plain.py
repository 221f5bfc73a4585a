"""BYOV written out sample by sample, view by view and frame by frame, in float64.

It shares nothing with `methods/byov` but the names of the parameters and the streams of random numbers. Section
numbers are those of arXiv 2503.19706; where the paper is silent or the released code differs, the comment says whose
rule it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crossview.methods import noise
from crossview.methods.byov.config import Config
from crossview.methods.byov.model import Model

STREAMS = {("msm", "ego"): 0, ("msm", "exo"): 1, ("mcm", "ego"): 2, ("mcm", "exo"): 3}
"""Ours: each mask has a stream of its own, and a resumed run must draw the same ones."""


class Plain:
    """The forward pass and the embedding of one model's parameters, which are copied to float64 leaves."""

    def __init__(self, model: Model) -> None:
        self.config: Config = model.config
        self.parameters = {n: p.detach().double().requires_grad_(p.requires_grad) for n, p in model.named_parameters()}

    # Layers

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return unit * self.parameters[f"{name}.weight"] + self.parameters[f"{name}.bias"]

    def attention(self, name: str, x: Tensor, heads: int, causal: bool) -> Tensor:
        """(..., L, D), one head at a time."""
        L, width = x.shape[-2], x.shape[-1] // heads
        q, k, v = self.linear(f"{name}.qkv", x).split(x.shape[-1], dim=-1)
        hidden = torch.ones(L, L, dtype=torch.bool).triu(1) if causal else torch.zeros(L, L, dtype=torch.bool)
        out = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            score = q[..., part] @ k[..., part].transpose(-2, -1) / math.sqrt(width)
            out.append(score.masked_fill(hidden, -math.inf).softmax(-1) @ v[..., part])
        return self.linear(f"{name}.proj", torch.cat(out, dim=-1))

    def block(
        self, name: str, x: Tensor, heads: int, *, causal: bool = False, mlp: tuple[str, str] = ("0", "2"), eps: float
    ) -> Tensor:
        """Pre-norm, without dropout (the released code's rate is 0)."""
        x = x + self.attention(f"{name}.attn", self.norm(f"{name}.norm1", x, eps), heads, causal)
        hidden = self.linear(f"{name}.mlp.{mlp[0]}", self.norm(f"{name}.norm2", x, eps))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        return x + self.linear(f"{name}.mlp.{mlp[1]}", hidden)

    # Frozen features, section 3.2

    def tokens(self, video: Tensor) -> Tensor:
        """uint8 (T, 3, H, W) -> (T, N, D): the ViT's last hidden layer without CLS and final norm; features stay."""
        if video.is_floating_point():
            return video.double()
        base = self.config.base
        assert base.depth is not None
        assert base.heads is not None
        mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (base.mean, base.std))
        image = (video.double() / 255 - mean) / std
        weight = self.parameters["base.vit.patch_embed.proj.weight"]
        px = weight.shape[-1]
        patches = []
        for row in range(0, image.shape[-2], px):
            for column in range(0, image.shape[-1], px):
                patch = image[:, :, row : row + px, column : column + px].flatten(1)
                patches.append(patch @ weight.flatten(1).T + self.parameters["base.vit.patch_embed.proj.bias"])
        cls = self.parameters["base.vit.cls_token"].expand(len(video), -1, -1)
        x = torch.cat([cls, torch.stack(patches, dim=1)], dim=1) + self.parameters["base.vit.pos_embed"]
        for i in range(base.depth):
            x = self.block(f"base.vit.blocks.{i}", x, base.heads, mlp=("fc1", "fc2"), eps=1e-6)
        return x[:, 1:].detach()

    def merge(self, tokens: Tensor, gap: int = 1) -> Tensor:
        """Selective token merging: (T, N, D) -> (T, D); without successor, the last pair's ranking (released code)."""
        T, N = tokens.shape[:2]
        if self.config.stm_ratio is None:
            return tokens.mean(1)
        kept = max(1, round(self.config.stm_ratio * N))
        out = []
        for t in range(T):
            s = min(t, T - 1 - gap)
            score = [float((tokens[s, n] - tokens[s + gap, n]).abs().mean()) for n in range(N)]
            best = sorted(range(N), key=lambda n: -score[n])[:kept]
            out.append(torch.stack([tokens[t, n] for n in best]).mean(0))
        return torch.stack(out)

    def features(self, video: Tensor, gap: int = 1) -> Tensor:
        """What the encoder reads of one clip or recording, before its clock."""
        x = self.merge(self.tokens(video), gap)
        if self.config.input_norm == "clip":  # ours
            x = x - x.mean(0)
        return x

    def target(self, x: Tensor) -> Tensor:
        """What is predicted: the merged features themselves in the paper; the others are ours."""
        if self.config.target_norm == "token":
            rows = [(row - row.mean()) / (row.var(unbiased=False) + 1e-5).sqrt() for row in x]
            return torch.stack(rows)
        if self.config.target_norm == "clip":
            x = x - x.mean(0)
            return x / (x.pow(2).mean() + 1e-6).sqrt()
        return x

    # Clock

    def clock(self, frames: list[int], length: int, width: int, kind: str | None = None) -> Tensor:
        """(T, width): sin-cos of the frame's share of its recording (ours) or of its place in the clip (released)."""
        kind, span = kind or self.config.time_code, self.config.frames
        if kind == "none":
            return torch.zeros(len(frames), width, dtype=torch.float64)
        if kind == "continuous":
            return _sincos([(t + 0.5) / length * span for t in frames], width)
        table = _sincos([float(t) for t in range(span)], width)
        out = torch.nn.functional.interpolate(table.T[None], len(frames), mode="linear", align_corners=False)
        return out[0].T

    # Networks, sections 3.1, 3.3 and 3.4

    def encode(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """(n, D) with its clock added -> (n, width)."""
        options = self.config.encoder
        x = self.linear("encoder.embed.1", self.norm("encoder.embed.0", x))
        if not self.config.final_norm:  # the released order
            x = self.norm("encoder.norm", x)
        for i in range(options.depth):
            x = self.block(f"encoder.blocks.{i}", x, options.heads, causal=causal, eps=1e-5)
        return self.norm("encoder.norm", x) if self.config.final_norm else x

    def into_decoder(self, latents: Tensor) -> Tensor:
        return self.linear("decoder.embed.1", self.norm("decoder.embed.0", latents))

    def fill(self, latents: Tensor, visible: list[int], code: Tensor) -> Tensor:
        """Visible latents at their places, the mask token elsewhere, the decoder's clock on all of them."""
        inside = self.into_decoder(latents)
        rows = [
            inside[visible.index(t)] if t in visible else self.parameters["decoder.mask_token"]
            for t in range(len(code))
        ]
        return torch.stack(rows) + code

    def decode(self, x: Tensor, *, causal: bool) -> Tensor:
        options = self.config.decoder
        for i in range(options.depth):
            x = self.block(f"decoder.blocks.{i}", x, options.heads, causal=causal, eps=1e-5)
        return self.linear("decoder.head", self.norm("decoder.norm", x))

    # Training, sections 3.3 and 3.4 and the joint loss

    def hidden(self, seed: Tensor, frames: int, task: str, view: str) -> list[bool]:
        """round(ratio * T) frames are hidden: those with the smallest numbers of the sample's stream (ours)."""
        ratio = {"msm": self.config.msm_ratio, "mcm": self.config.mcm_ratio}[task]
        numbers = noise.uniform(seed[None], frames, STREAMS[task, view])[0].tolist()
        chosen = sorted(range(frames), key=lambda t: numbers[t])[: round(ratio * frames)]
        return [t in chosen for t in range(frames)]

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = self.config.weights
        factor = {
            "msm/ego": weights.msm_ego,
            "msm/exo": weights.msm_exo,
            "mcm/ego": weights.mcm_ego,
            "mcm/exo": weights.mcm_exo,
        }
        samples: dict[str, list[Tensor]] = {}
        for b in range(len(batch["seed"])):
            for name, value in self.sample({k: v[b] for k, v in batch.items()}).items():
                samples.setdefault(name, []).append(value)
        out = {name: torch.stack(values).mean() for name, values in samples.items()}
        return {"loss": sum((factor[n] * v for n, v in out.items()), torch.zeros(())), **out}

    def sample(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of one pair of clips; a task with both weights 0 has none."""
        config, weights = self.config, self.config.weights
        x, target, code = {}, {}, {}
        for view in ("ego", "exo"):
            frames, length = batch[f"{view}/frames"].tolist(), int(batch[f"{view}/num_frames"])
            merged = self.features(batch[view])
            target[view] = self.target(merged)
            x[view] = merged + self.clock(frames, length, merged.shape[-1])
            code[view] = self.clock(frames, length, config.decoder.width)
        out = {}
        for view, other in (("ego", "exo"), ("exo", "ego")):
            T = len(x[view])
            if weights.msm_ego or weights.msm_exo:
                hidden = self.hidden(batch["seed"], T, "msm", view)
                visible = [t for t in range(T) if not hidden[t]]
                latents = self.encode(x[view][visible], causal=config.causal_encoder)
                predicted = self.decode(self.fill(latents, visible, code[view]), causal=config.causal_msm)
                out[f"msm/{view}"] = self.error(predicted, target[view], hidden)
            if weights.mcm_ego or weights.mcm_exo:
                hidden = self.hidden(batch["seed"], T, "mcm", view)
                visible = [t for t in range(T) if not hidden[t]]
                own = self.fill(self.encode(x[view][visible]), visible, code[view])
                context = self.into_decoder(self.encode(x[other])) + code[other]
                if config.segment_embedding:  # ours
                    own = own + self.parameters["decoder.segments"][0]
                    context = context + self.parameters["decoder.segments"][1]
                predicted = self.decode(torch.cat([own, context]), causal=False)[:T]
                out[f"mcm/{view}"] = self.error(predicted, target[view], hidden)
        return out

    def error(self, predicted: Tensor, target: Tensor, hidden: list[bool]) -> Tensor:
        """Mean over the scored frames of the mean squared error over channels (released code)."""
        scored = [t for t in range(len(hidden)) if hidden[t] or self.config.loss_on == "all"]
        return torch.stack([(predicted[t] - target[t]).pow(2).mean() for t in scored]).mean()

    # Inference

    def recording(self, video: Tensor) -> Tensor:
        """What the encoder reads of one whole recording, (T, ...) -> (T, D)."""
        T = len(video)
        training = self.config.stm_evaluation_gap == "training"  # ours
        return self.features(video, max(1, round(T / self.config.frames)) if training else 1)

    def embed(self, video: Tensor, kind: str | None = None) -> Tensor:
        """One whole recording, (T, ...) -> (T, width): every frame, no mask, no decoder, no L2 norm."""
        x = self.recording(video)
        return self.encode(x + self.clock(list(range(len(x))), len(x), x.shape[-1], kind))


def _sincos(positions: list[float], width: int) -> Tensor:
    """Vaswani et al. (2017), all sines before all cosines, as in MAE's code."""
    half = width // 2
    rows = []
    for position in positions:
        angles = [position / 10_000 ** (i / half) for i in range(half)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64)
