"""The lines of a CSV that lists recordings, checked before any video is opened."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from crossview.datasets.catalog.frame_labels import read_labels
from crossview.datasets.catalog.listing import Problems, Row, one_of, relative_path, seconds, table, whole_number
from crossview.datasets.catalog.recording import Perspective
from crossview.datasets.catalog.spans import Part, clashes, split_conflicts
from crossview.datasets.features.arrays import is_features
from crossview.datasets.video.image_folder import Images
from crossview.datasets.video.image_listing import is_image_folder
from crossview.datasets.video.indexing import MAX_FPS, MIN_FPS
from crossview.errors import UserError

T = TypeVar("T")

REQUIRED = ("path", "split", "scene", "view", "perspective")
_FRAMES, _SECONDS, _IMAGES = ("first_frame", "num_frames"), ("start_s", "end_s"), ("fps", "first_number")
OPTIONAL = ("subject", "action", "start_offset_s", "labels", *_FRAMES, *_SECONDS, *_IMAGES)
_PERSPECTIVES: dict[str, Perspective] = {"ego": "ego", "exo": "exo"}


@dataclass(frozen=True)
class Line:
    """One checked line of the CSV."""

    number: int
    values: dict[str, str]
    perspective: Perspective
    start_offset_s: float
    labels: np.ndarray | None
    """int32 (frames,), of as many frames as the label file has."""
    span: tuple[float, float] | None
    """First and end of a part of the file; None is all of it."""
    in_seconds: bool
    """The span's unit, else frames."""
    images: Images | None
    """What is said of a folder of images."""
    features_fps: float | None
    """Frames per second of a file of features."""

    @property
    def part(self) -> Part:
        """What it takes of its file."""
        return Part(self.values["path"], *(self.span or ()))


def read_lines(root: Path, csv_file: Path, ignored: Sequence[str] = ()) -> list[Line]:
    """The checked lines, with their labels; raises UserError with all that is wrong in them.

    Columns of the names `ignored` are passed over.
    """
    if not csv_file.is_file():
        raise UserError(f"{csv_file}: the file is missing; write one with the header {','.join(REQUIRED)}")
    problems, label_files = Problems(), dict[str, np.ndarray | None]()
    rows = table(csv_file, REQUIRED, OPTIONAL, problems, ignored=ignored)
    checked = (_check(root, csv_file, row, label_files, problems) for row in rows)
    lines = [line for line in checked if line is not None]
    if not lines and not problems:
        raise UserError(f"{csv_file}: it lists no recording; add a line per video under the header")
    _check_twins(root, csv_file, lines, problems)
    problems.refuse()
    return lines


def _check(
    root: Path, csv_file: Path, row: Row, label_files: dict[str, np.ndarray | None], problems: Problems
) -> Line | None:
    """One line, or None if it has a problem; `label_files` are those of earlier lines, None if refused."""
    before, values = len(problems.found), row.values

    def attempt(column: str, check: Callable[[str], T]) -> T | None:
        try:
            return check(values.get(column, ""))
        except UserError as error:
            problems.add(f"{csv_file}, line {row.number}, column {column!r}: {error}")
        return None

    for name in REQUIRED:
        attempt(name, _filled)
    for name in ("scene", "view"):
        attempt(name, _without_slash)
    perspective = attempt("perspective", lambda text: _PERSPECTIVES[one_of(text, _PERSPECTIVES)] if text else None)
    path = attempt("path", lambda text: relative_path(root, text, folders=is_image_folder) if text else None)
    offset_s = attempt("start_offset_s", seconds) if values.get("start_offset_s") else 0.0
    if (file := values.get("labels")) and file not in label_files:
        label_files[file] = attempt("labels", lambda text: read_labels(relative_path(root, text)))
    labels = label_files[file] if file else None
    in_seconds = any(values.get(name) for name in _SECONDS)
    span = _seconds(attempt, values) if in_seconds else _frames(attempt, values)
    features_fps = _features(attempt, values) if path and is_features(path) else None
    images = _images(attempt, values, path) if path and not features_fps else None
    if len(problems.found) > before or perspective is None or offset_s is None or (file and labels is None):
        return None
    return Line(row.number, values, perspective, offset_s, labels, span, in_seconds, images, features_fps)


class Attempt(Protocol):
    """Checks the value in a column of one line, and notes what is wrong with it."""

    def __call__(self, column: str, check: Callable[[str], T]) -> T | None:
        """What the check gives; None if it refuses the value."""


def _frames(attempt: Attempt, values: dict[str, str]) -> tuple[float, float] | None:
    """The span in the columns first_frame and num_frames."""
    if not any(values.get(name) for name in _FRAMES):
        return None
    first = attempt("first_frame", lambda text: whole_number(text) if text else 0)
    count = attempt("num_frames", lambda text: whole_number(text, 1) if text else math.inf)
    return None if first is None or count is None else (first, first + count)


