"""Teachers' files as others release them, read into what `teachers.py` writes; matched to recordings by name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from crossview.datasets.catalog import Catalog, Recording, safe_pickle
from crossview.datasets.teachers.store import Detections
from crossview.errors import UserError

HAND, OBJECT = 1, 2
Coordinates = Literal["pixel", "unit"]
Tick = Callable[[int, int], None]


def score_pickle(file: Path, catalog: Catalog) -> dict[str, np.ndarray]:
    """A pickled dict of relative video path to scores, as Ego-Exo's k400_ego_predicts.pkl: recording id -> (C,).

    Suffixes are left out of the comparison, since a prepared copy is an .mp4. Recordings without an entry are left out;
    raises ValueError if none has one.
    """
    found = safe_pickle.load(file)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{file}: it must hold a dict of video path to scores; get the file again")
    by_path = {_stem(key): value for key, value in found.items()}
    out = {
        r.id: _numbers(by_path[_stem(r.path)], f"{file}: the scores of {r.path}").reshape(-1)
        for r in catalog.recordings
        if _stem(r.path) in by_path
    }
    if not out:
        raise UserError(
            f"{file}: none of its {len(found)} paths (e.g. {next(iter(found), '')!r}) names a recording of the catalog "
            f"(e.g. {catalog.recordings[0].path!r}); make the catalog with paths relative to the same folder"
        )
    return out


def object_arrays(
    folder: Path,
    catalog: Catalog,
    *,
    coordinates: Coordinates = "pixel",
    first: int = 0,
    fps: float | None = None,
    frame_px: tuple[int, int] | None = None,
    min_score: float = 0.0,
    tick: Tick | None = None,
) -> dict[str, Detections]:
    """Ego-Exo's *_handobj_predicts/NAME.npy, NAME being the video's base name: recording id -> detections.

    Entry i is (objects, hands) of the frame numbered i, each None or (n, 6 or more): corners, score, ... `first` is the
    number of the video's first frame (0 for Kinetics and Charades-Ego, 1 for EPIC-KITCHENS), `fps` the rate of that
    numbering where it is not the recording's, `frame_px` width and height that the detector saw where they are not.
    """
    frames = _Frames(coordinates, first, fps, frame_px, min_score)
    return _of_recordings(folder, ".npy", catalog, lambda file: _pairs(file, first), frames, tick)


def epic_pickles(
    folder: Path,
    catalog: Catalog,
    *,
    coordinates: Coordinates = "unit",
    first: int = 1,
    fps: float | None = 60.0,
    frame_px: tuple[int, int] | None = None,
    min_score: float = 0.5,
    tick: Tick | None = None,
) -> dict[str, Detections]:
    """EPIC-KITCHENS' hand-object detections, VIDEO.pkl with a list of serialized messages: recording id -> detections.

    They were extracted down to scores of 0.1 (hands) and 0.01 (objects); the authors advise 0.5. Frames count from
    `first` at 60 per second (50 in the extension's videos PXX_1YY: pass fps).
    """
    frames = _Frames(coordinates, first, fps, frame_px, min_score)
    return _of_recordings(folder, ".pkl", catalog, _messages, frames, tick)


@dataclass(frozen=True)
class _Frames:
    """How a file's frame numbers and corners map to those of a recording."""

    coordinates: Coordinates
    first: int
    fps: float | None
    frame_px: tuple[int, int] | None
    min_score: float

    def convert(self, recording: Recording, num_frames: int, entries: Entries, what: str) -> Detections:
        """Detections in the recording's own frames; raises ValueError if the file cannot belong to it.

        `num_frames` are those of the whole file that the recording may be a span of.
        """
        count = entries.count - self.first
        if self.fps is None and abs(count - num_frames) > max(2, 0.02 * num_frames):
            raise UserError(
                f"{what}: {count} frames, but the video of {recording.id} has {num_frames}; the file must belong "
                "to this video: pass first and fps where frames are numbered otherwise"
            )
        number = entries.number - self.first
        ratio = 1.0 if self.fps is None else recording.fps / self.fps
        frame = np.floor(number * ratio + 1e-6).astype(np.int64) - recording.first_frame
        box, score = entries.rows[:, :4], entries.rows[:, 4]
        if self.coordinates == "pixel":
            width, height = self.frame_px or (recording.width_px, recording.height_px)
            box = box / np.array([width, height, width, height])
        kept = (frame >= 0) & (frame < recording.num_frames) & ~(score < self.min_score)  # NaN stays, to be refused
        # Where several of the file's frames fall on one of the recording's, the first of them counts.
        first = np.full(recording.num_frames, np.iinfo(np.int64).max)
        np.minimum.at(first, frame[kept], number[kept])
        kept[kept] = first[frame[kept]] == number[kept]
        return Detections(frame[kept], entries.kind[kept], box[kept], score[kept]).checked(what)


@dataclass(frozen=True)
class Entries:
    """A file's boxes: frame numbers (n,), kinds (n,), corners and scores (n, 5), and frames in all."""

    number: np.ndarray
    kind: np.ndarray
    rows: np.ndarray
    count: int

    @staticmethod
    def of(found: list[tuple[int, int, np.ndarray]], count: int) -> Entries:
        """From (frame number, kind, rows) triples."""
        sizes = [len(rows) for _, _, rows in found]
        return Entries(
            np.repeat(np.array([n for n, _, _ in found], np.int64), sizes),
            np.repeat(np.array([k for _, k, _ in found], np.int64), sizes),
            np.concatenate([np.zeros((0, 5)), *(rows for _, _, rows in found)]),
            count,
        )


def _of_recordings(
    folder: Path,
    suffix: str,
    catalog: Catalog,
    read: Callable[[Path], Entries],
    frames: _Frames,
    tick: Tick | None,
) -> dict[str, Detections]:
    out: dict[str, Detections] = {}
    read = lru_cache(maxsize=2)(read)  # one file has the entries of all its spans
    for done, recording in enumerate(catalog.recordings):
        file = folder / f"{PurePosixPath(_stem(recording.path)).name}{suffix}"
        if file.is_file():
            out[recording.id] = frames.convert(recording, catalog.frames_in_file(recording), read(file), str(file))
        if tick:
            tick(done + 1, len(catalog.recordings))
    if not out:
        example = PurePosixPath(_stem(catalog.recordings[0].path)).name
        raise UserError(
            f"{folder}: no file of any recording of the catalog, such as {example}{suffix}; check the folder"
        )
    return out


def _pairs(file: Path, first: int) -> Entries:
    found = []
    pairs = safe_pickle.load_object_array(file)
    for number, pair in enumerate(pairs):
        if pair is None or number < first:
            continue
        if not isinstance(pair, (tuple, list, np.ndarray)) or len(pair) != 2:
            held = f"{len(pair)} parts" if hasattr(pair, "__len__") else f"a {type(pair).__name__}"
            raise UserError(f"{file}: entry {number} has {held}; it must be (objects, hands)")
        for kind, rows in zip((OBJECT, HAND), pair, strict=True):
            if rows is not None and (not hasattr(rows, "__len__") or len(rows)):
                what = f"{file}: entry {number}"
                found.append((number, kind, _columns(_numbers(rows, what), what)))
    return Entries.of(found, len(pairs))


def _messages(file: Path) -> Entries:
    messages = safe_pickle.load(file)
    if not isinstance(messages, list) or not all(isinstance(m, bytes) for m in messages):
        raise UserError(f"{file}: it must hold a list of serialized messages; get the file again")
    try:
        return Entries.of([entry for m in messages for entry in _epic_frame(m)], len(messages) + 1)
    except (ValueError, IndexError, struct.error) as error:
        raise UserError(f"{file}: a message is damaged ({error}); get the file again") from error


def _numbers(values: object, what: str) -> np.ndarray:
    """Float64 of the values' shape; raises UserError for text, ragged rows and the like."""
    try:
        return np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what}: not an array of numbers (rows of one length); get the file again") from error


