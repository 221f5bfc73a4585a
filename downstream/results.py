"""The scores of a run: one table that every evaluation appends to; readers use the latest lines."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

ALL_VIEWS = "all"

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("protocol", pa.string()),
        ("split", pa.string()),
        ("fit_split", pa.string()),
        ("task", pa.string()),
        ("views", pa.string()),
        ("row", pa.string()),
        ("seed", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("mode", pa.string()),
        ("n", pa.int64()),
        ("checkpoint", pa.string()),
        ("commit", pa.string()),
        ("evaluated_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""views: the cameras scored, `view_set`. row: "trained" or a baseline. mode: "max" or "min", the metric's better end.

fit_split: null where nothing was fitted. n: frames, clips or samples scored. evaluated_at: the same in all lines of one
evaluation. commit: null outside a checkout.
"""
_SCORE = ("protocol", "split", "task", "views", "row", "metric")
"""Lines that agree in these are the same score, evaluated again."""


def view_set(views: Sequence[str] | None) -> str:
    """How a set of cameras is named in the column "views"; None takes all."""
    return ALL_VIEWS if views is None else "+".join(sorted(views))


def appended(table: pa.Table | None, lines: pa.Table) -> pa.Table:
    """The table with further lines at its end."""
    return lines if table is None else pa.concat_tables([table, lines])


def latest(table: pa.Table) -> pa.Table:
    """The latest line of every score, in the order in which scores first appeared."""
    keys = zip(*(table[name].to_pylist() for name in _SCORE), strict=True)
    newest: dict[tuple[str, ...], int] = {}
    times = table["evaluated_at"].cast(pa.int64()).to_pylist()
    for place, key in enumerate(keys):
        if key not in newest or times[place] >= times[newest[key]]:
            newest[key] = place
    return table.take(pa.array(list(newest.values()), pa.int64()))


def select(table: pa.Table, **values: str) -> pa.Table:
    """The lines whose columns have these values."""
    for column, value in values.items():
        table = table.filter(pc.equal(table[column], value))
    return table


def scores(table: pa.Table) -> dict[str, dict[str, float]]:
    """By row and metric, which ends in " [CAMERAS]" where not all are scored; of lines that agree in both, the last."""
    rows: dict[str, dict[str, float]] = {}
    for line in table.select(["row", "metric", "views", "value"]).to_pylist():
        rows.setdefault(line["row"], {})[_named(line["metric"], line["views"])] = line["value"]
    return rows


def _named(metric: str, views: str) -> str:
    return metric if views == ALL_VIEWS else f"{metric} [{views}]"


def lower_is_better(table: pa.Table) -> frozenset[str]:
    """Metrics where lower is better."""
    lines = select(table, mode="min").select(["metric", "views"]).to_pylist()
    return frozenset(_named(line["metric"], line["views"]) for line in lines)


def evaluations(table: pa.Table, split: str) -> int:
    """How often the run has been scored on a split."""
    return len(pc.unique(select(table, split=split)["evaluated_at"]))
