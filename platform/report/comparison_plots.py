"""Curves of several runs over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from crossview.platform.report.plots import COLOURS, FONT_PX, tidy

NAMED = len(COLOURS)
"""Arms that have a colour and a name in the legend; those after them are grey."""
GREY = "#c3c8cf"


@dataclass(frozen=True)
class Curve:
    """A value of one run over its steps; where it is not finite, the line is interrupted."""

    name: str
    """Of the run's arm."""
    arm: int
    steps: Sequence[float]
    values: Sequence[float]


def curves(title: str, lines: Sequence[Curve]) -> Figure:
    """One colour per arm and a line per run, in one chart."""
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    axis = figure.subplots()
    named: set[int] = set()
    for line in sorted(lines, key=lambda line: -line.arm):  # the first arms lie on top
        colour = COLOURS[line.arm] if line.arm < NAMED else GREY
        dot = "o" if len(line.steps) == 1 else None  # a line through one point is invisible
        label = line.name if line.arm < NAMED and line.arm not in named else None
        named.add(line.arm)
        axis.plot(line.steps, line.values, color=colour, marker=dot, lw=1.3, alpha=0.85, label=label)
    others = len({line.arm for line in lines if line.arm >= NAMED})
    if others:
        axis.plot([], [], color=GREY, label=f"{others} more")
    tidy(axis)
    axis.set_title(title, fontsize=FONT_PX + 1, loc="left")
    axis.set_xlabel("optimiser step", fontsize=FONT_PX)
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: (labels[i].endswith(" more"), labels[i]))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] if len(labels[i]) <= 60 else f"{labels[i][:57]}..." for i in order],
        loc="outside right upper",
        frameon=False,
        fontsize=FONT_PX - 1,
    )
    return figure
