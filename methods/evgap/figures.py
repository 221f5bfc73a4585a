"""Figures of the similarity between ego and exo clips of a batch, overall and per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from crossview.methods.evgap.losses import indicators
from crossview.methods.method import Batch

if TYPE_CHECKING:
    from crossview.methods.evgap.model import Model, Views


@torch.no_grad()
def draw(model: Model, batch: Batch) -> dict[str, Figure]:
    """Both figures for a batch."""
    views = model.views(batch)
    return {"similarity": similarity(views, batch["sample"]), "layers": layers(views)}


def similarity(views: Views, sample: Tensor) -> Figure:
    """Last-layer cosine of every ego with every exo clip; frames mark the same instant, lines separate recordings."""
    ego, exo = views.ego[-1], views.exo[-1]  # (B, M, D), (B, N, D)
    cosine = (ego.flatten(0, 1) @ exo.flatten(0, 1).mT).float().cpu().numpy()
    if views.ego_mask is not None and views.exo_mask is not None:
        pairs = views.ego_mask.flatten()[:, None] & views.exo_mask.flatten()
        cosine = np.where(pairs.cpu().numpy(), cosine, np.nan)
    figure = Figure(figsize=(7.0, 5.6), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(cosine, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest", aspect="auto")
    axis.set_facecolor("#dddddd")
    for at in np.flatnonzero(np.diff(sample.cpu().numpy())) + 1:
        axis.axhline(at * ego.shape[1] - 0.5, color="black", linewidth=0.6)
        axis.axvline(at * exo.shape[1] - 0.5, color="black", linewidth=0.6)
    M, N = ego.shape[1], exo.shape[1]
    for instant in range(len(ego)):
        place = (instant * N - 0.5, instant * M - 0.5)
        axis.add_patch(Rectangle(place, N, M, fill=False, edgecolor="#1a9850", linewidth=1.5))
    axis.set(xlabel="exo clips", ylabel="ego clips", title="Cosine similarity; green: same instant")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def layers(views: Views) -> Figure:
    """Mean similarity within and across scenes, and R@1, by layer."""
    by_layer = [
        indicators(ego, exo, views.ego_mask, views.exo_mask) for ego, exo in zip(views.ego, views.exo, strict=True)
    ]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    number = np.arange(1, len(by_layer) + 1)
    for name, label in (("positive", "same scene"), ("negative", "other scenes"), ("R@1", "R@1 in the batch")):
        axis.plot(number, [float(found[name]) for found in by_layer], marker="o", label=label)
    axis.set(xlabel="layer", xticks=number, ylim=(-1.05, 1.05), title="Class tokens of ego and exo clips, by layer")
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.legend()
    return figure
