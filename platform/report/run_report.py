"""One page of a run: what was run, on how much, with which result beside which baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from crossview import storage
from crossview.downstream.table import from_arrow
from crossview.platform.config import read
from crossview.platform.evaluate.embedding_store import TRAINED
from crossview.platform.report import html, score_table
from crossview.platform.report.plots import NOT_LOSSES
from crossview.platform.run_folder import require
from crossview.platform.train.metrics import read_metrics
from crossview.storage.tables import read_table


def report(run: Path) -> Path:
    """Write `run/report.html`, self-contained: figures lie inside it, and it loads nothing.

    It shows what the run's folder holds, and says how to get what is missing.
    """
    run = require(run)
    facts = json.loads((run / "run.json").read_text())
    method, experiment = read(run)
    rows = read_metrics(run)
    return html.write(
        run / "report.html",
        "report/report.html.j2",
        run=run.name,
        method=method,
        facts=facts,
        seed=experiment.seed,
        summary=_summary(method, experiment, rows),
        evaluations=[evaluation(file) for file in sorted((run / "evaluations").glob("*.parquet")) if _is_main(file)],
        losses=_losses(rows),
        figures=_figures(run / "figures"),
        omitted=_json(run / "figures" / "omitted.json"),
        quarantine=_quarantine(run),
        config=json.dumps(facts["experiment"], indent=2),
    )


def _is_main(file: Path) -> bool:
    """Not one of the parts beside a split's table, such as the scores of each action."""
    return b"crossview" in (pq.read_schema(storage.local(file)).metadata or {})


@dataclass(frozen=True)
class Cell:
    """One number of the table."""

    text: str
    kind: str
    """Its class in the page: trained, best, or empty."""


@dataclass(frozen=True)
class Line:
    """One metric."""

    metric: str
    cells: list[Cell]
    margin: str
    good: bool
    """Whether the trained row lies above every baseline."""


@dataclass(frozen=True)
class Evaluation:
    """What one file under `evaluations/` says."""

    split: str
    rows: list[str]
    lines: list[Line]
    notes: list[str]
    verdict: str


def evaluation(file: Path) -> Evaluation:
    """The table of one split, formatted, with its notes."""
    table = read_table(file)
    facts = json.loads(table.schema.metadata[b"crossview"])
    rows = {row: {m: v[0] for m, v in scores.items()} for row, scores in from_arrow(table).items()}
    lines = []
    for metric, texts, best in score_table.lines(rows):
        baseline = best.baseline if best else None
        cells = [
            Cell(text, "trained" if row == TRAINED else "best" if row == baseline else "")
            for row, text in texts.items()
        ]
        lines.append(Line(metric, cells, score_table.difference(best), best is not None and best.mean > 0))
    won = sum(line.good for line in lines)
    verdict = (
        f"The trained embedding lies above every baseline in {won} of {len(lines)} metrics on split {facts['split']}."
    )
    return Evaluation(facts["split"], list(rows), lines, facts["notes"], verdict)


def _summary(method: str, experiment: Any, rows: Sequence[dict[str, float]]) -> dict[str, str]:
    """Facts at the top of the page, by name."""
    optim, data = experiment.optim, experiment.data
    length = f"{optim.steps} steps" if optim.steps else f"{optim.epochs} epochs"
    facts = {
        "Method": method,
        "Data": f"{data.catalog} (split {data.split}{', cached features' if data.cache_features else ''})",
        "Training": f"{length}, batch {optim.batch}, {optim.optimizer}, learning rate {optim.lr:g}",
        "Seed": str(experiment.seed),
    }
    if rows:
        last = rows[-1]
        facts["Reached"] = f"step {last['step']} after {_duration(last['time_s'])}, loss {last['loss']:.4f}"
        facts["Waiting for data"] = f"{last['data_wait']:.0%} of the training time"
    return facts


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _losses(rows: Sequence[dict[str, float]]) -> list[tuple[str, str, str]]:
    """(name, first value, last value) of each loss."""
    if not rows:
        return []
    return [(n, f"{rows[0][n]:.4f}", f"{rows[-1][n]:.4f}") for n in rows[0] if n not in NOT_LOSSES]


def _figures(folder: Path) -> list[dict[str, str]]:
    """Each picture as a data URI with its caption, in the order drawn."""
    captions = _json(folder / "captions.json")
    return [
        {"name": name, "caption": caption, "uri": html.picture(folder / name)}
        for name, caption in captions.items()
        if (folder / name).exists()
    ]


def _json(file: Path) -> dict[str, str]:
    return json.loads(file.read_text()) if file.exists() else {}


def _quarantine(run: Path) -> list[dict[str, str]]:
    """Unreadable recordings met in training or embedding, each once."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(run.rglob("quarantine.parquet")):
        for row in read_table(file).to_pylist():
            found.setdefault(row["recording"], row)
    return list(found.values())
