"""The class table: which number a class has, whatever part of the dataset is at hand.

A kind is a name of segments, "action" (`Recording.action` where no segment has that name), or NAME/ACTION for frame
labels NAME of recordings of ACTION, e.g. "phase/pour_milk".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossview.datasets.catalog.recording import Recording, Segment
from crossview.errors import UserError

Classes = dict[str, tuple[str, ...]]
"""Names by kind; a class's number is its place."""


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, "c2" before "c10"."""
    return tuple(sorted(set(names), key=_natural))


def distinct(names: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The first of each entry's words, with the following ones in brackets as long as another entry has the same."""
    made = [words[0] for words in names]
    for place in range(1, max(map(len, names), default=0)):
        counts = Counter(made)
        made = [
            f"{name} ({words[place]})" if counts[name] > 1 and words[place] else name
            for name, words in zip(made, names, strict=True)
        ]
    return tuple(made)


def shown(recordings: Sequence[Recording], segments: Iterable[Segment]) -> Classes:
    """The classes that occur, by kind, in natural order."""
    found: dict[str, set[str]] = {}
    for segment in segments:
        found.setdefault(segment.name, set()).add(segment.label)
    if recordings:
        found.setdefault("action", {recording.action for recording in recordings})
    return {kind: natural_order(names) for kind, names in found.items()}


def frame_kind(name: str, recording: Recording) -> str:
    """The kind whose classes the recording's frame labels `name` number."""
    return f"{name}/{recording.action}"


def check_segments(classes: Classes, segments: Iterable[Segment], what: str) -> None:
    """Raise ValueError where a segment's label is not in the list of its kind."""
    known = {kind: frozenset(names) for kind, names in classes.items()}
    for segment in segments:
        if segment.name in known and segment.label not in known[segment.name]:
            raise _outside(what, segment.recording, segment.name, segment.label, classes)


def check_frame_labels(classes: Classes, name: str, recording: Recording, labels: np.ndarray, what: str) -> None:
    """Raise ValueError where a frame's label is not a number of the list, if its kind has one."""
    kind = frame_kind(name, recording)
    if kind in classes and len(labels) and not 0 <= labels.min() <= labels.max() < len(classes[kind]):
        worst = labels.max() if labels.max() >= len(classes[kind]) else labels.min()
        raise _outside(what, recording.id, kind, int(worst), classes)


def check_actions(classes: Classes, recordings: Iterable[Recording], what: str) -> None:
    """Raise ValueError where a recording's action, where it has one, is not in the list of actions."""
    for recording in recordings:
        if recording.action and recording.action not in classes["action"]:
            raise _outside(what, recording.id, "action", recording.action, classes)


def _outside(what: str, recording: str, kind: str, label: str | int, classes: Classes) -> UserError:
    names = classes[kind]
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return UserError(
        f"{what}: {recording} has the label {label!r} of kind {kind!r}, which is outside its {len(names)} classes "
        f"({listed}): correct the label, or add it to the dataset's class list"
    )


def class_rows(classes: Classes) -> list[dict[str, Any]]:
    """Rows of classes.parquet."""
    return [{"kind": kind, "id": i, "name": name} for kind, names in classes.items() for i, name in enumerate(names)]


def classes_from(rows: Iterable[Mapping[str, Any]], file: Path) -> Classes:
    """What `class_rows` gave, in any order.

    Raises ValueError where ids do not count from 0 without a gap, or a kind has a name twice.
    """
    found: dict[str, dict[int, str]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        found.setdefault(row["kind"], {})[row["id"]] = row["name"]
        counts[row["kind"]] = counts.get(row["kind"], 0) + 1
    for kind, names in found.items():
        if sorted(names) != list(range(counts[kind])) or len(set(names.values())) < counts[kind]:
            raise UserError(
                f"{file}: the classes of kind {kind!r} have ids {sorted(names)} for {counts[kind]} rows; ids must "
                "count from 0 without a gap and every name must occur once: make the catalog again"
            )
    return {kind: tuple(names[i] for i in range(len(names))) for kind, names in found.items()}


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
