"""The result of a study: scores of every row over seeds, and whether each claim holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.table import Table

from crossview.downstream.paired import SEEDS, Decision, Difference, Verdict, decide
from crossview.downstream.table import cell, markdown, to_arrow
from crossview.errors import UserError
from crossview.methods.study import Claim, Study
from crossview.platform.progress import console

Scores = dict[str, dict[str, list[float]]]
"""By row and metric, one per seed; NaN for a seed without one."""
SEVERAL = {
    Verdict.HOLDS: "hold",
    Verdict.NOT_SHOWN: "are NOT shown",
    Verdict.REVERSED: "are the other way round",
    Verdict.UNDECIDED: "cannot be decided",
}


@dataclass(frozen=True)
class Claimed:
    """A claim of the study with what was decided on it."""

    metric: str
    variant: str
    decision: Decision

    @property
    def sentence(self) -> str:
        """What is claimed, whether it holds, and the numbers of the hardest row."""
        rivals, hardest = self.decision.differences, self.decision.hardest
        over = hardest.rival if len(rivals) == 1 else f"{len(rivals)} rows"
        shown = "" if len(rivals) == 1 else f"hardest is {hardest.rival}, "
        verdict = self.decision.verdict.value
        return f"{self.metric}: the claim of {self.variant} over {over} {verdict}: {shown}{hardest.text()}"


def decisions(study: Study, scores: Scores) -> list[Claimed]:
    """On all claims of the study, together; raises UserError for one in a row or metric that has no scores at all."""
    found = []
    for claim in study.claims:
        variant = claim.variant or next(iter(study.variants))
        own = _values(scores, variant, claim.metric)
        decision = decide(own, _rivals(study, claim, variant, scores), len(study.claims))
        found.append(Claimed(claim.metric, variant, decision))
    return found


def _rivals(study: Study, claim: Claim, variant: str, scores: Scores) -> dict[str, list[float]]:
    """Scores of the rows that a claim names, or of all others that have its metric; a threshold is one too."""
    others = [row for row, values in scores.items() if row != variant and claim.metric in values]
    rows = claim.over or (() if claim.at_least is not None else others)
    rivals = {row: _values(scores, row, claim.metric) for row in rows}
    if claim.at_least is not None:
        rivals[f"the threshold {claim.at_least:g}"] = [claim.at_least] * study.seeds
    if not rivals:
        raise UserError(
            f"study: no row but {variant!r} has {claim.metric!r}; a claim names one in `over`, or a threshold"
        )
    return rivals


def _values(scores: Scores, row: str, metric: str) -> list[float]:
    """None where this row lacks the metric and others have it: the claim cannot be decided then."""
    if row not in scores:
        raise UserError(f"study: a claim is about row {row!r}, which has no scores; the rows are {', '.join(scores)}")
    known = dict.fromkeys(name for values in scores.values() for name in values)
    if metric not in known:
        raise UserError(
            f"study: a claim is about metric {metric!r}, which no row has; the metrics are {', '.join(known)}"
        )
    return scores[row].get(metric, [])


def publish(spec: str, study: Study, scores: Scores, out: Path, notes: Sequence[str] = ()) -> Path:
    """Print and save the scores of every row, whether each claim holds, and `notes` on the data."""
    file = out / "table.md"
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    title = f"`crossview reproduce {spec}`: {study.split} split, mean ± standard deviation over {seeds}."
    pq.write_table(to_arrow(scores), out / "table.parquet")
    found = decisions(study, scores)
    text = [title, "", markdown(scores)]
    if found:
        text += [_summary(study, found), "", *(_claims(found) if study.seeds > 1 else ())]
    text += [f"- {note}" for note in notes]
    file.write_text("\n".join(text) + "\n")
    if found:
        console.print(_terminal(study, scores))
        console.print(_summary(study, found), highlight=False)
        for one in found if study.seeds > 1 else ():
            console.print(f"- {one.sentence}", highlight=False, markup=False)
    for note in notes:
        console.print(f"- {note}", highlight=False, markup=False)
    console.print(f"The table is saved to {file}", highlight=False)
    return file


def _summary(study: Study, found: list[Claimed]) -> str:
    """How many claims were decided in which way, and how."""
    claims = len(found)
    if study.seeds < 2:
        return f"1 seed: nothing is decided. The {claims} claims take differences over {SEEDS} seeds."
    counts = Counter(one.decision.verdict for one in found)
    ways = ", ".join(f"{n} {v.value if n == 1 else SEVERAL[v]}" for v in SEVERAL if (n := counts[v]))
    few = f" {study.seeds} seeds are few: a study takes {SEEDS}." if study.seeds < SEEDS else ""
    return (
        f"Of {claims} claims decided together, {ways}.{few} A claim holds if the 95 % interval of its differences by "
        "seed is above 0 over each row that it must beat (Student's t, two-sided, Bonferroni's correction for "
        f"{claims} claims)."
    )


def _claims(found: list[Claimed]) -> list[str]:
    """Two Markdown tables: the claims with the hardest row of each, and the differences from all rows."""
    text = ["| metric | row | claim | hardest row | difference | 95 % interval | d_z | seeds |"]
    text += ["|---|---|---|---|---:|---:|---:|---:|"]
    for one in found:
        verdict = one.decision.verdict
        said = verdict.value if verdict is Verdict.HOLDS else f"**{verdict.value}**"
        text.append(f"| {one.metric} | {one.variant} | {said} | {_cells(one.decision.hardest)} |")
    text += ["", "A claim is the other way round if an interval, corrected for the number of its rows too, is below 0."]
    text += ["d_z is the mean of the differences over their standard deviation. All rows, hardest first:", ""]
    text += ["| metric | row | from | difference | 95 % interval | d_z | seeds |", "|---|---|---|---:|---:|---:|---:|"]
    for one in found:
        text += [f"| {one.metric} | {one.variant} | {_cells(d)} |" for d in one.decision.differences]
    return [*text, ""]


def _cells(d: Difference) -> str:
    """A dash where a number is not defined."""
    interval = "-" if math.isnan(d.low) else f"{d.low:+.3f} to {d.high:+.3f}"
    effect = "-" if math.isnan(d.effect) else f"{d.effect:.1f}"
    mean = f"{d.mean:+.3f}" if d.pairs else "-"
    return f"{d.rival} | {mean} | {interval} | {effect} | {d.pairs} of {d.seeds}"


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
