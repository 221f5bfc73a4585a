"""What teachers say of recordings: class scores and detections, as two Parquet tables beside the catalog."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crossview import storage
from crossview.errors import UserError
from crossview.storage.tables import write_table

FOLDER = "teachers"
"""Of the tables, within a catalog's folder."""
SCORES_FILE, DETECTIONS_FILE = "scores.parquet", "detections.parquet"
SCORES = pa.schema([("recording", pa.string()), ("task", pa.string()), ("logits", pa.list_(pa.float32()))])
KINDS = ("none", "hand", "object")
"""By their code in `Teachers.boxes`. One row "none" marks a recording in which nothing was found."""
_BOX = ("x1", "y1", "x2", "y2", "score")
DETECTIONS = pa.schema(
    [
        ("recording", pa.dictionary(pa.int32(), pa.string())),
        ("frame", pa.int32()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        *((name, pa.float32()) for name in _BOX),
    ]
)
_GROUP_BYTES, _CACHE_BYTES = 2**19, 2**26
_EPSILON = 1e-8
_AGAIN = "make it again with `crossview prepare teachers`"

ScoreKind = Literal["logits", "log_probs", "probs"]


@dataclass(frozen=True)
class Detections:
    """Boxes of one recording, one entry each in all arrays; corners are shares of the frame's width and height."""

    frame: np.ndarray
    """int (n,), of the recording's frames."""
    kind: np.ndarray
    """int (n,): 1 hand, 2 object."""
    box: np.ndarray
    """float (n, 4): x1, y1, x2, y2."""
    score: np.ndarray
    """float (n,), in [0, 1]."""

    def checked(self, what: str) -> Detections:
        """With corners clipped to the frame and empty boxes left out; raises ValueError that starts with `what`."""
        box, score = np.asarray(self.box, np.float32).reshape(-1, 4), np.asarray(self.score, np.float32)
        if not (np.isfinite(box).all() and np.isfinite(score).all()):
            raise UserError(f"{what}: a box or its score is not finite; every number must be: detect again")
        if len(score) and not (score.min() >= 0 and score.max() <= 1):
            raise UserError(f"{what}: scores from {score.min()} to {score.max()}; they must be in [0, 1]")
        if len(box) and (box.min() < -1 or box.max() > 2):
            raise UserError(
                f"{what}: corners from {box.min()} to {box.max()} of the frame's side; they must be about in [0, 1]: "
                "are they pixels, or pixels of frames of another size?"
            )
        box = box.clip(0, 1)
        kept = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        return Detections(np.asarray(self.frame)[kept], np.asarray(self.kind)[kept], box[kept], score[kept])


class Teachers:
    """The tables of one folder: detections in memory, 25 bytes each; scores read a few recordings at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scores = _ScoreTable.open(folder / SCORES_FILE)
        self._boxes = _BoxTable.open(folder / DETECTIONS_FILE)

    @staticmethod
    def load(folder: Path) -> Teachers:
        """Index the tables that `write_scores` and `write_detections` left in `folder`; either may be missing."""
        return Teachers(folder)

    def check_recordings(self, recordings: Iterable[str]) -> None:
        """Raise ValueError if the tables name recordings, but none of these ids."""
        named = {recording for _, recording in self._scores.place} | (self._boxes.span.keys() if self._boxes else set())
        if named and named.isdisjoint(recordings):
            raise UserError(
                f"{self.folder}: its tables name none of the catalog's recordings (but e.g. {min(named)!r}); they "
                f"belong to another catalog, or to Crossview 0.3, where ids started with the split: {_AGAIN}"
            )

    def scores(self, recording: str, task: str) -> np.ndarray | None:
        """The teacher's logits, float32 (C,), or None if it has not seen the recording.

        Raises ValueError if the folder holds nothing of the task at all.
        """
        self._scores.count(task)
        return self._scores.read(recording, task)

    def classes(self, task: str) -> int | None:
        """Number of logits of a task; None if there are none."""
        return self._scores.classes.get(task)

    def boxes(self, recording: str, frames: np.ndarray, k: int) -> np.ndarray | None:
        """The k most certain boxes of each frame, float32 (T, k, 6) as (kind, x1, y1, x2, y2, score), else zeros.

        A frame that occurs twice has its boxes in both places. None if the detector has not seen the recording;
        raises ValueError if the folder holds no detections at all.
        """
        if self._boxes is None:
            raise _no_detections(self.folder)
        return self._boxes.read(recording, np.asarray(frames), k)


def check_store(folder: Path, scores: Mapping[str, int], boxes: int) -> None:
    """Raise UserError where the tables in `folder` lack what a sampling asks for; detections are not read.

    `scores` has the number of logits by task; with `boxes` above 0 there must be detections.
    """
    table = _ScoreTable.open(folder / SCORES_FILE)
    for task, wanted in scores.items():
        if (found := table.count(task)) != wanted:
            raise UserError(
                f"{table.path}: {found} scores of task {task!r} for each recording, but the method is configured for "
                f"{wanted}; import that teacher's scores again, or set the number"
            )
    if boxes and not storage.is_file(folder / DETECTIONS_FILE):
        raise _no_detections(folder)


def _no_detections(folder: Path) -> UserError:
    return UserError(
        f"{folder / DETECTIONS_FILE}: no detections here; import them with `crossview prepare teachers`, or set the "
        "weights of the interaction map to 0"
    )


@dataclass(frozen=True)
class _BoxTable:
    """Boxes sorted by recording, frame and falling score."""

    span: dict[str, tuple[int, int]]
    frame: np.ndarray
    kind: np.ndarray
    values: np.ndarray  # float32 (n, 5): corners and score

    @staticmethod
    def open(file: Path) -> _BoxTable | None:
        if not storage.is_file(file):
            return None
        table = _read(file, DETECTIONS).combine_chunks()
        names, code = _codes(table["recording"])
        frame = table["frame"].to_numpy()
        kinds, kind_code = _codes(table["kind"])
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown:
            raise UserError(f"{file}: kind {unknown[0]!r}; it must be one of {', '.join(KINDS)}")
        kind = np.array([KINDS.index(k) for k in kinds], np.int8)[kind_code]
        values = np.stack([table[name].to_numpy() for name in _BOX], axis=1)
        if not np.isfinite(values).all():
            raise UserError(f"{file}: a box or its score is not finite; every number must be: import them again")
        order = np.lexsort((-values[:, 4], frame, code))
        code = code[order]
        edges = np.searchsorted(code, np.arange(len(names) + 1))
        span = {name: (int(edges[i]), int(edges[i + 1])) for i, name in enumerate(names) if edges[i] < edges[i + 1]}
        return _BoxTable(span, frame[order], kind[order], values[order])

    def read(self, recording: str, frames: np.ndarray, k: int) -> np.ndarray | None:
        if recording not in self.span:
            return None
        start, stop = self.span[recording]
        own = self.frame[start:stop]
        first = np.searchsorted(own, frames, "left")
        count = np.searchsorted(own, frames, "right") - first
        there = np.arange(k) < count[:, None]  # (T, k)
        at = start + np.where(there, first[:, None] + np.arange(k), 0)
        out = np.concatenate([self.kind[at][..., None].astype(np.float32), self.values[at]], axis=-1)
        out[~there] = 0
        return out


@dataclass
class _ScoreTable:
    """Where each recording's logits are in a file of small row groups."""

    path: Path
    file: pq.ParquetFile | None
    place: dict[tuple[str, str], tuple[int, int]]
    """Row group and row of (task, recording)."""
    classes: dict[str, int]
    _cache: OrderedDict[int, np.ndarray] = field(default_factory=OrderedDict)

    @staticmethod
    def open(path: Path) -> _ScoreTable:
        if not storage.is_file(path):
            return _ScoreTable(path, None, {}, {})
        file = _parquet(path, SCORES)
        place: dict[tuple[str, str], tuple[int, int]] = {}
        classes: dict[str, int] = {}
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, ["task", "recording"])
            for row, key in enumerate(zip(keys["task"].to_pylist(), keys["recording"].to_pylist(), strict=True)):
                place[key] = (group, row)
            first = keys["task"][0].as_py()
            if first not in classes:
                classes[first] = len(file.read_row_group(group, ["logits"])["logits"][0])
        return _ScoreTable(path, file, place, classes)

    def count(self, task: str) -> int:
        """Logits of a task; raises UserError if there are none."""
        if task not in self.classes:
            raise UserError(
                f"{self.path}: no scores of task {task!r} (tasks here: {', '.join(self.classes) or 'none'}); write "
                "them with `crossview prepare teachers`, or set the weight of that loss to 0"
            )
        return self.classes[task]

    def read(self, recording: str, task: str) -> np.ndarray | None:
        if (task, recording) not in self.place or self.file is None:
            return None
        group, row = self.place[task, recording]
        if group not in self._cache:
            column = self.file.read_row_group(group, ["logits"])["logits"].combine_chunks()
            rows = column.flatten().to_numpy().reshape(len(column), -1)
            self._cache[group] = as_logits(rows, "logits", f"{self.path}: task {task!r}")
            while sum(a.nbytes for a in self._cache.values()) > _CACHE_BYTES and len(self._cache) > 1:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group][row].copy()


