"""Figures of the motion weights, the reconstructions of a masked clip, and the cross-attention to the source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from crossview.errors import UserError
from crossview.methods.figure_title import title
from crossview.methods.method import Batch
from crossview.methods.mv2mae import motion
from crossview.methods.mv2mae.config import Config
from crossview.methods.mv2mae.tokens import MEAN, STD, moments, patchify, standardised, take, unpatchify

if TYPE_CHECKING:
    from crossview.methods.mv2mae.model import Clips, Model

TEMPERATURES = (4.0, 15.0, 60.0, 240.0)
SOURCE, TARGET = 0, 1
_GREY = 140
_QUERY, _MATCH = "#ff2a2a", "#22c55e"


@dataclass(frozen=True)
class Query:
    """A token of the target: tubelet, row and column, counted from 0."""

    time: int
    row: int
    column: int

    def index(self, config: Config) -> int:
        """Index of the token in the grid; raises ValueError if it is outside."""
        side, times = config.size_px // config.patch_px, config.grid[0]
        if not (0 <= self.time < times and 0 <= self.row < side and 0 <= self.column < side):
            raise UserError(
                f"query {self} is outside the grid; time must be in 0..{times - 1}, row and column in 0..{side - 1}"
            )
        return (self.time * side + self.row) * side + self.column


@torch.no_grad()
def draw(model: Model, batch: Batch) -> dict[str, Figure]:
    """Figures 2 and 4 of the paper for the first sample of the batch."""
    first = {name: value[:1] for name, value in batch.items()}
    out = {"motion_weights": motion_weights(first["target"][0], model.config)}
    out["reconstruction"] = reconstruction(model, first)
    if model.cross_decoder is not None:
        out["cross_attention"] = cross_attention(model, first)
    return out


def motion_weights(
    video: Tensor, config: Config, temperatures: tuple[float, ...] = TEMPERATURES, shown: int = 8
) -> Figure:
    """A clip, uint8 (T, 3, H, W), and one row per temperature with the token weights overlaid; their mean is 1."""
    norms = motion.differences(video[None], config)
    columns = _columns(config.grid[0], shown)
    figure, axes = _grid(1 + len(temperatures), len(columns))
    frames = _pixels(video)
    for column, t in enumerate(columns):
        _show(axes[0, column], frames[t * config.tubelet], f"frame {t * config.tubelet + 1}")
    axes[0, 0].set_ylabel("clip")
    scale = LogNorm(1 / 16, 16)
    for row, temperature in enumerate(temperatures, 1):
        weights = motion.weigh(norms, replace(config.motion, temperature=temperature, rescale=True))
        maps = motion.grid_map(weights, config)[0].cpu().numpy()
        for column, t in enumerate(columns):
            grey = frames[t * config.tubelet].mean(-1, keepdims=True).repeat(3, -1) * 0.7 + 0.3
            _show(axes[row, column], grey)
            image = axes[row, column].imshow(
                maps[t], extent=_extent(config), cmap="RdBu_r", norm=scale, alpha=0.72, interpolation="nearest"
            )
        share = float(motion.effective(weights)[0])
        axes[row, 0].set_ylabel(f"τ = {temperature:g}")
        axes[row, 0].set_title(f"ESS {share:.0f} of {config.tokens}", loc="left", fontsize=8)
    bar = figure.colorbar(image, ax=axes, label="weight (mean 1)", shrink=0.8, pad=0.01)
    bar.set_ticks([1 / 16, 1 / 4, 1, 4, 16], labels=["1/16", "1/4", "1", "4", "16"])
    title(figure, "Motion weights of the loss by temperature, with the effective sample size (ESS) in tokens")
    return figure


@torch.no_grad()
def reconstruction(model: Model, batch: Batch, shown: int = 8) -> Figure:
    """The target, its visible tokens, its masked tokens as predicted by each decoder, and the source."""
    config, clips = model.config, model.clips(batch)
    latents = model.encode(clips)
    split, columns = clips.split, _columns(config.frames, shown)
    rows = {"target": _pixels(clips.video[TARGET]), "visible": _filled(model, clips, None)}
    same = model.same_view(latents, split).get(TARGET)
    if same is not None:
        rows["same view"] = _filled(model, clips, same)
    if model.cross_decoder is not None:
        one = type(split)(*(part[TARGET:] for part in split))
        cross = model.cross_view(latents[TARGET:], one, latents[:TARGET], split.visible[:TARGET])
        rows["cross view"] = _filled(model, clips, cross)
    rows["source"] = _pixels(clips.video[SOURCE])
    figure, axes = _grid(len(rows), len(columns))
    for row, (name, frames) in enumerate(rows.items()):
        axes[row, 0].set_ylabel(name)
        for column, t in enumerate(columns):
            _show(axes[row, column], frames[t], f"frame {t + 1}" if row == 0 else "")
    title(figure, f"Masked tokens ({config.masking.ratio:.0%}) as predicted by the decoders")
    return figure


@torch.no_grad()
def cross_attention(
    model: Model, batch: Batch, query: Query | None = None, layer: int = -1, head: int | None = None, shown: int = 8
) -> Figure:
    """Cross-attention of a target token to the source, in one head or (None) averaged over heads.

    Without a `query`, the masked token with the most motion is used. It is outlined in red, its best match in green.
    """
    config, clips = model.config, model.clips(batch)
    latents, split, grid = model.encode(clips), clips.split, config.grid
    attention = attention_map(model, latents, clips, layer, head)  # (N target, N source)
    if query is None:
        norms = motion.differences(clips.video[TARGET:], config)[0]
        chosen = int(split.hidden[TARGET][norms[split.hidden[TARGET]].argmax()])
    else:
        chosen = query.index(config)
    maps = motion.grid_map(attention[chosen][None], config)[0]
    columns = _columns(grid[0], shown)
    figure, axes = _grid(3, len(columns))
    source, target = (_pixels(clips.video[side]) for side in (SOURCE, TARGET))
    side, patch = config.size_px // config.patch_px, config.patch_px
    top = float(maps.max())
    for column, t in enumerate(columns):
        frame = t * config.tubelet
        _show(axes[0, column], target[frame], f"frame {frame + 1}")
        _show(axes[1, column], source[frame])
        _show(axes[2, column], source[frame] * 0.35)
        heat = nn.functional.interpolate(
            maps[None, t : t + 1], (config.size_px, config.size_px), mode="bilinear", align_corners=False
        )[0, 0]
        level = (heat / top).clamp(0, 1).cpu().numpy()
        image = axes[2, column].imshow(
            level, extent=_extent(config), cmap="inferno", vmin=0, vmax=1, alpha=np.clip(0.15 + level, 0, 0.9)
        )
    best = int(attention[chosen].argmax())
    for row, token, colour in ((0, chosen, _QUERY), (1, best, _MATCH)):
        when, where = divmod(token, grid[1])
        if when in columns:
            axis = axes[row, columns.index(when)]
            place = (where % side * patch - 0.5, where // side * patch - 0.5)
            axis.add_patch(Rectangle(place, patch, patch, fill=False, edgecolor=colour, linewidth=2))
            axis.spines[:].set(visible=True, color=colour, linewidth=1.5)
    for row, name in enumerate(("target, query", "source", "attention")):
        axes[row, 0].set_ylabel(name)
    figure.colorbar(image, ax=axes, label="attention, relative to the maximum", shrink=0.6, pad=0.01)
    heads = "mean of heads" if head is None else f"head {head}"
    title(figure, f"Cross-attention of the marked target token to the source ({heads})")
    return figure


def attention_map(model: Model, latents: Tensor, clips: Clips, layer: int = -1, head: int | None = None) -> Tensor:
    """Cross-attention of one sample on the source's grid, 0 at its masked tokens: (N target, N source)."""
    if model.cross_decoder is None:
        raise UserError("weights.cross is 0, so this model has no cross-view decoder and no cross-attention")
    depth, heads = model.config.cross_decoder.depth, model.config.cross_decoder.heads
    if not -depth <= layer < depth or (head is not None and not 0 <= head < heads):
        raise UserError(
            f"layer is {layer} and head {head}; the cross-view decoder has {depth} layers and {heads} heads"
        )
    split = clips.split
    one = type(split)(*(part[TARGET:] for part in split))
    places = split.visible[:TARGET]
    maps = model.cross_decoder.attention(latents[TARGET:], one, latents[:TARGET], places, layer)[0]
    mean = maps.mean(0) if head is None else maps[head]  # (N, S)
    return torch.zeros(len(mean), model.config.tokens, device=mean.device).scatter(
        1, places.expand_as(mean), mean.float()
    )


