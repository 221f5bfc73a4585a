"""Any folder of videos or features, described by one CSV file and no code.

Columns path, split, scene, view, perspective; optional subject, action, start_offset_s, labels; for spans of files
first_frame and num_frames, or start_s and end_s; for folders of images fps and first_number; for features, which are
.npy, .npz or .pt files of (frames, width) or (frames, tokens, width), fps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossview.datasets.catalog import Catalog, Quarantined, Recording, one_protocol
from crossview.datasets.catalog.frame_labels import check_length
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.catalog.recording_lines import Line, read_lines
from crossview.datasets.features.arrays import ArrayFile, pack_files, shapes_of
from crossview.datasets.features.packing import Tick, feature_columns, packed_shape
from crossview.datasets.video.frame_index import cached_index
from crossview.datasets.video.indexing import VideoInfo
from crossview.errors import UserError

PROTOCOLS = (DEFAULT,)
PAIRINGS = ("single", "unpaired", "paired", "synchronized", "group")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which files, and the list of them."""

    root: Path
    """Folder that the paths in the CSV start from."""
    csv: Path
    """One line per video under a header that names its columns."""
    ignore_columns: tuple[str, ...] = ()
    """Further columns of the CSV, which are passed over."""
    packed: Path | None = None
    """Folder for features packed as float16 .npy files, which training memory-maps; needed where some are not that."""
    key: str | None = None
    """Name of the array in .npz files, or of the tensor in .pt files, that hold several."""


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """The recordings that the CSV lists: of videos and folders of images, or of features.

    Its header names the columns path, split, scene, view, perspective (ego or exo), and any of subject, action,
    start_offset_s and labels; paths are relative to the root. `labels` names a .txt, .csv or .npy file with one whole
    number per frame, read as "phase". Without an action column all recordings count as one action. first_frame and
    num_frames, or start_s and end_s, make a line a span of its file; fps and first_number belong to folders of images.
    Raises UserError, before any video is opened, that names file, line and column of all that is wrong. Unreadable
    videos, spans that end after their file, and recordings with another number of frames than labels are listed in
    `Catalog.quarantined`.
    """
    root, csv_file = options.root, options.csv
    if not root.is_dir():
        raise UserError(f"{root}: the folder is missing; pass the folder that the paths in {csv_file} are relative to")
    lines = read_lines(root, csv_file, options.ignore_columns)
    if lines[0].features_fps is not None:
        return _of_features(options, lines, prober.tick if prober else None)
    images = {line.values["path"]: line.images for line in lines if line.images}
    infos, unreadable = (prober or Prober()).probe(root, (line.values["path"] for line in lines), images)
    quarantined = list(unreadable)
    members: list[tuple[Recording, str]] = []
    phases = {}
    for line in lines:
        path = line.values["path"]
        info = infos.get(path)
        if info is None:
            continue
        first, end = ("start_s", "end_s") if line.in_seconds else ("first_frame", "num_frames")
        column = end if line.values.get(end) else first
        try:
            recording = _recording(csv_file, line, info)
            if line.labels is not None:
                column = "labels"
                check_length(line.labels, recording.num_frames, str(root / line.values["labels"]), path)
                phases[recording.id] = line.labels
        except UserError as error:
            quarantined.append(Quarantined(path, f"{csv_file}, line {line.number}, column {column!r}: {error}"))
            continue
        members.append((recording, line.values["split"]))
    return _catalog(root, members, phases, quarantined)


