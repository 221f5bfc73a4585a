"""Scores by row and metric, for a terminal and as Markdown, with the best baseline marked and the margin over it."""

from __future__ import annotations

import math
from collections.abc import Collection

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from crossview.downstream.baselines import Margin, margin
from crossview.platform.evaluate.opened import TRAINED

Scores = dict[str, dict[str, float]]
"""By row and metric; a row need not have every metric."""
WIDEST = 1000
"""More characters than any table is wide."""


def lines(rows: Scores, lower: Collection[str] = ()) -> list[tuple[str, dict[str, str], Margin | None]]:
    """(metric, formatted score by row, margin over the best baseline or None) for every metric of the trained row.

    `lower`: metrics where lower is better.
    """
    found = []
    for metric, value in rows[TRAINED].items():
        cells = {row: number(scores.get(metric)) for row, scores in rows.items()}
        scored = {row: {metric: s[metric]} for row, s in rows.items() if not math.isnan(s.get(metric, math.nan))}
        best = (
            margin({**scored, TRAINED: {metric: value}}, trained=TRAINED, lower=lower)[metric]
            if scored.keys() - {TRAINED}
            else None
        )
        found.append((metric, cells, best))
    return found


def difference(best: Margin | None) -> str:
    """The margin as text."""
    return f"{best.mean:+.3f}" if best else ""


def number(value: float | None) -> str:
    """Three decimals; no decimals for a large number; empty for None."""
    if value is None:
        return ""
    if math.isnan(value):
        return "undefined"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def markdown(rows: Scores, notes: list[str], lower: Collection[str] = ()) -> str:
    """A line per metric, a column per row; the best baseline is bold."""
    text = [f"| metric | {' | '.join(rows)} | margin |", f"|---|{'---:|' * (len(rows) + 1)}"]
    for metric, cells, best in lines(rows, lower):
        marked = [f"**{cell}**" if best and row == best.baseline else cell for row, cell in cells.items()]
        text.append(f"| {metric} | {' | '.join(marked)} | {difference(best)} |")
    text += ["", f"Bold: the best baseline. Margin: {_meaning(lower)}.", ""]
    return "\n".join([*text, *(f"- {note}" for note in notes)]) + "\n"


def _meaning(lower: Collection[str], baseline: str = "the best baseline") -> str:
    """What a margin is."""
    where = f"; the reverse in {', '.join(sorted(lower))}, where lower is better" if lower else ""
    return f"trained minus {baseline}{where}"


def terminal(rows: Scores, title: str, width: int, lower: Collection[str] = ()) -> Table:
    """The same for a terminal of `width` characters; if it is too narrow for all rows, only the best baseline."""
    whole = _whole(rows, title, lower)
    wide = Console(width=WIDEST)
    return whole if Measurement.get(wide, wide.options, whole).maximum <= width else _narrow(rows, title, lower)


def _whole(rows: Scores, title: str, lower: Collection[str]) -> Table:
    """A column per row; the best baseline is underlined."""
    table = _table(title, f"underlined: the best baseline; margin: {_meaning(lower, 'that')}")
    for row in (*rows, "margin"):  # headers wrap between words, numbers never do
        width = max(6, *(len(word) for word in row.split()))
        table.add_column(row, justify="right", style="bold" if row == TRAINED else "", min_width=width, max_width=width)
    for metric, cells, best in lines(rows, lower):
        marked = [f"[underline]{c}[/]" if best and row == best.baseline else c for row, c in cells.items()]
        table.add_row(escape(metric), *marked, _coloured(best))
    return table


def _narrow(rows: Scores, title: str, lower: Collection[str]) -> Table:
    table = _table(title, f"margin: {_meaning(lower)}; the other baselines are in the saved table")
    for name in (TRAINED, "best", "margin"):
        table.add_column(name, justify="right", style="bold" if name == TRAINED else "")
    table.add_column("baseline")
    for metric, cells, best in lines(rows, lower):
        baseline = best.baseline if best else ""
        table.add_row(escape(metric), cells[TRAINED], cells.get(baseline, ""), _coloured(best), baseline)
    return table


def _table(title: str, caption: str) -> Table:
    """With the column of metrics."""
    table = Table(
        title=escape(title),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("metric", no_wrap=True)
    return table


def _coloured(best: Margin | None) -> str:
    return f"[{'green' if best and best.mean > 0 else 'red'}]{difference(best)}[/]"