def as_logits(values: np.ndarray, kind: ScoreKind, what: str) -> np.ndarray:
    """Scores (n, C) whose softmax is the teacher's distribution, float32; raises ValueError that starts with `what`.

    Probabilities become log(p + 1e-8). Passed as logits they are refused: their softmax is nearly flat.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise UserError(
            f"{what}: scores of shape {values.shape}; they must be (recordings, classes), 2 classes or more"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{what}: a score is not finite; every number must be: score the recordings again")
    sums = values.sum(1)
    like_probs = bool(values.min() >= 0 and np.abs(sums - 1).max() < 1e-2)
    if kind == "logits" and like_probs:
        raise UserError(
            f"{what}: every row is in [0, 1] and sums to 1: these are probabilities, whose softmax would be nearly "
            "flat, not logits; pass kind probs, and they are converted"
        )
    if kind == "probs" and not like_probs:
        raise UserError(
            f"{what}: rows sum to {sums.min():.3g} to {sums.max():.3g}, with a smallest value of {values.min():.3g}: "
            "these are not probabilities; pass the actual kind, logits or log_probs"
        )
    if kind == "log_probs" and (values.max() > 1e-3 or np.abs(np.exp(values).sum(1) - 1).max() > 1e-2):
        raise UserError(f"{what}: exponentials of a row do not sum to 1: these are not log_probs; pass kind logits")
    return (np.log(values + _EPSILON) if kind == "probs" else values).astype(np.float32)


def write_scores(
    folder: Path, task: str, scores: Mapping[str, np.ndarray], *, kind: ScoreKind = "logits", classes: int | None = None
) -> None:
    """Put one task's scores (C,) by recording id into the folder's table; those of other tasks and recordings stay.

    Raises ValueError if rows differ in length, have not `classes` entries, or are not what `kind` says.
    """
    file = folder / SCORES_FILE
    if not scores:
        raise UserError(f"{file}: no recording has scores of task {task!r}; there must be at least one")
    lengths = {len(v) for v in scores.values()}
    old = _ScoreTable.open(file)
    wanted = classes or old.classes.get(task) or min(lengths)
    if lengths != {wanted}:
        raise UserError(
            f"{file}: task {task!r} has {wanted} classes, but rows of {sorted(lengths)} scores were given; all must "
            "have as many: take another task name, or score with the right classifier"
        )
    if classes is not None and old.classes.get(task, classes) != classes:
        raise UserError(
            f"{file}: task {task!r} holds rows of {old.classes[task]} scores, not {classes}; delete the file"
        )
    names = sorted(scores)
    logits = as_logits(np.stack([scores[n] for n in names]), kind, f"{file}: task {task!r}")
    merged = pa.table([pa.array(names), pa.array([task] * len(names)), _lists(logits)], schema=SCORES)
    storage.make_folder(folder)

    def build(partial: Path) -> None:
        with pq.ParquetWriter(partial, SCORES) as writer:
            for group in _others(old, task, pa.array(names)):
                writer.write_table(group, row_group_size=max(1, len(group)))
            writer.write_table(merged, row_group_size=max(1, _GROUP_BYTES // (4 * wanted)))

    storage.write(file, build)


def write_detections(folder: Path, found: Mapping[str, Detections]) -> None:
    """Put the detections of recordings into the folder's table; those of other recordings stay."""
    file = folder / DETECTIONS_FILE
    if not found:
        raise UserError(f"{file}: no recording has detections; there must be at least one, be it with no box")
    parts = [_table(name, value.checked(f"{file}: recording {name!r}")) for name, value in sorted(found.items())]
    if storage.is_file(file):
        old = _read(file, DETECTIONS)
        ids = pc.cast(old["recording"], pa.string())
        parts.append(old.filter(pc.invert(pc.is_in(ids, pa.array(list(found), pa.string())))))
    storage.make_folder(folder)
    write_table(pa.concat_tables(parts).unify_dictionaries(), file)


