"""Score a run by AE2's tasks beside everything that its embedding has to beat."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.table import Table

from crossview.datasets.catalog import Catalog
from crossview.datasets.tables import write_table
from crossview.downstream import ae2
from crossview.downstream.controls import Margin, margin, time_only
from crossview.downstream.embeddings import Embeddings
from crossview.downstream.few_shot import few_shot as score_few_shot
from crossview.downstream.table import to_arrow
from crossview.platform.config import read
from crossview.platform.embed import LABELS, TRAINED, embed
from crossview.platform.progress import Progress, console
from crossview.platform.runs import require

TIME_ONLY = "time only"
TIME_COLUMN = "pour_liquid"
"""The set whose phase progression AE2 gives a column of frame indices."""
Scores = dict[str, dict[str, float]]


def evaluate(
    run: Path,
    *,
    split: str = "val",
    fit_split: str = "train",
    few_shot: bool = False,
    k: int = 10,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
) -> pa.Table:
    """Scores of the trained row and of every control, in the form of `downstream.table.to_arrow`.

    Embeds what is missing, prints and stores. Actions are scored apart, as AE2 does, and the table holds their mean;
    `evaluations/<split>.parquet` and `.md` in the run's folder hold the same, `<split>-actions.parquet` each action.
    Raises ValueError without phase labels, and where classifiers would be fitted on evaluated videos.
    """
    run = require(run)
    _, experiment = read(run)
    if fit_split in (split, "test"):
        raise ValueError(
            f"split is {split!r} and fit_split is {fit_split!r}; classifiers are fitted on videos that are not "
            "evaluated, and never on test: evaluate another split, such as val, and fit on train"
        )
    if k < 1:
        raise ValueError(f"k is {k}; retrieval needs at least 1 neighbour (the benchmark uses 5, 10 and 15)")
    catalog = Catalog.load(experiment.data.catalog, experiment.data.root)
    for name in (split, fit_split):
        _require_labels(catalog.select(name))
    fit = embed(run, split=fit_split, in_process=in_process, actors=actors, device=device)
    scored = embed(run, split=split, in_process=in_process, actors=actors, device=device)
    by_action, shots = _score(fit, scored, few_shot, k)
    result = _Result(run, split, fit_split, by_action, _size(scored[TRAINED]), _size(fit[TRAINED]), shots)
    return result.publish()


def _require_labels(catalog: Catalog) -> None:
    labels = catalog.frame_labels.get(LABELS, {})
    bare = [r.id for r in catalog.recordings if r.id not in labels]
    if bare:
        raise ValueError(
            f"catalog {catalog.root}: {len(bare)} of {len(catalog.recordings)} recordings of split "
            f"{catalog.recordings[0].split!r} (first {bare[0]!r}) have no frame labels named {LABELS!r}; evaluation "
            "needs a phase of every frame: add them to the label file and make the catalog again"
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
            fit_table, table = pq.read_table(fit[source]), pq.read_table(scored[source])
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
    return sorted(pc.unique(pq.read_table(file, columns=["action"])["action"]).to_pylist())


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
    table = pq.read_table(file, columns=["video", "is_ego", "subject"])
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


@dataclass(frozen=True)
class _Result:
    """Everything that an evaluation tells."""

    run: Path
    split: str
    fit_split: str
    by_action: dict[str, Scores]
    size: Size
    fit_size: Size
    shots: list[dict[str, object]]

    def publish(self) -> pa.Table:
        """Write the files, print the table."""
        rows = mean_over_actions(self.by_action)
        folder = self.run / "evaluations"
        folder.mkdir(exist_ok=True)
        file = folder / f"{self.split}.parquet"
        times = _times(file) + 1
        notes = self.notes(times)
        facts = {"split": self.split, "fit_split": self.fit_split, "times": times, "notes": notes}
        table = to_arrow(rows).replace_schema_metadata({"crossview": json.dumps(facts)})
        write_table(table, file)
        if len(self.by_action) > 1:
            parts = [
                to_arrow(scores).append_column("action", pa.array([action] * (len(scores) * len(scores[TRAINED]))))
                for action, scores in self.by_action.items()
            ]
            write_table(pa.concat_tables(parts), folder / f"{self.split}-actions.parquet")
        if self.shots:
            write_table(pa.Table.from_pylist(self.shots), folder / f"{self.split}-few-shot.parquet")
        (folder / f"{self.split}.md").write_text(markdown(rows, notes) + few_shot_markdown(self.shots))
        console.print(terminal(rows, f"{self.run.name}, split {self.split}"))
        for note in notes:
            console.print(note, highlight=False)
        console.print(f"The tables lie in {folder / self.split}.md and .parquet", highlight=False)
        return table

    def notes(self, times: int) -> list[str]:
        """What a reader has to know about these numbers."""
        notes = [
            f"Scored on split {self.split}: {self.size}. Classifiers fitted on {self.fit_split}: {self.fit_size}.",
            "One seed: a margin has no spread here, so it is no claim; crossview reproduce runs several seeds.",
        ]
        if self.size.videos < SMALL:
            notes.append(f"This is small: with {self.size.videos} videos, single videos move every score.")
        if len(self.by_action) > 1:
            notes.append(f"Mean over {len(self.by_action)} actions, each scored apart: {', '.join(self.by_action)}.")
        if self.split == "test":
            notes.append(
                f"Test split: choose on val and run this once. This run has now been scored on it {times} time(s)."
            )
        return notes


SMALL = 40
"""Videos below which the notes say that a split is small; AE2's test splits hold 20 to 100."""


def _times(file: Path) -> int:
    if not file.exists():
        return 0
    return int(json.loads(pq.read_metadata(file).metadata[b"crossview"])["times"])


def lines(rows: Scores) -> list[tuple[str, dict[str, str], Margin]]:
    """(metric, formatted score by row, margin over the best control) for every metric."""
    margins = margin(rows, trained=TRAINED)
    return [(m, {row: number(scores[m]) for row, scores in rows.items()}, margins[m]) for m in rows[TRAINED]]


def number(value: float) -> str:
    """Three decimals; none where the number is large."""
    if math.isnan(value):
        return "undefined"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def markdown(rows: Scores, notes: list[str]) -> str:
    """A line per metric, a column per row; the best control is bold."""
    text = [f"| metric | {' | '.join(rows)} | margin |", f"|---|{'---:|' * (len(rows) + 1)}"]
    for metric, cells, best in lines(rows):
        marked = [f"**{cell}**" if row == best.control else cell for row, cell in cells.items()]
        text.append(f"| {metric} | {' | '.join(marked)} | {best.mean:+.3f} |")
    text += ["", "Bold: the best control. Margin: trained minus the best control.", ""]
    return "\n".join([*text, *(f"- {note}" for note in notes)]) + "\n"


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


def terminal(rows: Scores, title: str) -> Table:
    """The same for a terminal; the best control is underlined."""
    table = Table(
        title=title,
        title_justify="left",
        caption="underlined: the best control; margin: trained minus that",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("metric", no_wrap=True)
    for row in (*rows, "margin"):  # headers wrap between words, numbers never do
        width = max(6, *(len(word) for word in row.split()))
        table.add_column(row, justify="right", style="bold" if row == TRAINED else "", min_width=width)
    for metric, cells, best in lines(rows):
        marked = [f"[underline]{c}[/]" if row == best.control else c for row, c in cells.items()]
        colour = "green" if best.mean > 0 else "red"
        table.add_row(metric, *marked, f"[{colour}]{best.mean:+.3f}[/]")
    return table
