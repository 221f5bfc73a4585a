"""The task "phases": AE2's four scores of frame embeddings, each action apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossview.datasets.catalog import Catalog
from crossview.downstream import ae2
from crossview.downstream.baselines import time_only
from crossview.downstream.embeddings import Embeddings
from crossview.downstream.few_shot import few_shot as score_few_shot
from crossview.downstream.table import to_arrow
from crossview.platform.evaluate.embedding_store import LABELS, TRAINED
from crossview.platform.evaluate.frame_embeddings import embed
from crossview.platform.evaluate.task import Answer, Question, Scores
from crossview.platform.progress import Progress
from crossview.storage.tables import read_table

TIME_ONLY = "time only"
TIME_COLUMN = "pour_liquid"
"""The set whose phase progression AE2 gives a column of frame indices."""
SMALL = 40
"""Videos below which the notes say that a split is small; AE2's test splits hold 20 to 100."""


def phases(question: Question) -> Answer:
    """Means over actions; raises ValueError without phase labels."""
    q = question
    for name in (q.split, q.fit_split):
        require_labels(q.catalog.select(name))
    fit, scored = (
        embed(q.run, split=name, baselines=q.baselines, in_process=q.in_process, actors=q.actors, device=q.device)
        for name in (q.fit_split, q.split)
    )
    by_action, shots = _score(fit, scored, q.few_shot, q.k)
    tables = {}
    if len(by_action) > 1:
        parts = [
            to_arrow(scores).append_column("action", pa.array([action] * (len(scores) * len(scores[TRAINED]))))
            for action, scores in by_action.items()
        ]
        tables["actions"] = pa.concat_tables(parts)
    if shots:
        tables["few-shot"] = pa.Table.from_pylist(shots)
    notes = _notes(q, by_action, _size(scored[TRAINED]), _size(fit[TRAINED]))
    return Answer(mean_over_actions(by_action), notes, tables, few_shot_markdown(shots))


def require_labels(catalog: Catalog) -> None:
    """Raise ValueError where a recording has no phases."""
    labels = catalog.frame_labels.get(LABELS, {})
    bare = [r.id for r in catalog.recordings if r.id not in labels]
    if bare:
        split = catalog.split_of(catalog.recordings[0])
        raise ValueError(
            f"catalog {catalog.root}: {len(bare)} of {len(catalog.recordings)} recordings of split {split!r} "
            f"(first {bare[0]!r}) have no frame labels named {LABELS!r}; evaluation "
            "of phases needs a phase of every frame: add them to the label file and make the catalog again, or choose "
            "other --tasks"
        )


def _score(
    fit: dict[str, Path], scored: dict[str, Path], few_shot: bool, k: int
) -> tuple[dict[str, Scores], list[dict[str, object]]]:
    """Scores by action and row, and few-shot lines."""
    actions = _actions(scored[TRAINED])
    by_action: dict[str, Scores] = {action: {} for action in actions}
    shots: list[dict[str, object]] = []
    with Progress("evaluating", (len(scored) + 1) * len(actions), "rows") as line:
        for row in (*scored, TIME_ONLY):
            source = TRAINED if row == TIME_ONLY else row
            fit_table, table = read_table(fit[source]), read_table(scored[source])
            for action in actions:
                train, test = (_embeddings(t, action) for t in (fit_table, table))
                if row == TIME_ONLY:
                    train, test = time_only(train), time_only(test)
                time_column = TIME_COLUMN in (action, table["dataset"][0].as_py())
                by_action[action][row] = ae2.evaluate(train, test, time_column=time_column, k=k)
                if few_shot:
                    found = score_few_shot(train, test)
                    shots += [{"action": action, "row": row, "shot": shot, **asdict(f)} for shot, f in found.items()]
                line.advance(1, row)
    return by_action, shots


def _actions(file: Path) -> list[str]:
    return sorted(pc.unique(read_table(file, columns=["action"])["action"]).to_pylist())


def _embeddings(table: pa.Table, action: str) -> Embeddings:
    """The table's frames of one action."""
    part = table.filter(pc.equal(table["action"], action))
    if part.num_rows == 0:
        raise ValueError(
            f"action {action!r} is evaluated, but the split that classifiers are fitted on has no video of it; "
            f"that split holds {', '.join(pc.unique(table['action']).to_pylist())}"
        )
    return Embeddings.from_table(part)


@dataclass(frozen=True)
class Size:
    """How much a split holds; a score means little without it."""

    videos: int
    ego: int
    frames: int
    subjects: int

    def __str__(self) -> str:
        exo = self.videos - self.ego
        return f"{self.videos} videos ({self.ego} ego, {exo} exo), {self.frames} frames, {self.subjects} subjects"


def _size(file: Path) -> Size:
    table = read_table(file, columns=["video", "is_ego", "subject"])
    videos = table.group_by(["video", "is_ego"]).aggregate([])
    ego = pc.sum(videos["is_ego"]).as_py()
    return Size(videos.num_rows, int(ego), table.num_rows, len(pc.unique(table["subject"])))


def mean_over_actions(by_action: dict[str, Scores]) -> Scores:
    """Unweighted mean of each row and metric."""
    first = next(iter(by_action.values()))
    return {
        row: {metric: float(np.mean([scores[row][metric] for scores in by_action.values()])) for metric in metrics}
        for row, metrics in first.items()
    }


def _notes(question: Question, by_action: dict[str, Scores], size: Size, fit_size: Size) -> list[str]:
    notes = [f"Scored on split {question.split}: {size}. Classifiers fitted on {question.fit_split}: {fit_size}."]
    if size.videos < SMALL:
        notes.append(f"This is small: with {size.videos} videos, single videos move every score.")
    if len(by_action) > 1:
        notes.append(f"Mean over {len(by_action)} actions, each scored apart: {', '.join(by_action)}.")
    return notes


def few_shot_markdown(shots: list[dict[str, object]]) -> str:
    """Few-shot phase classification, a line per row and number of videos."""
    if not shots:
        return ""
    text = ["\n| action | row | train videos | draws | F1 | std over draws |", "|---|---|---:|---:|---:|---:|"]
    text += [
        f"| {s['action']} | {s['row']} | {s['videos']} | {s['draws']} | {s['f1']:.3f} | {s['f1_std']:.3f} |"
        for s in shots
    ]
    return "\n".join(text) + "\n"
