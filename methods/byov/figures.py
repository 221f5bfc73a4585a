"""Figures of one sample: the patches that are merged, and predictions against targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from crossview.methods.byov.stm import selected
from crossview.methods.figure_title import title
from crossview.methods.method import Batch

if TYPE_CHECKING:
    from crossview.methods.byov.model import Model

VIEWS = ("ego", "exo")
TASKS = {"msm": "self view (MSM)", "mcm": "cross view (MCM)"}


@torch.no_grad()
def draw(model: Model, batch: Batch) -> dict[str, Figure]:
    """Figures of the batch's first sample; the patches need video, so cached features give only the heat maps."""
    first = {name: value[:1] for name, value in batch.items()}
    out = {"prediction_similarity": prediction_similarity(model, first)}
    ratio = model.config.stm_ratio
    if ratio is not None and not any(first[v].is_floating_point() for v in VIEWS):
        index = {v: selected(model.base(first[v]), ratio)[0] for v in VIEWS}
        out["selected_patches"] = selected_patches({v: first[v][0] for v in VIEWS}, index, model.base.grid)
    return out


def selected_patches(
    video: dict[str, Tensor], index: dict[str, Tensor], grid: tuple[int, int], shown: int = 8
) -> Figure:
    """Frames of each view, darkened where patches are not merged: uint8 (T, 3, H, W) and (T, K) per view."""
    columns = min(shown, *(len(v) for v in video.values()))
    figure = Figure(figsize=(1.5 * columns, 1.7 * len(video) + 0.4), layout="constrained")
    axes = figure.subplots(len(video), columns, squeeze=False)
    for row, (view, frames) in enumerate(video.items()):
        for column, t in enumerate(np.linspace(0, len(frames) - 1, columns).round().astype(int)):
            kept = torch.zeros(grid[0] * grid[1], dtype=torch.float32)
            kept[index[view][t].cpu()] = 1
            height, width = frames.shape[-2:]
            mask = nn.functional.interpolate(kept.view(1, 1, *grid), (height, width), mode="nearest")[0, 0].numpy()
            image = frames[t].permute(1, 2, 0).cpu().numpy() / 255
            axis = axes[row, column]
            axis.imshow(image * (0.25 + 0.75 * mask[..., None]))
            axis.contour(mask, levels=[0.5], colors="#ffb000", linewidths=0.7)
            axis.set(xticks=[], yticks=[], title=f"frame {t + 1} of {len(frames)}" if row == 0 else "")
            axis.title.set_fontsize(8)
        axes[row, 0].set_ylabel(view)
    title(figure, "Patches kept by selective token merging (bright): those that change most from one frame to the next")
    return figure


def prediction_similarity(model: Model, batch: Batch) -> Figure:
    """Cosine of masked frames' predictions with all targets, both minus the targets' mean; good is a red diagonal."""
    predictions, target, splits = model.inspect(batch)
    figure = Figure(figsize=(7.2, 3.3 * len(predictions) + 0.5), layout="constrained")
    axes = figure.subplots(len(predictions), len(VIEWS), squeeze=False)
    mean = target.mean(1, keepdim=True)
    for row, (task, prediction) in enumerate(predictions.items()):
        cosine = nn.functional.normalize(prediction - mean, dim=-1) @ nn.functional.normalize(target - mean, dim=-1).mT
        for column, view in enumerate(VIEWS):
            axis = axes[row, column]
            hidden = splits[task].mask[column, :, None].expand_as(cosine[column])
            rows = torch.where(hidden, cosine[column].float(), torch.nan).cpu().numpy()
            image = axis.imshow(rows, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
            axis.set_facecolor("#dddddd")
            axis.set(title=f"{TASKS[task]}, {view}", xlabel="target frame", ylabel="predicted frame")
    figure.colorbar(image, ax=axes, label="cosine similarity", shrink=0.7)
    title(figure, "Predicted against target features of the masked frames (grey: visible)")
    return figure