def _table(name: str, found: Detections) -> pa.Table:
    if not len(found.frame):
        found = Detections(np.array([-1]), np.array([0]), np.zeros((1, 4), np.float32), np.zeros(1, np.float32))
    n = len(found.frame)
    recording = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([name]))
    kind = pa.DictionaryArray.from_arrays(pa.array(found.kind.astype(np.int32)), pa.array(KINDS))
    values = np.concatenate([found.box, found.score[:, None]], axis=1).astype(np.float32)
    columns = [recording, pa.array(found.frame.astype(np.int32)), kind, *(pa.array(v) for v in values.T)]
    return pa.table(columns, schema=DETECTIONS)


def _others(old: _ScoreTable, task: str, names: pa.Array) -> Iterator[pa.Table]:
    """The rows that stay, row group by row group."""
    for group in range(old.file.num_row_groups if old.file else 0):
        rows = old.file.read_row_group(group)  # type: ignore[union-attr]
        replaced = pc.and_(pc.equal(rows["task"], task), pc.is_in(rows["recording"], names))
        kept = rows.filter(pc.invert(replaced))
        if len(kept):
            yield kept


def _lists(rows: np.ndarray) -> pa.Array:
    n, width = rows.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * width), pa.array(rows.reshape(-1)))


def _codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Distinct names, and the index of each row's."""
    encoded = column.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _parquet(file: Path, schema: pa.Schema) -> pq.ParquetFile:
    try:
        found = pq.ParquetFile(storage.local(file))
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{file}: not a readable table ({error}); make it again with `crossview prepare teachers`"
        ) from error
    if found.schema_arrow.names != schema.names:
        raise UserError(f"{file}: columns {found.schema_arrow.names}, not {schema.names}; {_AGAIN}")
    return found


def _read(file: Path, schema: pa.Schema) -> pa.Table:
    return _parquet(file, schema).read().cast(schema)
