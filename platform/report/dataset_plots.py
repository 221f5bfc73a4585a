"""Figures of a catalog: how long its recordings are, and what of a scene is labelled when."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.classes import frame_kind
from crossview.datasets.sampling.windows import run_together
from crossview.platform.report.contact_sheet import in_order
from crossview.platform.report.plots import COLOURS, FONT_PX, tidy

EGO, EXO = COLOURS[1], COLOURS[0]
LABELS = (
    "#2f6f9f", "#d1495b", "#3a8f85", "#e0a030", "#7a5195", "#6aa84f", "#a0522d", "#5b8bd0", "#c97fb0", "#8a8f3a",
    "#e58a6c", "#4b5563",
)  # fmt: skip
"""Of the most frequent labels of a kind."""
OTHER = "#c8ccd2"
"""Of labels that are too many for a colour of their own."""
MOST_LANES, MOST_OVERLAPS = 16, 4
_WIDTH_IN, _LANE_IN, _LEFT_IN, _LETTER_IN = 9.2, 0.24, 1.9, 0.072


def lengths(seconds: dict[str, np.ndarray]) -> Figure:
    """Histograms of durations in s by perspective, on a logarithmic axis where they differ a hundredfold."""
    together = np.concatenate(list(seconds.values()))
    low, high = float(together.min()), float(together.max())
    if low == high:
        low, high = low * 0.9, high * 1.1
    wide = high > 100 * low
    edges = np.geomspace(low, high, 41) if wide else np.linspace(low, high, 41)
    figure = Figure(figsize=(_WIDTH_IN, 2.4), layout="constrained")
    axis = figure.subplots()
    shown = {name: values for name, values in seconds.items() if len(values)}
    colours = [EGO if name == "ego" else EXO for name in shown]
    axis.hist(list(shown.values()), edges, stacked=True, color=colours, label=list(shown))  # type: ignore[arg-type]
    if wide:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    tidy(axis)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("length in s", fontsize=FONT_PX)
    axis.set_ylabel("recordings", fontsize=FONT_PX)
    axis.legend(frameon=False, fontsize=FONT_PX - 1)
    return figure


@dataclass(frozen=True)
class Span:
    """A label from one time to another, on the axis of its figure."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Lane:
    """A line of a timeline."""

    name: str
    kind: str
    """Labels of one kind share their colours."""
    spans: list[Span]


def timeline(catalog: Catalog, recordings: Sequence[Recording]) -> tuple[Figure, str]:
    """When each camera of a scene runs and what is labelled; a sentence about what is left out, or nothing.

    Time is that of the scene's clock in s; cameras that never run together are shown by the share of the way through.
    """
    recordings = in_order(recordings)
    clocked = run_together(recordings)
    lanes = (
        []
        if not clocked
        else [Lane(_camera(r), "camera", [Span(r.start_s, r.end_s + 1 / r.fps, r.perspective)]) for r in recordings]
    )
    labels = [*_of_segments(catalog, recordings, clocked), *_of_frames(catalog, recordings, clocked)]
    cameras, labelled = lanes[:MOST_LANES], labels[:MOST_LANES]
    left = len(lanes) - len(cameras), len(labels) - len(labelled)
    counted = [f"{count} more {what}" for count, what in zip(left, ("cameras", "rows of labels"), strict=True) if count]
    note = f"{' and '.join(counted)} not shown." if counted else ""
    return _drawn([*cameras, *labelled], clocked), note[:1].upper() + note[1:]


def _camera(recording: Recording) -> str:
    return f"{recording.view} ({recording.perspective})"


def _placed(recording: Recording, start_s: float, end_s: float, label: str, clocked: bool) -> Span:
    """A label between two times of the recording's own clock, on the figure's axis."""
    if clocked:
        return Span(recording.start_offset_s + start_s, recording.start_offset_s + end_s, label)
    length_s = recording.num_frames / recording.fps
    return Span((start_s - recording.first_s) / length_s, (end_s - recording.first_s) / length_s, label)


def _of_segments(catalog: Catalog, recordings: Sequence[Recording], clocked: bool) -> list[Lane]:
    """Lanes of each kind of segments: one for all cameras with equal ones, more where segments overlap."""
    by_id = {r.id: r for r in recordings}
    found: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for s in catalog.segments:
        if s.recording in by_id:
            span = _placed(by_id[s.recording], s.start_s, s.end_s, s.label, clocked)
            found[s.name][s.recording].append(span)
    lanes = []
    for kind in sorted(found):
        for name, spans in _shared(kind, found[kind], recordings):
            lines = _side_by_side(sorted(spans, key=lambda s: (s.start, s.end)))
            lanes += [Lane(name if k == 0 else "", kind, line) for k, line in enumerate(lines)]
    return lanes


def _of_frames(catalog: Catalog, recordings: Sequence[Recording], clocked: bool) -> list[Lane]:
    """Lanes of each kind of frame labels, one for all cameras with equal ones."""
    lanes = []
    for name, of in catalog.frame_labels.items():
        found = {}
        for r in recordings:
            if r.id not in of or not len(of[r.id]):
                continue
            values = of[r.id]
            names = catalog.classes.get(frame_kind(name, r), ())
            edges = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])
            times_s = r.first_s + edges / r.fps
            found[r.id] = [
                _placed(r, a, b, names[k] if 0 <= k < len(names) else str(k), clocked)
                for a, b, k in zip(times_s[:-1], times_s[1:], values[edges[:-1]].tolist(), strict=True)
            ]
        lanes += [Lane(f"{title} (frames)", name, spans) for title, spans in _shared(name, found, recordings)]
    return lanes


