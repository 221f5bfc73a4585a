"""Figures of a search: over time, over its options, and which trials were promoted."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from crossview.platform.report.plots import COLOURS, FONT_PX, tidy
from crossview.platform.tune.overrides import paths_of
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial_store import Trial

FULL, STOPPED, PRESET = COLOURS[0], "#a8b0bb", COLOURS[1]


def figures(search: Search, trials: list[Trial], best: Trial) -> dict[str, tuple[Figure, str]]:
    """Figures with their captions, by name; those without data are left out."""
    scored = [trial for trial in trials if math.isfinite(trial.objective)]
    varied = [trial for trial in scored if trial.options]
    found = {
        "time": (
            over_time(search, scored),
            "Every evaluation by the time at which it was reported; the line is the best so far, the dashes are the "
            "last score of the unchanged preset, which may have been stopped early too.",
        ),
        "evaluations": (
            evaluations(search, scored),
            "Left: the objective of each trial from evaluation to evaluation; a cross marks where the scheduler "
            "stopped it. Right: how many trials reached each evaluation.",
        ),
    }
    if varied:
        found["options"] = (
            each_option(search, varied, scored),
            "The last score against each option. Full discs were trained to the end, rings were stopped earlier and so "
            "trained for less; the dashes are the preset.",
        )
        found["parallel"] = (
            parallel(search, varied, best),
            "A line per trial through its options to its last score; the thick line is the winner. Thin grey lines "
            "were stopped early.",
        )
    return found


def over_time(search: Search, trials: list[Trial]) -> Figure:
    """Objective against minutes since the first report."""
    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    axis = figure.subplots()
    reports = sorted((r.at, r.objective) for t in trials for r in t.reports)
    start = min(r.at - r.seconds for t in trials for r in t.reports[:1])
    minutes = np.array([(at - start) / 60 for at, _ in reports])
    values = np.array([value for _, value in reports])
    running = np.maximum.accumulate if search.mode == "max" else np.minimum.accumulate
    axis.scatter(minutes, values, s=16, color=STOPPED, lw=0, label="an evaluation")
    axis.step(minutes, running(values), where="post", color=FULL, lw=1.8, label="best so far")
    _preset(axis, trials)
    axis.set_xlabel("minutes since the start", fontsize=FONT_PX)
    axis.set_ylabel(search.metric, fontsize=FONT_PX)
    axis.legend(frameon=False, fontsize=FONT_PX - 1, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    tidy(axis)
    return figure


def evaluations(search: Search, trials: list[Trial]) -> Figure:
    """Learning curves, and how many trials are left."""
    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    curves, left = figure.subplots(1, 2, width_ratios=[2.4, 1])
    for trial in sorted(trials, key=lambda t: t.number == 0):
        x, y = [r.evaluation for r in trial.reports], [r.objective for r in trial.reports]
        colour = PRESET if trial.number == 0 else FULL if trial.status == "finished" else STOPPED
        curves.plot(x, y, color=colour, lw=1.6 if colour != STOPPED else 1.0, marker="o", ms=3, alpha=0.9)
        if trial.status == "stopped":
            curves.plot(x[-1:], y[-1:], color=colour, marker="x", ms=7, mew=1.6)
    places = list(range(1, search.evaluations + 1))
    counts = [sum(any(r.evaluation >= k for r in t.reports) for t in trials) for k in places]
    left.bar(places, counts, color=FULL, width=0.6, zorder=2)
    for k, count in zip(places, counts, strict=True):
        left.annotate(str(count), (k, count), ha="center", va="bottom", fontsize=FONT_PX - 1)
    for axis, title in ((curves, search.metric), (left, "trials that reached it")):
        axis.set_xticks(places)
        axis.set_xlabel("evaluation", fontsize=FONT_PX)
        axis.set_title(title, fontsize=FONT_PX + 1, loc="left")
        tidy(axis)
    handles = [
        mpl.lines.Line2D([], [], color=c, marker="o", ms=3, label=n)
        for c, n in ((FULL, "finished"), (STOPPED, "stopped"), (PRESET, "preset"))
        if c != STOPPED or any(t.status == "stopped" for t in trials)
    ]
    curves.legend(handles=handles, frameon=False, fontsize=FONT_PX - 1)
    return figure


def each_option(search: Search, varied: list[Trial], trials: list[Trial]) -> Figure:
    """A panel per option."""
    columns = min(3, len(search.domains))
    rows = -(-len(search.domains) // columns)
    figure = Figure(figsize=(9.2, 2.7 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for path, axis in zip(search.domains, axes, strict=False):
        scale = Scale(search, path, varied)
        for full in (False, True):
            chosen = [t for t in varied if (t.status == "finished") == full]
            x = [scale.at(t.options[path]) for t in chosen]
            colour = {"color": FULL} if full else {"facecolors": "none", "edgecolors": STOPPED}
            axis.scatter(x, [t.objective for t in chosen], s=26, **colour)
        _preset(axis, trials)
        scale.label(axis)
        axis.set_title(name(path), fontsize=FONT_PX, loc="left")
        tidy(axis)
    for axis in axes[len(search.domains) :]:
        axis.axis("off")
    for axis in axes[::columns]:
        axis.set_ylabel(search.metric, fontsize=FONT_PX - 1)
    return figure


def parallel(search: Search, varied: list[Trial], best: Trial) -> Figure:
    """Parallel coordinates, every axis from its lowest to its highest value."""
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    axis = figure.subplots()
    scales = [Scale(search, path, varied) for path in search.domains]
    objectives = [t.objective for t in varied]
    low, high = min(objectives), max(objectives)
    colours = mpl.colormaps["viridis" if search.mode == "max" else "viridis_r"]
    coloured = [t.objective for t in varied if t.status == "finished"] or objectives
    shade = Normalize(min(coloured), max(max(coloured), min(coloured) + 1e-6))
    x = np.arange(len(scales) + 1)
    for trial in sorted(varied, key=lambda t: (t.number == best.number, t.status == "finished", t.objective)):
        y = [s.share(trial.options[path]) for s, path in zip(scales, search.domains, strict=True)]
        y.append((trial.objective - low) / ((high - low) or 1))
        full = trial.status == "finished"
        colour = colours(shade(trial.objective)) if full else STOPPED
        width = 3.0 if trial.number == best.number else 1.5 if full else 0.7
        axis.plot(x, y, color=colour, lw=width, alpha=0.95 if full else 0.6)
    for k, ends in enumerate([*(s.ends() for s in scales), (f"{low:.3g}", f"{high:.3g}")]):
        axis.axvline(k, color="#3b4450", lw=0.8)
        for height, text, va in ((-0.03, ends[0], "top"), (1.03, ends[1], "bottom")):
            axis.text(k, height, text, ha="center", va=va, fontsize=FONT_PX - 1.5, color="#5b6470")
    axis.set_xticks(x, [*(wrapped(path) for path in search.domains), wrapped(search.metric)], fontsize=FONT_PX - 1)
    axis.tick_params(axis="x", length=0, pad=14)
    axis.set(yticks=[], ylim=(-0.04, 1.1))
    axis.spines[:].set_visible(False)
    figure.colorbar(
        mpl.cm.ScalarMappable(shade, colours), ax=axis, pad=0.01, aspect=30, label="last score, trained in full"
    ).ax.tick_params(labelsize=FONT_PX - 2)
    return figure


class Scale:
    """Positions of an option's values on an axis: numbers on a linear or log scale, anything else in equal steps."""

    def __init__(self, search: Search, path: str, trials: list[Trial]) -> None:
        self.values = [trial.options[path] for trial in trials]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        self.names = None if numbers else sorted({str(value) for value in self.values})
        spread = numbers and min(self.values) > 0 and max(self.values) >= 20 * min(self.values)
        self.log = search.domains[path].startswith("log") or (search.domains[path].startswith("choice") and spread)

    def at(self, value: Any) -> float:
        """In data coordinates."""
        return float(self.names.index(str(value))) if self.names else float(value)

    def share(self, value: Any) -> float:
        """From 0 for the lowest to 1 for the highest."""
        low, high, here = (self._line(v) for v in (*self._range(), self.at(value)))
        return (here - low) / (high - low) if high > low else 0.5

    def ends(self) -> tuple[str, str]:
        """The lowest and the highest as text."""
        if self.names:
            return self.names[0], self.names[-1]
        low, high = self._range()
        return f"{low:.3g}", f"{high:.3g}"

    def label(self, axis: Axes) -> None:
        """Scale and ticks of a panel's x axis."""
        if self.names:
            axis.set_xticks(range(len(self.names)), self.names)
        elif self.log:
            axis.set_xscale("log")
            low, high = self._range()
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())

    def _range(self) -> tuple[float, float]:
        places = [self.at(value) for value in self.values]
        return min(places), max(places)

    def _line(self, place: float) -> float:
        return math.log(place) if self.log else place


def name(key: str) -> str:
    """A key of the space as a title: of several paths, what they share and what differs."""
    paths = paths_of(key)
    if len(paths) == 1:
        return paths[0].removeprefix("method.")
    parent = paths[0].rpartition(".")[0].removeprefix("method.")
    return f"{parent}.{'+'.join(path.rpartition('.')[2] for path in paths)}"


def wrapped(key: str) -> str:
    """The same on several short lines."""
    return name(key).replace("+", "\n+").replace(".", ".\n").replace("/", "/\n")


def _preset(axis: Axes, trials: list[Trial]) -> None:
    preset = next((trial for trial in trials if trial.number == 0), None)
    if preset is not None:
        axis.axhline(preset.objective, color=PRESET, lw=1.2, ls=(0, (4, 3)), label="preset", zorder=0)
