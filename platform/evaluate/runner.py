"""Score a run by downstream tasks beside everything that its embedding has to beat."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq

from crossview import storage
from crossview.downstream.table import to_arrow
from crossview.platform.config import read
from crossview.platform.data.plan_builder import load_catalog
from crossview.platform.evaluate.embedding_store import TRAINED
from crossview.platform.evaluate.task import FITTED, Answer, Question, Scores, Task
from crossview.platform.progress import console
from crossview.platform.report.score_table import markdown, terminal
from crossview.platform.run_folder import require
from crossview.storage.tables import write_table

WHERE: dict[Task, str] = {
    "phases": "phases",
    "retrieval": "clip_tasks",
    "actions": "clip_tasks",
    "fine_tuning": "fine_tune",
    "measures": "measures",
}
"""Module of the platform with a function of the task's name."""


def evaluate(
    run: Path,
    *,
    split: str = "val",
    fit_split: str = "train",
    tasks: Sequence[Task] = ("phases",),
    few_shot: bool = False,
    k: int = 10,
    clips_per_scene: int = 4,
    baselines: bool = True,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
) -> pa.Table:
    """Scores of the trained row and, with `baselines`, of what it has to beat, as `downstream.table.to_arrow` has them.

    Embeds what is missing, prints and stores. Phases are scored by action, as AE2 does, and the table holds their mean;
    `evaluations/<split>.parquet` and `.md` in the run's folder hold the same, `<split>-actions.parquet` each action,
    `<split>-retrieval.parquet` each pair of cameras, `<split>-fine-tuning.parquet` each draw. Raises ValueError for an
    unknown task, where a task lacks what it needs, such as phase labels, and where classifiers would be fitted on
    evaluated videos.
    """
    run = require(run)
    name, experiment = read(run)
    _check(tasks, split, fit_split, k)
    catalog = load_catalog(experiment.data)
    question = Question(
        run=run,
        name=name,
        experiment=experiment,
        catalog=catalog,
        split=split,
        fit_split=fit_split,
        few_shot=few_shot,
        k=k,
        clips_per_scene=clips_per_scene,
        baselines=baselines,
        in_process=in_process,
        actors=actors,
        device=device,
    )
    answers = [_function(task)(question) for task in tasks]
    return _Result(question, answers).publish()


def _check(tasks: Sequence[Task], split: str, fit_split: str, k: int) -> None:
    known = get_args(Task)
    if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(known):
        raise ValueError(f"tasks is {', '.join(tasks) or 'empty'}; name some of {', '.join(known)}, each once")
    if set(tasks) & set(FITTED) and fit_split in (split, "test"):
        raise ValueError(
            f"split is {split!r} and fit_split is {fit_split!r}; classifiers are fitted on videos that are not "
            "evaluated, and never on test: evaluate another split, such as val, and fit on train"
        )
    if k < 1:
        raise ValueError(f"k is {k}; retrieval needs at least 1 neighbour (the benchmark uses 5, 10 and 15)")


def _function(task: Task) -> Callable[[Question], Answer]:
    found: Callable[[Question], Answer] = getattr(
        importlib.import_module(f"crossview.platform.evaluate.{WHERE[task]}"), task
    )
    return found


def together(answers: Sequence[Answer]) -> Scores:
    """The rows of all tasks in one, the trained row first; a row has the metrics of the tasks that know it."""
    rows: Scores = {TRAINED: {}}
    for answer in answers:
        for row, scores in answer.rows.items():
            rows.setdefault(row, {}).update(scores)
    return rows


@dataclass(frozen=True)
class _Result:
    """Everything that an evaluation tells."""

    question: Question
    answers: list[Answer]

    def publish(self) -> pa.Table:
        """Write the files, print the table."""
        run, split, rows = self.question.run, self.question.split, together(self.answers)
        folder = run / "evaluations"
        storage.make_folder(folder)
        file = folder / f"{split}.parquet"
        times = _times(file) + 1
        notes = self.notes(times)
        facts = {"split": split, "fit_split": self.question.fit_split, "times": times, "notes": notes}
        table = to_arrow(rows).replace_schema_metadata({"crossview": json.dumps(facts)})
        write_table(table, file)
        for answer in self.answers:
            for name, part in answer.tables.items():
                write_table(part, folder / f"{split}-{name}.parquet")
        storage.write_text(folder / f"{split}.md", markdown(rows, notes) + "".join(a.text for a in self.answers))
        console.print(terminal(rows, f"{run.name}, split {split}", console.width))
        for note in notes:
            console.print(note, highlight=False)
        console.print(f"The tables lie in {folder / split}.md and .parquet", highlight=False)
        return table

    def notes(self, times: int) -> list[str]:
        """What a reader has to know about these numbers."""
        notes = [note for answer in self.answers for note in answer.notes]
        notes.append(
            "One seed: a margin has no spread here, so it is no claim; crossview reproduce runs several seeds."
        )
        if self.question.split == "test":
            notes.append(
                f"Test split: choose on val and run this once. This run has now been scored on it {times} time(s)."
            )
        return notes


def _times(file: Path) -> int:
    if not file.exists():
        return 0
    return int(json.loads(pq.read_metadata(storage.local(file)).metadata[b"crossview"])["times"])