def _shared(kind: str, found: dict[str, list[Span]], recordings: Sequence[Recording]) -> list[tuple[str, list[Span]]]:
    """Each different list of labels once, named after its cameras where not all have it."""
    same: dict[tuple[tuple[float, float, str], ...], list[str]] = defaultdict(list)
    for r in recordings:
        if r.id in found:
            same[tuple(sorted((round(s.start, 1), round(s.end, 1), s.label) for s in found[r.id]))].append(r.id)
    by_id = {r.id: r for r in recordings}
    out = []
    for ids in same.values():
        views = [by_id[i].view for i in ids]
        shown = ", ".join(views[:2]) + (f" + {len(views) - 2}" if len(views) > 2 else "")
        out.append((kind if len(ids) == len(recordings) else f"{kind}: {shown}", found[ids[0]]))
    return out


def _side_by_side(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans in as few lines as keep them apart, up to `MOST_OVERLAPS`; the last takes what overlaps more."""
    lines: list[list[Span]] = []
    for span in spans:
        free = next((line for line in lines if line[-1].end <= span.start + 1e-6), None)
        if free is None and len(lines) == MOST_OVERLAPS:
            free = lines[-1]
        if free is None:
            lines.append([span])
        else:
            free.append(span)
    return lines


def _drawn(lanes: Sequence[Lane], clocked: bool) -> Figure:
    """The lanes below each other, with labels written in where they fit, and legends of those that do not."""
    spans = [span for lane in lanes for span in lane.spans]
    begin, end = min((s.start for s in spans), default=0.0), max((s.end for s in spans), default=1.0)
    end = max(end, begin + 1e-3)
    legends = {}
    for kind in dict.fromkeys(lane.kind for lane in lanes):
        legends[kind] = _colours(kind, [s.label for lane in lanes if lane.kind == kind for s in lane.spans])
    letters = (_WIDTH_IN - _LEFT_IN) / _LETTER_IN  # that fit into the whole width
    unwritten = {
        (lane.kind, s.label)
        for lane in lanes
        for s in lane.spans
        if lane.kind != "camera" and len(s.label) + 1 > (s.end - s.start) / (end - begin) * letters
    }
    handles = [
        Patch(color=colour, label=_short(label, 40))
        for kind, colours in legends.items()
        for label, colour in colours.items()
        if (kind, label) in unwritten and colour != OTHER
    ]
    if any(legends[kind].get(label, OTHER) == OTHER for kind, label in unwritten):
        handles.append(Patch(color=OTHER, label="other labels"))
    legend_in = 0.2 * -(-len(handles) // 4) + 0.1 if handles else 0.0
    figure = Figure(figsize=(_WIDTH_IN, _LANE_IN * max(1, len(lanes)) + 0.55 + legend_in), layout="constrained")
    axis = figure.subplots()
    for row, lane in enumerate(lanes):
        _draw_lane(axis, row, lane, legends[lane.kind], (end - begin) / letters)
    axis.set_yticks(range(len(lanes)), [_short(lane.name, 30) for lane in lanes])
    axis.set(ylim=(len(lanes) - 0.4, -0.6), xlim=(begin, end))
    tidy(axis)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    if clocked:
        axis.set_xlabel("time on the scene's clock in s", fontsize=FONT_PX)
    else:
        axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        axis.set_xlabel("share of the way through each recording", fontsize=FONT_PX)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=FONT_PX - 1)
    return figure


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _draw_lane(axis: Axes, row: int, lane: Lane, colours: dict[str, str], letter: float) -> None:
    """One line; `letter` is the width of a letter on the axis."""
    fills = [colours.get(s.label, OTHER) for s in lane.spans]
    edge = 0.6 if len(lane.spans) < 100 else 0.0  # of many, the edges would be all that is seen
    bars = [(s.start, s.end - s.start) for s in lane.spans]
    axis.broken_barh(bars, (row - 0.4, 0.8), facecolors=fills, edgecolors="white", lw=edge)
    if lane.kind == "camera":
        start, text = lane.spans[0].start, f"from {lane.spans[0].start:.3f} s"
        if len(text) + 1 <= (lane.spans[0].end - start) / letter:
            axis.text(start + letter / 2, row, text, va="center", fontsize=FONT_PX - 2, color="white")
        return
    for k, (span, fill) in enumerate(zip(lane.spans, fills, strict=True)):
        beside = lane.spans[max(0, k - 20) : k] + lane.spans[k + 1 : k + 20]
        covered = any(other.start < span.end - 1e-6 and span.start < other.end - 1e-6 for other in beside)
        if not covered and len(span.label) + 1 <= (span.end - span.start) / letter:
            dark = np.dot(matplotlib.colors.to_rgb(fill), (0.299, 0.587, 0.114)) < 0.6
            middle = (span.start + span.end) / 2
            axis.text(
                middle, row, span.label, ha="center", va="center", fontsize=FONT_PX - 2, clip_on=True,
                color="white" if dark else "#1b1f24",
            )  # fmt: skip


def _colours(kind: str, labels: Sequence[str]) -> dict[str, str]:
    """The most frequent labels' colours, in order of their first appearance."""
    if kind == "camera":
        return {"ego": EGO, "exo": EXO}
    frequent = {label for label, _ in Counter(labels).most_common(len(LABELS))}
    shown = [label for label in dict.fromkeys(labels) if label in frequent]
    return dict(zip(shown, LABELS, strict=False))
