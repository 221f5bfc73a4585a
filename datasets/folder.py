"""Any folder of videos, described by one CSV file and no code.

Columns path, split, scene, view, perspective; optional subject, action, start_offset_s, labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from crossview.datasets.catalog import Catalog, Perspective, Quarantined, Recording, one_protocol
from crossview.datasets.catalog.frame_labels import check_length, read_labels
from crossview.datasets.catalog.listing import Problems, Row, one_of, relative_path, seconds, table
from crossview.datasets.catalog.probing import Prober, split_conflicts
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.video.decode import VideoInfo
from crossview.errors import UserError

T = TypeVar("T")

PROTOCOLS = (DEFAULT,)
REQUIRED = ("path", "split", "scene", "view", "perspective")
OPTIONAL = ("subject", "action", "start_offset_s", "labels")
_PERSPECTIVES: dict[str, Perspective] = {"ego": "ego", "exo": "exo"}


@dataclass(frozen=True)
class _Line:
    """One checked line of the CSV."""

    number: int
    values: dict[str, str]
    perspective: Perspective
    start_offset_s: float
    labels: np.ndarray | None
    """int32 (frames,), of as many frames as the label file has."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which files, and the list of them."""

    root: Path
    """Folder that the paths in the CSV start from."""
    csv: Path
    """One line per video under a header that names its columns."""


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """The recordings that the CSV lists.

    Its header names the columns path, split, scene, view, perspective (ego or exo), and any of subject, action,
    start_offset_s and labels; paths are relative to the root. `labels` names a .txt, .csv or .npy file with one whole
    number per frame, read as "phase". Without an action column all recordings count as one action.
    Raises ValueError, before any video is opened, that names file, line and column of all that is wrong. Unreadable
    videos, and those with another number of frames than labels, are listed in `Catalog.quarantined`.
    """
    root, csv_file = options.root, options.csv
    if not root.is_dir():
        raise UserError(f"{root}: the folder is missing; pass the folder that the paths in {csv_file} are relative to")
    lines = _read(root, csv_file)
    infos, unreadable = (prober or Prober()).probe(root, (line.values["path"] for line in lines))
    quarantined = list(unreadable)
    members: list[tuple[Recording, str]] = []
    phases = {}
    for line in lines:
        path = line.values["path"]
        info = infos.get(path)
        if info is None:
            continue
        recording = _recording(csv_file, line, info)
        if line.labels is not None:
            try:
                check_length(line.labels, info.num_frames, str(root / line.values["labels"]), path)
            except UserError as error:
                quarantined.append(Quarantined(path, f"{csv_file}, line {line.number}, column 'labels': {error}"))
                continue
            phases[recording.id] = line.labels
        members.append((recording, line.values["split"]))
    return Catalog(
        root,
        tuple(recording for recording, _ in members),
        frame_labels={"phase": phases} if phases else {},
        quarantined=tuple(quarantined),
        protocols=one_protocol(members),
    )


def _read(root: Path, csv_file: Path) -> list[_Line]:
    """The checked lines, with their labels; raises UserError with all that is wrong in them."""
    if not csv_file.is_file():
        raise UserError(f"{csv_file}: the file is missing; write one with the header {','.join(REQUIRED)}")
    problems = Problems()
    checked = (_check(root, csv_file, row, problems) for row in table(csv_file, REQUIRED, OPTIONAL, problems))
    lines = [line for line in checked if line is not None]
    if not lines and not problems:
        raise UserError(f"{csv_file}: it lists no recording; add a line per video under the header")
    _check_twins(root, csv_file, lines, problems)
    problems.refuse()
    return lines


def _check(root: Path, csv_file: Path, row: Row, problems: Problems) -> _Line | None:
    """One line, or None if it has a problem."""
    before, values = len(problems.found), row.values

    def attempt(column: str, check: Callable[[str], T]) -> T | None:
        try:
            return check(values[column])
        except UserError as error:
            problems.add(f"{csv_file}, line {row.number}, column {column!r}: {error}")
        return None

    for name in REQUIRED:
        attempt(name, _filled)
    for name in ("scene", "view"):
        attempt(name, _without_slash)
    perspective = attempt("perspective", lambda text: _PERSPECTIVES[one_of(text, _PERSPECTIVES)] if text else None)
    attempt("path", lambda text: relative_path(root, text) if text else None)
    offset_s = attempt("start_offset_s", seconds) if values.get("start_offset_s") else 0.0
    labels = attempt("labels", lambda text: read_labels(relative_path(root, text))) if values.get("labels") else None
    if len(problems.found) > before or perspective is None or offset_s is None:
        return None
    return _Line(row.number, values, perspective, offset_s, labels)


def _filled(text: str) -> None:
    if not text:
        raise UserError("it is empty; every recording needs one")


def _without_slash(text: str) -> None:
    if "/" in text:
        raise UserError(f"{text!r} holds a '/'; write '-' or '_' in its place")


def _check_twins(root: Path, csv_file: Path, lines: Sequence[_Line], problems: Problems) -> None:
    """Add lines that name a recording of an earlier line, or its file in another split or for another camera."""
    views: dict[tuple[str, str], int] = {}
    files: dict[tuple[str, Path], _Line] = {}
    for line in lines:
        place, path = f"{csv_file}, line {line.number}", line.values["path"]
        key = (line.values["scene"], line.values["view"])
        if (known := views.setdefault(key, line.number)) != line.number:
            problems.add(
                f"{place}: scene and view {'/'.join(key)} are in line {known} already; together they must name one "
                "recording, in whatever split"
            )
        other = files.setdefault((line.values["scene"], (root / path).resolve()), line)
        if other is not line and other.values["view"] != line.values["view"]:
            problems.add(
                f"{place}: {path} is in line {other.number} already as view {other.values['view']!r} of this scene; "
                "each camera of a scene has a file of its own: correct the path or remove the line"
            )
    for k, problem in split_conflicts(root, ((line.values["split"], line.values["path"]) for line in lines)):
        problems.add(f"{csv_file}, line {lines[k].number}: {problem}")


def _recording(csv_file: Path, line: _Line, info: VideoInfo) -> Recording:
    values = line.values
    return Recording(
        dataset=csv_file.stem, scene=values["scene"], view=values["view"],
        perspective=line.perspective, subject=values.get("subject", ""), action=values.get("action", ""),
        path=values["path"], kind="video", start_offset_s=line.start_offset_s, **info.columns(),
    )  # fmt: skip