def _filled(model: Model, clips: Clips, prediction: Tensor | None) -> np.ndarray:
    """The target's frames with its masked tokens as predicted (1, M, P), or grey: (T, H, W, 3) in 0-1.

    Normalised predictions are shown with the true mean and standard deviation of their token.
    """
    config, tokens, hidden = model.config, clips.tokens[TARGET:], clips.split.hidden[TARGET:]
    if prediction is None:
        values = patchify(standardised(torch.full_like(clips.video[TARGET:], _GREY)), config)
        values = take(values, hidden)
    else:
        values = prediction.float()
        if config.target_norm != "none":
            mean, std = moments(take(tokens, hidden), config.target_norm)
            values = values * std + mean
    full = tokens.scatter(1, hidden[..., None].expand_as(values), values)
    video = unpatchify(full, config)[0]
    mean, std = (torch.tensor(v, device=video.device).view(3, 1, 1) for v in (MEAN, STD))
    return (video * std + mean).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


def _pixels(video: Tensor) -> np.ndarray:
    """uint8 (T, 3, H, W) -> (T, H, W, 3) in 0-1."""
    return video.permute(0, 2, 3, 1).cpu().numpy() / 255


def _columns(count: int, shown: int) -> list[int]:
    return np.linspace(0, count - 1, min(shown, count)).round().astype(int).tolist()


def _extent(config: Config) -> tuple[float, float, float, float]:
    return (-0.5, config.size_px - 0.5, config.size_px - 0.5, -0.5)


def _grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    layout = ConstrainedLayoutEngine(wspace=0.01, hspace=0.01, w_pad=0.02, h_pad=0.02)
    figure = Figure(figsize=(max(1.45 * columns + 0.9, 3.6), 1.55 * rows + 0.6), layout=layout, dpi=130)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(axis: object, image: np.ndarray, title: str = "") -> None:
    axis.imshow(image, interpolation="nearest")  # type: ignore[attr-defined]
    axis.set(xticks=[], yticks=[])  # type: ignore[attr-defined]
    axis.set_title(title, fontsize=8)  # type: ignore[attr-defined]
    axis.spines[:].set_visible(False)  # type: ignore[attr-defined]
