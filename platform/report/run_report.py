"""The HTML report of a run: its configuration, data, scores and baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossview import storage
from crossview.downstream import results
from crossview.platform.config import saved
from crossview.platform.evaluate.opened import TRAINED
from crossview.platform.evaluate.result_store import notes_of, read_results, read_texts, scored_by_an_earlier_version
from crossview.platform.report import html, score_table
from crossview.platform.report.plots import loss_names
from crossview.platform.run_folder import require
from crossview.platform.train.metrics import read_metrics
from crossview.storage.tables import read_table


def report(run: Path) -> Path:
    """Write `run/report.html`, self-contained: figures are embedded, and it loads nothing.

    It shows what is in the run's folder, and says how to get what is missing.
    """
    return html.write(require(run) / "report.html", "report/report.html.j2", **contents(run))


def contents(run: Path) -> dict[str, Any]:
    """The values of that page's template."""
    run = require(run)
    found = saved(run)
    method, experiment, facts = found.method, found.experiment, found.info
    rows = read_metrics(run)
    return {
        "run": run.name,
        "method": method,
        "facts": facts,
        "seed": experiment.seed,
        "summary": _summary(method, experiment, rows),
        "evaluations": _evaluations(run),
        "outdated": scored_by_an_earlier_version(run),
        "losses": _losses(rows),
        "figures": _figures(run / "figures"),
        "omitted": _json(run / "figures" / "omitted.json"),
        "quarantine": _quarantine(run),
        "config": json.dumps(facts["experiment"], indent=2),
    }


@dataclass(frozen=True)
class Cell:
    """One number of the table."""

    text: str
    kind: str
    """Its CSS class: trained, best, or empty."""


@dataclass(frozen=True)
class Line:
    """One metric."""

    metric: str
    cells: list[Cell]
    margin: str
    good: bool
    """Whether the trained row is better than every baseline."""


@dataclass(frozen=True)
class Evaluation:
    """The latest scores of one split."""

    split: str
    protocol: str
    rows: list[str]
    lines: list[Line]
    notes: list[str]
    verdict: str


def _evaluations(run: Path) -> list[Evaluation]:
    """One per protocol and split, in alphabetical order."""
    table = read_results(run)
    if table is None:
        return []
    pairs = sorted(set(zip(table["split"].to_pylist(), table["protocol"].to_pylist(), strict=True)))
    return [_evaluation(run, table, split, protocol) for split, protocol in pairs]


def _evaluation(run: Path, table: pa.Table, split: str, protocol: str) -> Evaluation:
    """The latest scores of one split, formatted, with their notes."""
    newest = results.latest(results.select(table, split=split, protocol=protocol))
    rows, lower = results.scores(newest), results.lower_is_better(newest)
    lines = []
    for metric, texts, best in score_table.lines(rows, lower):
        baseline = best.baseline if best else None
        cells = [
            Cell(text, "trained" if row == TRAINED else "best" if row == baseline else "")
            for row, text in texts.items()
        ]
        lines.append(Line(metric, cells, score_table.difference(best), best is not None and best.mean > 0))
    won = sum(line.good for line in lines)
    verdict = f"The trained embedding is better than every baseline in {won} of {len(lines)} metrics on split {split}."
    notes = notes_of(table, newest, split, read_texts(run, split))
    return Evaluation(split, protocol, list(rows), lines, notes, verdict)


def _summary(method: str, experiment: Any, rows: Sequence[dict[str, float]]) -> dict[str, str]:
    """Facts at the top of the report, by name."""
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
        if last.get("samples_per_s"):
            peak = max(row.get("peak_memory_gb", 0.0) for row in rows)
            speed = f"{last['samples_per_s']:.1f} samples/s in the end"
            facts["Speed and memory"] = f"{speed}, at most {peak:.1f} GiB on a worker"
    return facts


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _losses(rows: Sequence[dict[str, float]]) -> list[tuple[str, str, str]]:
    """(name, first value, last value) of each loss."""
    if not rows:
        return []
    return [(n, f"{rows[0][n]:.4f}", f"{rows[-1][n]:.4f}") for n in loss_names(rows[0])]


def _figures(folder: Path) -> list[dict[str, str]]:
    """Each picture as a data URI with its caption, in drawing order."""
    captions = _json(folder / "captions.json")
    return [
        {"name": name, "caption": caption, "uri": html.picture(folder / name)}
        for name, caption in captions.items()
        if (folder / name).exists()
    ]


def _json(file: Path) -> dict[str, str]:
    found: dict[str, str] = storage.read_json(file, f"delete {file.parent} and report again") if file.exists() else {}
    return found


def _quarantine(run: Path) -> list[dict[str, str]]:
    """Recordings found unreadable in training or embedding, each once."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(run.rglob("quarantine.parquet")):
        for row in read_table(file).to_pylist():
            found.setdefault(row["recording"], row)
    return list(found.values())
