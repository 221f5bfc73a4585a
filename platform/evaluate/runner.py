"""Score a run by downstream tasks, beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossview.downstream import results
from crossview.downstream.task import Facts, Part, PredictionOptions, PredictionPart, Task, TaskOptions
from crossview.platform.evaluate.fixed_rows import FixedRows, Lines, Row
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED, Baselines, OpenRun, open_run
from crossview.platform.evaluate.parts import Reader, is_whole
from crossview.platform.evaluate.preflight import Tasks, preflight
from crossview.platform.evaluate.result_store import (
    FILE,
    FOLDER,
    Text,
    append_results,
    notes_of,
    read_results,
    read_texts,
    write_details,
    write_page,
    write_texts,
)
from crossview.platform.evaluate.tasks import default_tasks, make
from crossview.platform.progress import Progress, console
from crossview.platform.report.score_table import terminal
from crossview.platform.run_folder import provenance


def evaluate(
    run: Path,
    *,
    split: str = "val",
    fit_split: str = "train",
    tasks: Sequence[str] | None = None,
    options: Mapping[str, TaskOptions] | None = None,
    checkpoint: str = "latest",
    baselines: bool = True,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
) -> pa.Table:
    """Lines of `results.SCHEMA`: the trained row and, with `baselines`, its baselines.

    Embeds what is missing, appends the lines to the run's results.parquet, writes `evaluations/<split>.md` and each
    task's further tables, and prints the scores. Only lines of this evaluation are returned. `tasks` None takes the
    default ones; `options` has those of some tasks; `checkpoint` is "latest", "best" or a step. Raises ValueError,
    before anything is embedded, for an unknown task, for all that `preflight` refuses, and if something would be fitted
    on evaluated videos.
    """
    opened = open_run(run, checkpoint=checkpoint, in_process=in_process, actors=actors, device=device)
    chosen = make(default_tasks(opened.method) if tasks is None else tasks, options)
    facts = preflight(chosen, opened.method, opened.experiment, opened.catalog, split, fit_split)
    lines = record(opened, facts, chosen, "all" if baselines else "none")
    show(opened.path, split, opened.protocol, tuple(chosen))
    return lines


def record(run: OpenRun, facts: Facts, tasks: Tasks, baselines: Baselines) -> pa.Table:
    """Score a checkpoint by tasks that `preflight` has passed and add the scores to the run's; returns their lines."""
    reader = Reader(run, facts, baselines)
    answers = {name: scored(name, task, reader) for name, task in tasks.items()}
    lines = _lines(run, facts, tasks, answers)
    table = append_results(run.path, lines)
    for name, answer in answers.items():
        write_details(run.path, facts.split, name, answer.tables)
    write_texts(run.path, facts.split, {name: answer.text for name, answer in answers.items()})
    write_page(run.path, table, facts.split, run.protocol)
    return lines


def show(run: Path, split: str, protocol: str, tasks: Sequence[str]) -> None:
    """Print the latest scores of some tasks on a split, beside their baselines."""
    table = read_results(run)
    assert table is not None
    newest = results.latest(results.select(table, split=split, protocol=protocol))
    shown = pa.concat_tables([results.select(newest, task=name) for name in tasks])
    lower = results.lower_is_better(shown)
    console.print(terminal(results.scores(shown), f"{run.name}, split {split}", console.width, lower))
    for note in notes_of(table, shown, split, read_texts(run, split)):
        console.print(note, highlight=False, markup=False)
    console.print(f"The scores are saved to {run / FILE} and {run / FOLDER / split}.md", highlight=False, markup=False)


@dataclass(frozen=True)
class Answer:
    """The scores, notes and tables of one task."""

    rows: dict[str, Row] = field(default_factory=dict)
    """The trained one first."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    text: Text = field(default_factory=Text)


def scored(name: str, task: Task[Any, Any], reader: Reader) -> Answer:
    """Fit, predict and score every row; the task's own baselines get the trained row's parts.

    Rows that training does not change are scored at the run's first evaluation only.
    """
    fixed = FixedRows(reader, name, task) if reader.baselines != "none" else None
    known = fixed.read() if fixed else {}
    rows = reader.rows(task, known)
    every = task.baselines().items()
    own = {row: of for row, of in every if row not in known and (of.fixed or reader.baselines != "fixed")}
    found: dict[str, Row] = {}
    of_own: dict[str, Row] = {}
    notes: list[str] = []
    whole = True
    with Progress(name.replace("_", " "), len(rows) + len(own), "rows") as line:
        for row, parts in rows.items():
            train, test = parts()
            predictions = _predictions(task, train, test)
            found[row] = _row(task, predictions, test)
            whole = whole and all(is_whole(part) for part in (train, test) if part is not None)
            line.advance(1, row)
            if row != TRAINED:
                continue
            notes = [
                *task.notes(predictions, train, test),
                *(test.held_out() if isinstance(test, PredictionPart) else []),
            ]
            for baseline, variant in own.items():
                of_own[baseline] = _row(variant, _predictions(variant, train, test), test)
                line.advance(1, baseline)
    found = _in_order(found | of_own | known, task)
    lasting = reader.run.fixed_rows | {row for row, variant in every if variant.fixed}
    if fixed and whole and not lasting & found.keys() <= known.keys():
        fixed.write({row: of for row, of in found.items() if row in lasting})
    tables = _tables(found)
    return Answer(found, tables, Text(notes, task.markdown(tables)))


def _in_order(rows: dict[str, Row], task: Task[Any, Any]) -> dict[str, Row]:
    """The trained row, the method's baselines, the random init, the task's baselines."""
    last = (RANDOM_INIT, *task.baselines())
    return {row: rows[row] for row in sorted(rows, key=lambda row: last.index(row) if row in last else -1)}


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


def _lines(run: OpenRun, facts: Facts, tasks: Tasks, answers: dict[str, Answer]) -> pa.Table:
    known = {
        "dataset": "+".join(sorted({r.dataset for r in facts.test})),
        "protocol": run.protocol,
        "split": facts.split,
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
        views = results.view_set(options.views if isinstance(options, PredictionOptions) else None)
        for row, found in answer.rows.items():
            of = known | {"task": name, "views": views, "fit_split": fit_split, "row": row, "n": found.items}
            lines += [
                of | {"metric": metric, "value": value, "mode": modes.get(metric, "max")}
                for metric, value in found.scores.items()
            ]
    return pa.Table.from_pylist(lines, schema=results.SCHEMA)
