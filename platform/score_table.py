"""Scores by row and metric for a terminal and as Markdown, the best control marked and the margin over it."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table

from crossview.downstream.controls import Margin, margin
from crossview.platform.rows import TRAINED
from crossview.platform.task import Scores


def lines(rows: Scores) -> list[tuple[str, dict[str, str], Margin]]:
    """(metric, formatted score by row, margin over the best control) for every metric."""
    margins = margin(rows, trained=TRAINED)
    return [(m, {row: number(scores.get(m)) for row, scores in rows.items()}, margins[m]) for m in rows[TRAINED]]


def number(value: float | None) -> str:
    """Three decimals; none where the number is large; nothing where there is none."""
    if value is None:
        return ""
    if math.isnan(value):
        return "undefined"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def markdown(rows: Scores, notes: list[str]) -> str:
    """A line per metric, a column per row; the best control is bold."""
    text = [f"| metric | {' | '.join(rows)} | margin |", f"|---|{'---:|' * (len(rows) + 1)}"]
    for metric, cells, best in lines(rows):
        marked = [f"**{cell}**" if row == best.control else cell for row, cell in cells.items()]
        text.append(f"| {metric} | {' | '.join(marked)} | {best.mean:+.3f} |")
    text += ["", "Bold: the best control. Margin: trained minus the best control.", ""]
    return "\n".join([*text, *(f"- {note}" for note in notes)]) + "\n"


def terminal(rows: Scores, title: str) -> Table:
    """The same for a terminal; the best control is underlined."""
    table = Table(
        title=title,
        title_justify="left",
        caption="underlined: the best control; margin: trained minus that",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("metric", no_wrap=True)
    for row in (*rows, "margin"):  # headers wrap between words, numbers never do
        width = max(6, *(len(word) for word in row.split()))
        table.add_column(row, justify="right", style="bold" if row == TRAINED else "", min_width=width)
    for metric, cells, best in lines(rows):
        marked = [f"[underline]{c}[/]" if row == best.control else c for row, c in cells.items()]
        colour = "green" if best.mean > 0 else "red"
        table.add_row(metric, *marked, f"[{colour}]{best.mean:+.3f}[/]")
    return table
