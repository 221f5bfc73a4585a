"""Result tables: scores by row and metric as Markdown and as Arrow."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from crossview.downstream.baselines import Rows, Value, per_seed, spread

SCHEMA = pa.schema([("row", pa.string()), ("metric", pa.string()), ("seed", pa.int32()), ("value", pa.float64())])


def markdown(rows: Rows, *, digits: int = 3) -> str:
    """A Markdown table, a line per row and a column per metric: mean, and ± sample standard deviation over seeds."""
    metrics = list(dict.fromkeys(metric for scores in rows.values() for metric in scores))
    lines = [["", *metrics], ["---", *["---:"] * len(metrics)]]
    for name, scores in rows.items():
        lines.append([name, *(cell(scores[metric], digits) if metric in scores else "" for metric in metrics)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(value: Value, digits: int = 3) -> str:
    """A score as text, "0.731 ± 0.012"; without the spread where there is a single seed.

    Seeds without one (NaN) are left out and said: "0.731 ± 0.012 (4 of 5)", or "undefined" if there is none.
    """
    values = per_seed(value)
    found = values[~np.isnan(values)]
    if not len(found):
        return "undefined"
    deviation = spread(found)
    mean = f"{found.mean():.{digits}f}"
    shown = mean if math.isnan(deviation) else f"{mean} ± {deviation:.{digits}f}"
    return shown if len(found) == len(values) else f"{shown} ({len(found)} of {len(values)})"


def to_arrow(rows: Rows) -> pa.Table:
    """Long form, one line per row, metric and seed (its position in the list)."""
    lines = [
        {"row": name, "metric": metric, "seed": seed, "value": float(single)}
        for name, scores in rows.items()
        for metric, value in scores.items()
        for seed, single in enumerate(per_seed(value))
    ]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def from_arrow(table: pa.Table) -> dict[str, dict[str, list[float]]]:
    """Scores by row and metric, one per seed, from what `to_arrow` made."""
    rows: dict[str, dict[str, list[float]]] = {}
    for line in table.sort_by([("seed", "ascending")]).to_pylist():
        rows.setdefault(line["row"], {}).setdefault(line["metric"], []).append(line["value"])
    return rows
