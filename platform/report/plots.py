"""Figures from data: losses, maps of an embedding, and nearest frames across views."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from crossview import storage
from crossview.errors import UserError
from crossview.platform.report import html
from crossview.platform.train.settings import SCORES

COLOURS = ("#1f3b73", "#d1495b", "#3a8f85", "#e0a030", "#7a5195", "#6b7280")
"""For series without an order."""
RIGHT, WRONG = "#2a9d5c", "#d1495b"
FONT_PX = 9
NOT_LOSSES = frozenset(
    {"step", "time_s", "lr", "grad_norm", "samples_per_s", "peak_memory_gb", "data_wait", "quarantined"}
)
MAX_BYTES = 500_000


def loss_names(row: Mapping[str, float]) -> list[str]:
    """Which of the values of a row of `metrics.parquet` are losses."""
    return [name for name in row if name not in NOT_LOSSES and not name.startswith(SCORES)]


def save(figure: Figure, file: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Write a PNG; above `max_bytes`, with 256 colours and, if needed, at a lower resolution."""
    storage.write(file, lambda partial: _save(figure, partial, max_bytes))
    return file


def embedded(figure: Figure, max_bytes: int = MAX_BYTES) -> str:
    """The same as a data URI."""
    with tempfile.TemporaryDirectory() as folder:
        return html.picture(save(figure, Path(folder) / "figure.png", max_bytes))


def _save(figure: Figure, file: Path, max_bytes: int) -> None:
    for dpi in (140, 120, 100, 80, 60, 40, 30):
        figure.savefig(file, format="png", dpi=dpi, facecolor="white")
        if file.stat().st_size > max_bytes:
            with Image.open(file) as image:
                few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            few.save(file, format="png", optimize=True)
        if file.stat().st_size <= max_bytes:
            break


def phase_colours(count: int) -> list[tuple[float, ...]]:
    """One colour per phase, ordered from dark (first) to light (last)."""
    return [tuple(colour) for colour in mpl.colormaps["plasma"](np.linspace(0.02, 0.88, max(count, 2)))[:count]]


def loss_curves(rows: Sequence[dict[str, float]]) -> Figure:
    """Losses, gradient norm and learning rate over optimiser steps, from the rows of `metrics.parquet`."""
    if not rows:
        raise UserError("loss curves: metrics.parquet has no rows; train for at least every.log steps")
    steps = [row["step"] for row in rows]
    dot = "o" if len(rows) == 1 else None  # a line through one point is invisible
    figure = Figure(figsize=(9.2, 3.1), layout="constrained")
    losses, norm, rate = figure.subplots(1, 3, width_ratios=[2.2, 1, 1])
    names = loss_names(rows[0])
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        total = name == "loss"
        values = [row[name] for row in rows]
        losses.plot(steps, values, color=colour, marker=dot, lw=2.2 if total else 1.2, label="total" if total else name)
    positive = [row[name] for row in rows for name in names if row[name] > 0]
    if positive and max(positive) > 20 * min(positive):
        losses.set_yscale("log")
    losses.legend(frameon=False, fontsize=FONT_PX - 1, ncols=2)
    norm.plot(steps, [row["grad_norm"] for row in rows], color=COLOURS[5], marker=dot, lw=1.2)
    rate.plot(steps, [row["lr"] for row in rows], color=COLOURS[5], marker=dot, lw=1.2)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    for axis, title in ((losses, "Losses"), (norm, "Gradient norm"), (rate, "Learning rate")):
        tidy(axis)
        axis.set_title(title, fontsize=FONT_PX + 1, loc="left")
        axis.set_xlabel("optimiser step", fontsize=FONT_PX)
    return figure


def tidy(axis: Axes) -> None:
    """No box, a faint grid, small ticks."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, lw=0.6)
    axis.tick_params(labelsize=FONT_PX - 1)


@dataclass(frozen=True)
class Map:
    """Frames of an embedding in the plane."""

    title: str
    points: np.ndarray
    """float (n, 2)."""
    labels: np.ndarray
    """int (n,), phases."""
    is_ego: np.ndarray
    """bool (n,)."""


def maps(panels: Sequence[Map], phases: Sequence[str]) -> Figure:
    """Maps side by side: colour is the phase, a disc is an ego frame, a triangle an exo frame."""
    figure = Figure(figsize=(3.3 * len(panels), 3.9), layout="constrained")
    colours = np.array(phase_colours(len(phases)))
    for panel, axis in zip(panels, np.atleast_1d(figure.subplots(1, len(panels))), strict=True):
        for ego, marker, size in ((True, "o", 15), (False, "^", 17)):
            chosen = panel.is_ego == ego
            x, y = panel.points[chosen].T
            axis.scatter(x, y, c=colours[panel.labels[chosen]], marker=marker, s=size, alpha=0.75, lw=0)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("#c8ccd2")
        axis.set_title(panel.title, fontsize=FONT_PX + 1)
    handles = [Line2D([], [], ls="", marker="s", color=c, label=p) for c, p in zip(colours, phases, strict=True)]
    handles += [
        Line2D([], [], ls="", marker=m, color="#6b7280", label=n) for m, n in (("o", "ego frame"), ("^", "exo frame"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=FONT_PX)
    return figure


@dataclass(frozen=True)
class Shot:
    """One frame with its caption and label."""

    picture: np.ndarray
    """uint8 (H, W, 3)."""
    caption: str
    label: int


def retrieval(queries: Sequence[Shot], neighbours: Sequence[Sequence[Shot]]) -> Figure:
    """A row per query: the frame, then the nearest frames of the other view; a green border is the query's phase."""
    columns = 1 + max(len(found) for found in neighbours)
    figure = Figure(figsize=(1.75 * columns, 1.62 * len(queries) + 0.3), layout="constrained")
    axes = figure.subplots(len(queries), columns, squeeze=False)
    for row, (query, found) in enumerate(zip(queries, neighbours, strict=True)):
        _shot(axes[row, 0], query, "#1f2937", 1.2)
        for column in range(1, columns):
            if column > len(found):
                axes[row, column].axis("off")
                continue
            shot = found[column - 1]
            _shot(axes[row, column], shot, RIGHT if shot.label == query.label else WRONG, 3.0)
    heads = ["query", "nearest", *(f"next video {k}" for k in range(2, columns))]
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=FONT_PX + 1, fontweight="bold")
    return figure


def _shot(axis: Axes, shot: Shot, colour: str, width: float) -> None:
    axis.imshow(shot.picture, interpolation="bilinear")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=colour, linewidth=width)
    axis.set_xlabel(shot.caption, fontsize=FONT_PX - 1.5, labelpad=2)
