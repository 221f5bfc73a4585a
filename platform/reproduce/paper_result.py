"""A table's result in four forms: for the terminal, as Markdown, as LaTeX and as an HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from crossview import storage
from crossview.downstream.baselines import spread
from crossview.methods.paper_table import Column, PaperTable, Row
from crossview.platform.progress import console
from crossview.platform.report import html
from crossview.platform.report.score_table import WIDEST
from crossview.storage.tables import write_table

PAPER, OURS, DIFFERENCE = "paper", "ours", "difference"
NOT_REPORTED = "not reported"
SYNTHETIC = (
    "SYNTHETIC: tiny networks, a handful of steps, and an export of the synthetic world in each dataset's layout. Our "
    "numbers show only that the table runs from end to end; they say nothing about the method."
)
MEANING = "Ours is the mean ± sample standard deviation over seeds; difference is that mean minus the paper's number."
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "²": r"$^2$", "τ": r"$\tau$", "—": "---",
    "−": "$-$",
}  # fmt: skip
MARK = "[synthetic] "
"""Begins every line that a scaled-down run prints, and names every row that it saves."""


@dataclass(frozen=True)
class Line:
    """A row of the paper with our scores."""

    row: Row
    ours: tuple[tuple[float, ...], ...]
    """By column, one per seed on the paper's scale; empty where there is none."""


@dataclass(frozen=True)
class Result:
    """What all forms show."""

    spec: str
    table: PaperTable
    lines: tuple[Line, ...]
    seeds: int
    command: str
    synthetic: bool

    @property
    def title(self) -> str:
        """One line."""
        seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        return f"{self.spec}: {self.table.title} ({self.table.paper}, {self.table.number}), {seeds}"

    @property
    def remarks(self) -> list[str]:
        """Below the table."""
        notes = [f"{label(line.row)}: {line.row.note}." for line in self.lines if line.row.note]
        return [*([SYNTHETIC] if self.synthetic else []), MEANING, *self.table.remarks, *dict.fromkeys(notes)]


def label(row: Row) -> str:
    """The row's name, unique in its table."""
    return f"{row.group}, {row.label}" if row.group else row.label


def lines_of(result: Result) -> Iterator[tuple[Row, str, list[str]]]:
    """(row, "paper", "ours" or "difference", cells by column); a row that is not run has the paper's line alone."""
    for line in result.lines:
        columns = list(zip(result.table.columns, line.row.paper, line.ours, strict=True))
        yield line.row, PAPER, [NOT_REPORTED if paper is None else _number(paper, c) for c, paper, _ in columns]
        if line.row.stage is None:
            continue
        yield line.row, OURS, [_ours(values, c) for c, _, values in columns]
        if any(paper is not None for paper in line.row.paper):
            yield line.row, DIFFERENCE, [_difference(values, paper, c) for c, paper, values in columns]


def _number(value: float, column: Column) -> str:
    """With the column's decimals, or more where the paper prints more."""
    shown = f"{value:.{column.digits}f}"
    return shown if math.isclose(float(shown), value) else f"{value:g}"


def _ours(values: tuple[float, ...], column: Column) -> str:
    if not values:
        return "undefined"
    deviation = spread(np.array(values))
    mean = f"{np.mean(values):.{column.digits}f}"
    return mean if math.isnan(deviation) else f"{mean} ± {deviation:.{column.digits}f}"


def _difference(values: tuple[float, ...], paper: float | None, column: Column) -> str:
    return "" if not values or paper is None else f"{np.mean(values) - paper:+.{column.digits}f}"


def _mark(result: Result) -> str:
    return MARK if result.synthetic else ""


def terminal(result: Result, width: int) -> list[Table]:
    """As many tables as its columns need at this width."""
    wide = Console(width=WIDEST)

    def fits(part: list[int]) -> bool:
        return Measurement.get(wide, wide.options, _terminal(result, part)).maximum <= width

    parts: list[list[int]] = [[]]
    for k in range(len(result.table.columns)):
        if parts[-1] and not fits([*parts[-1], k]):
            parts.append([])
        parts[-1].append(k)
    return [_terminal(result, part) for part in parts]


