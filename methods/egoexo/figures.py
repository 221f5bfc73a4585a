"""Interaction maps over a clip's frames, and class distributions of teachers and student."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from crossview.methods.egoexo.slowfast import slow_indices
from crossview.methods.figure_title import title
from crossview.methods.method import Batch

if TYPE_CHECKING:
    from crossview.methods.egoexo.model import Model

_SHOWN = 4
"""Samples per figure of distributions."""
_CLASSES = 8
"""Number of most likely classes shown per distribution."""


@torch.no_grad()
def draw(model: Model, batch: Batch) -> dict[str, Figure]:
    """Figures of the configured signals for the batch's first samples, without augmentation."""
    was_training = model.training
    model.eval()
    few = {name: value[:_SHOWN] for name, value in batch.items()}
    clips, boxes = model.inputs(few)
    predictions = model.predict(clips)
    model.train(was_training)
    out = {}
    if boxes is not None:
        logits = predictions["map"]
        frames = clips[0]
        if logits.shape[2] != len(frames):
            frames = frames[slow_indices(len(frames), model.config.backbone.alpha, frames.device)]
        out["interaction_map"] = interaction_map(frames, model.paint(boxes, logits)[0], logits[0].float().sigmoid())
    for task in model.score_heads:
        teacher, student = few[f"clip/scores/{task}"], predictions[task]
        out[f"{task}_scores"] = distributions(task, teacher.float().softmax(1), student.float().softmax(1))
    return out


def interaction_map(frames: Tensor, target: Tensor, predicted: Tensor) -> Figure:
    """Targets and predictions for hands and objects: uint8 (T, 3, H, W) and maps (2, T, h, w) in [0, 1]."""
    T = len(frames)
    figure = Figure(figsize=(max(1.45 * T, 4.0) + 1.2, 7.6), layout="constrained")
    axes = figure.subplots(5, T, squeeze=False)
    images = frames.permute(0, 2, 3, 1).cpu().numpy()
    rows = [("hands,\ntarget", target[0]), ("hands,\npredicted", predicted[0])]
    rows += [("objects,\ntarget", target[1]), ("objects,\npredicted", predicted[1])]
    extent = (0.0, float(images.shape[2]), float(images.shape[1]), 0.0)
    for t in range(T):
        axes[0, t].imshow(images[t], extent=extent)
        for row, (_, maps) in enumerate(rows, start=1):
            axes[row, t].imshow(images[t].mean(-1) / 255, extent=extent, cmap="gray", vmin=0, vmax=1)
            cells = maps[t].cpu().numpy()
            shown = axes[row, t].imshow(cells, extent=extent, cmap="inferno", vmin=0, vmax=1, alpha=0.65)
        axes[0, t].set_title(f"slow frame {t + 1}", fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, (name, _) in zip(axes[:, 0], [("clip", None), *rows], strict=True):
        axis.set_ylabel(name)
    figure.colorbar(shown, ax=axes, label="confidence", shrink=0.6)
    title(figure, "Interaction map: hands and objects according to the detector and to the network")
    return figure


def distributions(task: str, teacher: Tensor, student: Tensor) -> Figure:
    """Bar charts of the teacher's most likely classes and the student's probabilities for them: (n, C) each."""
    n, C = teacher.shape
    names = ("exo", "ego") if task == "ego" and C == 2 else None
    figure = Figure(figsize=(2.6 * n + 0.6, 3.2), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False, sharey=True)[0]
    for i, axis in enumerate(axes):
        order = torch.arange(C) if C <= _CLASSES else teacher[i].cpu().argsort(descending=True)[:_CLASSES]
        at = np.arange(len(order))
        axis.bar(at - 0.2, teacher[i].cpu()[order].numpy(), 0.4, label="teacher", color="#4477aa")
        axis.bar(at + 0.2, student[i].cpu()[order].numpy(), 0.4, label="student", color="#ee7733")
        labels = [names[k] if names else str(int(k)) for k in order]
        axis.set_xticks(at, labels, fontsize=8)
        axis.set(title=f"sample {i + 1}", xlabel="class", ylim=(0, 1))
    axes[0].set_ylabel("probability")
    axes[0].legend(fontsize=8)
    title(figure, f"Class probabilities of the {task} teacher and of the network")
    return figure