def _seconds(attempt: Attempt, values: dict[str, str]) -> tuple[float, float] | None:
    """The span in the columns start_s and end_s."""

    def after(start: float, text: str) -> float:
        end = seconds(text) if text else math.inf
        if end <= start:
            raise UserError(f"{text} is not after start_s = {start:g}; a span has its end after its start")
        return end

    for name in _FRAMES:
        if values.get(name):
            attempt(name, _in_seconds_too)
    start = attempt("start_s", lambda text: _not_negative(text) if text else 0.0)
    end = None if start is None else attempt("end_s", lambda text: after(start, text))
    return None if start is None or end is None else (start, end)


def _not_negative(text: str) -> float:
    value = seconds(text)
    if value < 0:
        raise UserError(f"{text} is before the file's start; give seconds from 0")
    return value


def _in_seconds_too(text: str) -> None:
    raise UserError(f"it is {text}, but the line has start_s or end_s too; give a span in frames or in seconds")


def _images(attempt: Attempt, values: dict[str, str], path: Path) -> Images | None:
    """What the columns fps and first_number say of a folder of images; a file must have nothing there."""
    if not is_image_folder(path):
        for name in _IMAGES:
            if values.get(name):
                attempt(name, _of_a_file)
        return None
    fps = attempt("fps", lambda text: _rate(text, "a folder of images"))
    number = attempt("first_number", lambda text: whole_number(text) if text else None)
    return None if fps is None else Images(fps, number)


def _features(attempt: Attempt, values: dict[str, str]) -> float | None:
    """The rate of a file of features, which is one recording."""
    for name in (*_FRAMES, *_SECONDS, "first_number"):
        if values.get(name):
            attempt(name, _of_features)
    return attempt("fps", lambda text: _rate(text, "a file of features"))


def _rate(text: str, what: str) -> float:
    try:
        fps = seconds(text)
    except UserError:
        fps = 0.0
    if not MIN_FPS <= fps <= MAX_FPS:
        raise UserError(
            f"{text or 'it is empty'}; {what} needs its rate, from {MIN_FPS:g} to {MAX_FPS:g} per s, such as 29.97"
        )
    return fps


def _of_features(text: str) -> None:
    raise UserError(f"it is {text}, but path names features, of which a file is one recording; leave it empty")


def _of_a_file(text: str) -> None:
    raise UserError(f"it is {text}, but path names a file, which states its own; leave it empty")


def _filled(text: str) -> None:
    if not text:
        raise UserError("it is empty; every recording needs one")


def _without_slash(text: str) -> None:
    if "/" in text:
        raise UserError(f"{text!r} holds a '/'; write '-' or '_' in its place")


def _check_twins(root: Path, csv_file: Path, lines: Sequence[Line], problems: Problems) -> None:
    """Add lines that name a recording of an earlier line, or its part of a file in another split or for another camera.

    Lines of one file agree on how it is read.
    """
    views: dict[tuple[str, str], int] = {}
    scenes: dict[str, list[Line]] = {}
    for line in lines:
        key = (line.values["scene"], line.values["view"])
        if (known := views.setdefault(key, line.number)) != line.number:
            problems.add(
                f"{csv_file}, line {line.number}: scene and view {'/'.join(key)} are in line {known} already; together "
                "they must name one recording, in whatever split"
            )
        scenes.setdefault(line.values["scene"], []).append(line)
    for of_scene in scenes.values():
        for k, j in clashes(root, ((line.part, line.values["view"]) for line in of_scene)):
            line, other = of_scene[k], of_scene[j]
            problems.add(
                f"{csv_file}, line {line.number}: {line.values['path']} is in line {other.number} already as view "
                f"{other.values['view']!r} of this scene; each camera of a scene has a file, or a span, of its own: "
                "correct the path or remove the line"
            )
    _check_agreement(csv_file, lines, problems)
    for k, problem in split_conflicts(root, ((line.values["split"], line.part) for line in lines)):
        problems.add(f"{csv_file}, line {lines[k].number}: {problem}")


def _check_agreement(csv_file: Path, lines: Sequence[Line], problems: Problems) -> None:
    """Add lines that are read otherwise than earlier ones: features, spans in another unit, folders at other rates."""
    units: dict[str, Line] = {}
    folders: dict[str, Line] = {}
    for line in lines:
        path = line.values["path"]
        if (line.features_fps is None) != (lines[0].features_fps is None):
            problems.add(
                f"{csv_file}, line {line.number}: {path} and {lines[0].values['path']} of line {lines[0].number} are "
                "features and pictures; a catalog has one of them: list them in two files"
            )
            break
        place = f"{csv_file}, line {line.number}: {path}"
        if line.span and (other := units.setdefault(path, line)).in_seconds != line.in_seconds:
            problems.add(
                f"{place} has a span in {'seconds' if line.in_seconds else 'frames'}, and in line {other.number} one "
                f"in {'seconds' if other.in_seconds else 'frames'}; give all spans of a file in one unit"
            )
        if line.images and (other := folders.setdefault(path, line)).images != line.images:
            problems.add(
                f"{place} has another fps or first_number than in line {other.number}; a folder of images has one of "
                "each"
            )