def _terminal(result: Result, part: list[int]) -> Table:
    """The columns with these numbers."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("row", no_wrap=True)
    table.add_column("", no_wrap=True)
    for k in part:
        table.add_column(result.table.columns[k].heading, justify="right", no_wrap=True)
    group, named = "", ""
    for row, kind, cells in lines_of(result):
        if row.group != group:
            group = row.group
            table.add_row(f"[bold]{_plain(group)}[/]", "", *("" for _ in part))
        name = "" if named == label(row) else _plain(row.label)
        named = label(row)
        table.add_row(name, kind, *(cells[k] for k in part), style="bold" if kind == OURS else "")
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def markdown(result: Result) -> str:
    """A line per row and kind of number."""
    headings = ["row", "", *(column.heading for column in result.table.columns)]
    text = [f"# {_mark(result)}{result.title}", "", f"`{result.command}`", ""]
    text += [f"| {' | '.join(headings)} |", f"|---|---|{'---:|' * len(result.table.columns)}"]
    for row, kind, cells in lines_of(result):
        bold = [f"**{cell}**" if kind == OURS else cell for cell in cells]
        text.append(f"| {' | '.join([f'{_mark(result)}{label(row)}'.replace('*', chr(92) + '*'), kind, *bold])} |")
    return "\n".join([*text, "", *(f"- {_mark(result)}{note}" for note in _starred(result.remarks)), ""])


def _starred(notes: list[str]) -> list[str]:
    return [note.replace("*", r"\*") for note in notes]


def latex(result: Result) -> str:
    r"""A booktabs table; the document needs \usepackage{booktabs}."""
    columns = result.table.columns
    text = [
        f"% {_mark(result)}{result.command}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(_mark(result) + result.title)}}}",
        rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["row", "", *(tex(column.heading) for column in columns)]) + r" \\",
        r"\midrule",
    ]
    group = next(iter(result.lines)).row.group
    for row, kind, cells in lines_of(result):
        if row.group != group:
            group = row.group
            text.append(r"\midrule")
        shown = [rf"\textbf{{{tex(cell)}}}" if kind == OURS else tex(cell) for cell in cells]
        text.append(" & ".join([tex(_mark(result) + label(row)), kind, *shown]) + r" \\")
    notes = [tex(_mark(result) + note) + r"\par" for note in result.remarks]
    below = [r"\smallskip", r"\begin{minipage}{\linewidth}\footnotesize", *notes, r"\end{minipage}"]
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", "", *below, r"\end{table}", ""])


def tex(text: str) -> str:
    """Text with what LaTeX reads as commands escaped; "[" is put in braces, as it may follow a line's end."""
    sign = "$-$" if text.startswith("-") else ""
    return sign + "".join(_TEX.get(c, c) for c in text.removeprefix("-" if sign else "")).replace("[", "{[}")


def arrow(result: Result) -> pa.Table:
    """Long form: a line per row, column and seed, or one without a seed where there is no score of ours."""
    rows = []
    for line in result.lines:
        for column, paper, values in zip(result.table.columns, line.row.paper, line.ours, strict=True):
            for seed, value in enumerate(values or (None,)):
                known = {"row": _mark(result) + label(line.row), "column": column.heading, "paper": paper}
                rows.append(known | {"seed": seed if values else None, "ours": value, "synthetic": result.synthetic})
    fields = {"row": pa.string(), "column": pa.string(), "paper": pa.float64(), "seed": pa.int32()}
    return pa.Table.from_pylist(rows, pa.schema({**fields, "ours": pa.float64(), "synthetic": pa.bool_()}))


def page(result: Result, file: Path) -> Path:
    """The HTML page."""
    shown, before = [], None
    for row, kind, cells in lines_of(result):
        shown.append(
            {
                "group": row.group if row.group != before else "",
                "row": _mark(result) + row.label,
                "kind": kind,
                "cells": cells,
                "first": kind == PAPER,
            }
        )
        before = row.group
    headings = [column.heading for column in result.table.columns]
    return html.write(
        file, "reproduce/table.html.j2", result=result, headings=headings, lines=shown, mark=_mark(result).strip()
    )


def publish(result: Result, out: Path) -> Path:
    """Print the table and save table.md, table.tex, table.html and table.parquet in `out`, which is returned."""
    console.print(result.title, highlight=False, markup=False, soft_wrap=True)
    for table in terminal(result, console.width):
        console.print(table)
    for note in result.remarks:
        console.print(f"- {note}", highlight=False, markup=False)
    storage.write_text(out / "table.md", markdown(result))
    storage.write_text(out / "table.tex", latex(result))
    write_table(arrow(result), out / "table.parquet")
    page(result, out / "table.html")
    console.print(
        f"The table is saved to {out}/table.{{md,tex,html,parquet}}", highlight=False, markup=False, soft_wrap=True
    )
    return out
