"""Labels of frames as users give them, checked before a video is opened: one whole number per frame, from 0 on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossview import storage
from crossview.datasets.catalog.listing import text_lines
from crossview.errors import UserError

LARGEST = int(np.iinfo(np.int32).max)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_FORMATS = "give a .txt, .csv or .npy file with one whole number per frame"


def read_labels(file: Path) -> np.ndarray:
    """The labels in a .txt, .csv or .npy file: int32 (frames,). Raises UserError with file and line or frame."""
    if file.suffix not in (".txt", ".csv", ".npy"):
        raise UserError(f"{file}: its name ends in {file.suffix!r}; {_FORMATS}")
    try:
        if file.suffix == ".npy":
            return whole_numbers(_array(file), str(file))
        lines = text_lines(file)
    except OSError as error:
        raise UserError(f"{file}: it cannot be read ({error.strerror or error}); {_FORMATS}") from error
    numbers: list[int] = []
    line_of: list[int] = []
    for number, line in lines:
        for text in line.split():
            if not _WHOLE.fullmatch(text) or len(text) > 30:
                shown = text if len(text) <= 30 else f"{text[:30]}..."
                raise UserError(f"{file}, line {number}: {shown!r} is not a whole number; {_FORMATS}, and no header")
            numbers.append(int(text.partition(".")[0]))
            line_of.append(number)
    return whole_numbers(np.array(numbers, object), str(file), lambda frame: f", line {line_of[frame]}")


def _array(file: Path) -> np.ndarray:
    """What numpy.save wrote; mapped, since a damaged header may announce more than memory holds."""
    try:
        return np.lib.format.open_memmap(storage.local(file), mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy parses the header as Python; what it says of a damaged one is of no help
        raise UserError(f"{file}: not an array of numbers as numpy.save writes it; {_FORMATS}") from error


def whole_numbers(
    values: Any,
    what: str,
    at: Callable[[int], str] = lambda frame: f", frame {frame}",
    *,
    classes: Sequence[str] = (),
) -> np.ndarray:
    """One video's labels: int32 (frames,).

    `what` and what `at` gives for a frame, counted from 0, say in errors where the labels are. Raises UserError for
    ragged or nested rows, other things than whole numbers, negative ones, those beyond 32 bits, and those without a
    name, if there are names.
    """
    try:
        labels = np.asarray(values)
        if labels.dtype == object:
            labels = np.array([_exact(value) for value in labels.ravel()], object).reshape(labels.shape)
    except (ValueError, TypeError) as error:  # rows of different lengths; things that are no numbers
        raise UserError(f"{what}: it is not a flat row of whole numbers; save one per frame") from error
    if labels.ndim != 1:
        raise UserError(
            f"{what}: the labels have the shape {labels.shape}; save a flat row of one whole number per frame"
        )
    if not len(labels):
        raise UserError(f"{what}: it holds no labels; save one whole number per frame")
    if labels.dtype.kind not in "iufO":
        raise UserError(f"{what}: the labels are of type {labels.dtype}; save one whole number per frame")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)  # float16 overflows in the comparisons below
        _refuse(~np.isfinite(labels) | (labels != np.round(labels)), labels, what, at, "not a whole number", "save one")
    _refuse(
        labels < 0, labels, what, at, "negative",
        "phases count from 0: give frames without a phase a number of their own, which is scored as a phase like the "
        "others, or cut them from the video",
    )  # fmt: skip
    most = len(classes) - 1 if classes else LARGEST
    rule = f"the classes are {', '.join(classes)}, counted from 0" if classes else "labels are numbers of classes"
    _refuse(labels > most, labels, what, at, f"above {most}", rule)
    return labels.astype(np.int32)


def _exact(value: Any) -> int | float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(type(value).__name__)
    if isinstance(value, (float, np.floating)) and not float(value).is_integer():
        raise TypeError(value)
    return int(value)


def _refuse(bad: Any, labels: np.ndarray, what: str, at: Callable[[int], str], fault: str, rule: str) -> None:
    frames = np.flatnonzero(np.asarray(bad, bool))
    if len(frames):
        count = f" (so are {len(frames)} of {len(labels)})" if len(frames) > 1 else ""
        first = int(frames[0])
        raise UserError(f"{what}{at(first)}: the label {labels[first]} is {fault}{count}; {rule}")


def check_length(labels: np.ndarray, num_frames: int, source: str, video: str) -> None:
    """Raise UserError where a video has another number of frames than labels."""
    if len(labels) != num_frames:
        raise UserError(
            f"{source} holds {len(labels)} labels, but {video} decodes to {num_frames} frames; there must be one label "
            "per frame: correct the labels, or get the video again"
        )