def _of_features(options: Options, lines: Sequence[Line], tick: Tick | None) -> Catalog:
    """The catalog of features: of the files themselves where all can be mapped, else of packed copies of all."""
    files = {line.values["path"]: ArrayFile(options.root / line.values["path"], options.key) for line in lines}
    shapes, broken = shapes_of(files, options.csv)
    root, places = options.root, {path: path for path in shapes}
    if other := next((path for path in shapes if packed_shape(root / path) is None), None):
        if options.packed is None or options.packed.resolve() == root.resolve():
            raise UserError(
                f"--packed is {options.packed}; {root / other} is no contiguous float16 .npy file, which training maps "
                "into memory: name another folder than the root for packed copies"
            )
        root = options.packed
        places, unpacked = pack_files(files, shapes, root, tick)
        broken |= unpacked
    members: list[tuple[Recording, str]] = []
    phases = {}
    for line in lines:
        path = line.values["path"]
        if path in broken:
            continue
        recording = _made(options.csv, line, places[path], feature_columns(shapes[path], line.features_fps or 0))
        if line.labels is not None:
            try:
                check_length(line.labels, recording.num_frames, str(options.root / line.values["labels"]), path)
            except UserError as error:
                broken[path] = f"{options.csv}, line {line.number}, column 'labels': {error}"
                continue
            phases[recording.id] = line.labels
        members.append((recording, line.values["split"]))
    quarantined = [Quarantined(path, reason) for path, reason in broken.items()]
    return _catalog(root, members, phases, quarantined)


def _catalog(
    root: Path, members: list[tuple[Recording, str]], phases: dict[str, np.ndarray], quarantined: list[Quarantined]
) -> Catalog:
    return Catalog(
        root,
        tuple(recording for recording, _ in members),
        frame_labels={"phase": phases} if phases else {},
        quarantined=tuple(quarantined),
        protocols=one_protocol(members),
    )


def _made(csv_file: Path, line: Line, path: str, facts: dict[str, Any]) -> Recording:
    values = line.values
    return Recording(
        dataset=csv_file.stem, scene=values["scene"], view=values["view"],
        perspective=line.perspective, subject=values.get("subject", ""), action=values.get("action", ""),
        path=path, start_offset_s=line.start_offset_s, **facts,
    )  # fmt: skip


def _recording(csv_file: Path, line: Line, info: VideoInfo) -> Recording:
    """Raises UserError if the line's span ends after its file."""
    first, stop = _cut(line, info)
    kind = "frames" if line.images else "video"
    facts = info.columns() | {"kind": kind, "first_frame": first, "num_frames": stop - first}
    if line.span:
        facts["first_s"] = 0.0  # a span's clock starts with it
    return _made(csv_file, line, line.values["path"], facts)


def _cut(line: Line, info: VideoInfo) -> tuple[int, int]:
    """The first frame of a line's span, and the one after its last; raises UserError if the file is shorter."""
    if line.span is None:
        return 0, info.num_frames
    first, stop = (_frame_from(info, instant_s) for instant_s in line.span) if line.in_seconds else line.span
    stop = info.num_frames if stop == math.inf else stop
    count = info.num_frames
    has = f"{line.values['path']} has {count} frames, the last at {_times_s(info)[-1]:g} s"
    if first >= count or stop > count:
        what = f"begins with frame {first}" if first >= count else f"ends with frame {stop - 1}"
        raise UserError(f"the span {what}, counted from 0, but {has}; correct it, or leave its end out")
    if first >= stop:
        raise UserError(f"no frame is in the span; {has}: make the span longer")
    return int(first), int(stop)


def _frame_from(info: VideoInfo, instant_s: float) -> float:
    """The first frame that is shown less than half a frame before an instant of the file's clock, or later."""
    if instant_s == math.inf:
        return math.inf
    last, times_s = info.num_frames - 1, _times_s(info)
    earliest_s = instant_s - 0.5 / info.fps
    if earliest_s <= times_s[-1]:
        return int(np.searchsorted(times_s, earliest_s))
    return last + math.ceil((earliest_s - times_s[-1]) * info.fps)


def _times_s(info: VideoInfo) -> np.ndarray:
    """When the frames are shown, on the file's clock: float64 (n,)."""
    if info.constant_rate:
        return info.first_s + np.arange(info.num_frames) / info.fps
    return cached_index(Path(info.index)).times_s
