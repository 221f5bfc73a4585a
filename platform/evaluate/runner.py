"""Score a run by downstream tasks, beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossview.downstream import results
from crossview.downstream.task import Facts, Part, Task, TaskOptions
from crossview.platform.evaluate.embedding_store import TRAINED
from crossview.platform.evaluate.facts import check_splits, facts_of
from crossview.platform.evaluate.opened import OpenRun, open_run
from crossview.platform.evaluate.parts import Reader
from crossview.platform.evaluate.result_store import (
    Text,
    append_results,
    notes_of,
    write_details,
    write_page,
    write_texts,
)
from crossview.platform.evaluate.tasks import default_tasks, make
from crossview.platform.progress import Progress, console
from crossview.platform.report.score_table import terminal
from crossview.platform.run_folder import provenance

Lines = list[dict[str, object]]


def evaluate(
    run: Path,
    *,
    split: str = "val",
    fit_split: str = "train",
    tasks: Sequence[str] | None = None,
    options: Mapping[str, TaskOptions] | None = None,
    baselines: bool = True,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
) -> pa.Table:
    """Lines of `results.SCHEMA`: the trained row and, with `baselines`, its baselines.

    Embeds what is missing, appends the lines to the run's results.parquet, writes `evaluations/<split>.md` and each
    task's further tables, and prints the scores. Only lines of this evaluation are returned. `tasks` None takes the
    default ones; `options` has those of some tasks. Raises ValueError, before anything is embedded, for an unknown
    task, for all that `Task.check` refuses, and if something would be fitted on evaluated videos.
    """
    chosen = make(default_tasks() if tasks is None else tasks, options)
    fitted = check_splits(chosen.values(), split, fit_split)
    opened = open_run(run, in_process=in_process, actors=actors, device=device)
    facts = facts_of(opened.method, opened.experiment.data, opened.catalog, split, fit_split, fitted=fitted)
    for task in chosen.values():
        task.check(facts)
    reader = Reader(opened, facts, baselines)
    answers = {name: scored(name, task, reader) for name, task in chosen.items()}
    return _publish(opened, facts, chosen, answers)


@dataclass(frozen=True)
class Row:
    """One row of one task."""

    scores: dict[str, float]
    items: int
    details: dict[str, Lines]


@dataclass(frozen=True)
class Answer:
    """The scores, notes and tables of one task."""

    rows: dict[str, Row] = field(default_factory=dict)
    """The trained one first."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    text: Text = field(default_factory=Text)


def scored(name: str, task: Task[Any, Any], reader: Reader) -> Answer:
    """Fit, predict and score every row; the task's own baselines get the trained row's parts."""
    rows, own = reader.rows(task), task.baselines()
    found: dict[str, Row] = {}
    of_own: dict[str, Row] = {}
    notes: list[str] = []
    with Progress(name.replace("_", " "), len(rows) + len(own), "rows") as line:
        for row, parts in rows.items():
            train, test = parts()
            predictions = _predictions(task, train, test)
            found[row] = _row(task, predictions, test)
            line.advance(1, row)
            if row != TRAINED:
                continue
            notes = task.notes(predictions, train, test)
            for baseline, variant in own.items():
                of_own[baseline] = _row(variant, _predictions(variant, train, test), test)
                line.advance(1, baseline)
    found |= of_own
    tables = _tables(found)
    return Answer(found, tables, Text(notes, task.markdown(tables)))


def _predictions(task: Task[Any, Any], train: Part | None, test: Part) -> Any:
    return task.predict(None if train is None else task.fit(train), test)


def _row(task: Task[Any, Any], predictions: Any, test: Part) -> Row:
    return Row(task.score(predictions, test), task.items(predictions, test), task.details(predictions, test))


def _tables(rows: dict[str, Row]) -> dict[str, pa.Table]:
    """Every row's details in one table per name."""
    lines: dict[str, Lines] = {}
    for row, of in rows.items():
        for name, found in of.details.items():
            lines.setdefault(name, []).extend({"row": row, **line} for line in found)
    return {name: pa.Table.from_pylist(found) for name, found in lines.items()}


def _publish(run: OpenRun, facts: Facts, tasks: dict[str, Task[Any, Any]], answers: dict[str, Answer]) -> pa.Table:
    """Write the files and print the table."""
    lines = _lines(run, facts, tasks, answers)
    split, protocol = facts.split, run.protocol
    table = append_results(run.path, lines)
    for name, answer in answers.items():
        write_details(run.path, split, name, answer.tables)
    texts = write_texts(run.path, split, {name: answer.text for name, answer in answers.items()})
    page = write_page(run.path, table, split, protocol)
    newest = results.latest(results.select(table, split=split, protocol=protocol))
    shown = pa.concat_tables([results.select(newest, task=name) for name in answers])
    title = f"{run.path.name}, split {split}"
    console.print(terminal(results.scores(shown), title, console.width, results.lower_is_better(shown)))
    for note in notes_of(table, shown, split, texts):
        console.print(note, highlight=False)
    console.print(f"The scores are saved to {run.path / 'results.parquet'} and {page}", highlight=False)
    return lines


def _lines(run: OpenRun, facts: Facts, tasks: dict[str, Task[Any, Any]], answers: dict[str, Answer]) -> pa.Table:
    known = {
        "dataset": "+".join(sorted({r.dataset for r in facts.test})),
        "protocol": run.protocol,
        "split": facts.split,
        "views": results.view_set(None),
        "seed": run.experiment.seed,
        "checkpoint": run.checkpoint.name,
        "commit": provenance()["commit"],
        "evaluated_at": datetime.now(UTC),
    }
    lines = []
    for name, answer in answers.items():
        options = tasks[name].options
        modes = options.metrics()
        fit_split = facts.fit_split if options.fitted else None
        for row, found in answer.rows.items():
            of = known | {"task": name, "fit_split": fit_split, "row": row, "n": found.items}
            lines += [
                of | {"metric": metric, "value": value, "mode": modes.get(metric, "max")}
                for metric, value in found.scores.items()
            ]
    return pa.Table.from_pylist(lines, schema=results.SCHEMA)