def _columns(rows: np.ndarray, what: str) -> np.ndarray:
    """Corners and score, (n, 5)."""
    if rows.ndim != 2 or rows.shape[1] < 5:
        raise UserError(f"{what}: boxes of shape {rows.shape}; they must be (n, 5 or more): corners, score")
    return rows[:, :5]


def _stem(path: str) -> str:
    name = PurePosixPath(path)
    if "*" in name.name:  # images of a folder
        name = name.parent
    return str(name.with_suffix("")) if path else ""


def _epic_frame(message: bytes) -> Iterator[tuple[int, int, np.ndarray]]:
    """Message fields of the released schema: 2 frame number, 3 hands, 4 objects; in each 1 box, 2 score."""
    number, found = 0, []
    for tag, value in _fields(message):
        if tag == 2 and isinstance(value, int):
            number = value
        elif tag in (3, 4) and isinstance(value, bytes):
            found.append((HAND if tag == 3 else OBJECT, _epic_box(value)))
    for kind, row in found:
        yield number, kind, row[None]


def _epic_box(message: bytes) -> np.ndarray:
    """Corners and score, (5,); what is 0 is not written."""
    row = np.zeros(5)
    for tag, value in _fields(message):
        if tag == 1 and isinstance(value, bytes):
            for corner, share in _fields(value):
                if 1 <= corner <= 4 and isinstance(share, float):
                    row[corner - 1] = share
        elif tag == 2 and isinstance(value, float):
            row[4] = value
    return row


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Fields of a protocol-buffer message in wire format: number and value (varint, 32-bit float, bytes)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        tag, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield tag, value
        elif wire == 5:
            yield tag, struct.unpack_from("<f", message, at)[0]
            at += 4
        elif wire == 1:
            yield tag, struct.unpack_from("<d", message, at)[0]
            at += 8
        elif wire == 2:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise UserError(f"a field of {size} bytes in a message of {len(message)}")
            yield tag, message[at : at + size]
            at += size
        else:
            raise UserError(f"wire type {wire}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise UserError("a number of more than ten bytes")
