"""The result of a study: scores of every row over seeds, and whether each claim holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.table import Table

from crossview.downstream.baselines import margin
from crossview.downstream.table import cell, markdown, to_arrow
from crossview.methods.study import Study
from crossview.platform.progress import console

Scores = dict[str, dict[str, list[float]]]
"""By row and metric, one per seed."""


@dataclass(frozen=True)
class Verdict:
    """Whether a variant beats one rival (a row or a threshold) in one metric."""

    metric: str
    variant: str
    rival: str
    mean: float
    """Margin over the rival, paired by seed."""
    spread: float
    """Sample standard deviation of the margin over seeds."""
    holds: bool


def verdicts(study: Study, scores: Scores) -> list[Verdict]:
    """A verdict for each rival of each claim; none with a single seed, which has no spread."""
    if study.seeds < 2:
        return []
    found = []
    for claim in study.claims:
        metric, variant = claim.metric, claim.variant or next(iter(study.variants))
        own = scores[variant][metric]
        if claim.at_least is not None:
            over = margin({variant: {metric: own}, "": {metric: [claim.at_least] * len(own)}}, trained=variant)[metric]
            found.append(Verdict(metric, variant, f"at least {claim.at_least:g}", over.mean, over.spread, over.holds))
        everyone = () if claim.at_least is not None else tuple(row for row in scores if row != variant)
        for rival in (row for row in claim.over or everyone if metric in scores[row]):
            m = margin({variant: {metric: own}, rival: {metric: scores[rival][metric]}}, trained=variant)[metric]
            found.append(Verdict(metric, variant, rival, m.mean, m.spread, m.holds))
    return found


def publish(spec: str, study: Study, scores: Scores, out: Path, notes: Sequence[str] = ()) -> Path:
    """Print and save the scores of every row, whether each claim holds, and `notes` on the data."""
    file = out / "table.md"
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    title = f"`crossview reproduce {spec}`: {study.split} split, mean ± standard deviation over {seeds}."
    found = verdicts(study, scores)
    text = [title, "", markdown(scores)]
    if found:
        text += ["Margin over each rival, paired by seed; it holds where it exceeds its spread.", ""]
        text += ["| metric | row | rival | margin | spread | holds |", "|---|---|---|---:|---:|---|"]
        text += [
            f"| {v.metric} | {v.variant} | {v.rival} | {v.mean:+.3f} | {v.spread:.3f} | "
            f"{'yes' if v.holds else '**no**'} |"
            for v in found
        ]
    text += [f"- {note}" for note in notes]
    file.write_text("\n".join(text) + "\n")
    pq.write_table(to_arrow(scores), out / "table.parquet")
    if found:
        console.print(_terminal(study, scores))
        kept = sum(v.holds for v in found)
        console.print(f"{kept} of {len(found)} claimed margins exceed their spread over seeds.")
        for v in found:
            if not v.holds:
                line = f"  not shown: {v.metric} of {v.variant} against {v.rival}: {v.mean:+.3f}, spread {v.spread:.3f}"
                console.print(line, highlight=False)
    for note in notes:
        console.print(f"- {note}", highlight=False, markup=False)
    console.print(f"The table is saved to {file}", highlight=False)
    return file


def _terminal(study: Study, scores: Scores) -> Table:
    """The claimed metrics, a line per row."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    metrics = list(dict.fromkeys(claim.metric for claim in study.claims))
    table.add_column("row")
    for metric in metrics:
        table.add_column(metric.replace("/", "\n"), justify="right")
    for row, values in scores.items():
        cells = [cell(values[metric]) if metric in values else "" for metric in metrics]
        if any(cells):
            table.add_row(row, *cells, style="bold" if row in study.variants else "")
    return table
