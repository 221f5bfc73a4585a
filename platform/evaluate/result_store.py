"""`results.parquet` of a run, and what is saved beside it for readers: notes, text, further tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crossview import storage
from crossview.downstream import results
from crossview.platform.report import score_table
from crossview.platform.run_folder import write_json
from crossview.storage.tables import RESTORE, read_table, write_table

FILE, FOLDER = "results.parquet", "evaluations"
ONE_SEED = "One seed: nothing is decided by these margins; crossview reproduce compares several seeds."


@dataclass(frozen=True)
class Text:
    """What a reader has to know about a task's latest scores."""

    notes: list[str] = field(default_factory=list)
    markdown: str = ""
    """Follows the table of scores."""


def read_results(run: Path) -> pa.Table | None:
    """All scores ever recorded; None if the run has not been evaluated."""
    file = run / FILE
    return read_table(file, fix=f"{RESTORE} with `crossview evaluate {run}`") if storage.is_file(file) else None


def append_results(run: Path, lines: pa.Table) -> pa.Table:
    """Append lines to the run's table; returns the whole table."""
    table = results.appended(read_results(run), lines)
    write_table(table, run / FILE)
    return table


def latest_scores(run: Path, **values: str) -> dict[str, dict[str, float]]:
    """The latest scores by row and metric, of the lines whose columns have these values; {} if there are none."""
    table = read_results(run)
    return {} if table is None else results.scores(results.latest(results.select(table, **values)))


def has_scores(run: Path, split: str, tasks: tuple[str, ...]) -> bool:
    """Whether every one of these tasks has been scored on a split."""
    table = read_results(run)
    return table is not None and set(tasks) <= set(results.select(table, split=split)["task"].to_pylist())


def scored_by_an_earlier_version(run: Path) -> bool:
    """Whether there are scores of a version before 0.4, which are not read."""
    folder = run / FOLDER
    if not folder.is_dir():
        return False
    return any(b"crossview" in (pq.read_schema(storage.local(f)).metadata or {}) for f in folder.glob("*.parquet"))


def write_texts(run: Path, split: str, texts: dict[str, Text]) -> dict[str, Text]:
    """Replace the notes of these tasks; returns those of all."""
    kept = read_texts(run, split) | texts
    storage.make_folder(run / FOLDER)
    values = {task: {"notes": text.notes, "markdown": text.markdown} for task, text in kept.items()}
    write_json(run / FOLDER / f"{split}.json", values)
    return kept


def read_texts(run: Path, split: str) -> dict[str, Text]:
    """By task."""
    file = run / FOLDER / f"{split}.json"
    if not storage.is_file(file):
        return {}
    values: dict[str, dict[str, Any]] = storage.read_json(file, f"delete it and evaluate split {split} again")
    return {task: Text(**value) for task, value in values.items()}


def write_details(run: Path, split: str, task: str, tables: dict[str, pa.Table]) -> None:
    """A task's further tables, one file each."""
    storage.make_folder(run / FOLDER)
    for name, table in tables.items():
        write_table(table, run / FOLDER / f"{split}-{task}-{name}.parquet")


def notes_of(table: pa.Table, newest: pa.Table, split: str, texts: dict[str, Text]) -> list[str]:
    """All notes on the latest lines of a split; `table` is the run's whole table."""
    tasks = dict.fromkeys(newest["task"].to_pylist())
    notes = [note for task in tasks if task in texts for note in texts[task].notes]
    checkpoints = sorted(set(newest["checkpoint"].to_pylist()))
    if len(checkpoints) > 1:
        notes.append(
            f"These scores come from several checkpoints ({', '.join(checkpoints)}); evaluate all tasks again to "
            "compare them."
        )
    notes.append(ONE_SEED)
    if split == "test":
        times = results.evaluations(table, split)
        notes.append(
            f"Test split: select on val and score on test once. This run has been scored on test {times} time(s)."
        )
    return notes


def write_page(run: Path, table: pa.Table, split: str, protocol: str) -> Path:
    """`evaluations/<split>.md` with the latest scores of every task."""
    newest = results.latest(results.select(table, split=split, protocol=protocol))
    texts = read_texts(run, split)
    file = run / FOLDER / f"{split}.md"
    page = score_table.markdown(
        results.scores(newest), notes_of(table, newest, split, texts), results.lower_is_better(newest)
    )
    below = "".join(texts[task].markdown for task in dict.fromkeys(newest["task"].to_pylist()) if task in texts)
    storage.write_text(file, page + below)
    return file
