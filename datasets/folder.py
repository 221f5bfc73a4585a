"""Any folder of videos, described by one CSV file and no code.

Columns path, split, scene, view, perspective; optional subject, action, start_offset_s, labels.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossview import storage
from crossview.datasets.catalog import Catalog, Perspective, Recording, one_protocol
from crossview.datasets.catalog.probing import Tick, check_splits, probe_all
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.video.decode import VideoInfo
from crossview.errors import UserError

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


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which files, and the list of them."""

    root: Path
    """Folder that the paths in the CSV start from."""
    csv: Path
    """One line per video under a header that names its columns."""


def catalog(options: Options, *, tick: Tick | None = None) -> Catalog:
    """The recordings that the CSV lists.

    Its header names the columns path, split, scene, view, perspective (ego or exo), and any of subject, action,
    start_offset_s and labels; paths are relative to the root. `labels` names a .txt, .csv or .npy file with one whole
    number per frame, read as "phase". Without an action column all recordings count as one action.
    Raises ValueError that names file, line and column; unreadable videos are listed in `Catalog.quarantined`.
    """
    root, csv_file = options.root, options.csv
    if not root.is_dir():
        raise UserError(f"{root}: the folder is missing; pass the folder that the paths in {csv_file} are relative to")
    lines = _read(root, csv_file)
    check_splits(root, ((line.values["split"], line.values["path"]) for line in lines), csv_file)
    infos, quarantined = probe_all(root, [line.values["path"] for line in lines], tick=tick)
    members: list[tuple[Recording, str]] = []
    phases = {}
    for line in lines:
        info = infos.get(line.values["path"])
        if info is None:
            continue
        recording = _recording(csv_file, line, info)
        members.append((recording, line.values["split"]))
        if line.values.get("labels"):
            phases[recording.id] = _labels(root, csv_file, line, info.num_frames)
    return Catalog(
        root,
        tuple(recording for recording, _ in members),
        frame_labels={"phase": phases} if phases else {},
        quarantined=quarantined,
        protocols=one_protocol(members),
    )


def _read(root: Path, csv_file: Path) -> list[_Line]:
    if not csv_file.is_file():
        raise UserError(f"{csv_file}: the file is missing; write one with the header {','.join(REQUIRED)}")
    with csv_file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text)
        header = reader.fieldnames or []
        for name in REQUIRED:
            if name not in header:
                raise UserError(f"{csv_file}, line 1: column {name!r} is missing; needed: {', '.join(REQUIRED)}")
        for name in header:
            if name not in REQUIRED + OPTIONAL:
                raise UserError(
                    f"{csv_file}, line 1: column {name!r} is unknown; choose from {', '.join(REQUIRED + OPTIONAL)}"
                )
        lines: list[_Line] = []
        first_lines: dict[tuple[str, str], int] = {}
        for row in reader:
            line = _check(root, csv_file, reader.line_num, row)
            key = (line.values["scene"], line.values["view"])
            if key in first_lines:
                raise UserError(
                    f"{csv_file}, line {line.number}: scene and view {'/'.join(key)} are in line {first_lines[key]} "
                    "already; together they must name one recording, in whatever split"
                )
            first_lines[key] = line.number
            lines.append(line)
    if not lines:
        raise UserError(f"{csv_file}: it lists no recording; add a line per video under the header")
    return lines


def _check(root: Path, csv_file: Path, number: int, row: dict[str | None, str | list[str] | None]) -> _Line:
    place = f"{csv_file}, line {number}"
    if None in row or None in row.values():
        raise UserError(f"{place}: {[v for v in row.values() if v]} does not fit the header; give one value per column")
    values = {str(name): str(value).strip() for name, value in row.items()}
    for name in REQUIRED:
        if not values[name]:
            raise UserError(f"{place}, column {name!r}: it is empty; every recording needs one")
    for name in ("scene", "view"):
        if "/" in values[name]:
            raise UserError(f"{place}, column {name!r}: {values[name]!r} holds a '/'; write '-' or '_' in its place")
    perspective = _PERSPECTIVES.get(values["perspective"])
    if perspective is None:
        raise UserError(f"{place}, column 'perspective': {values['perspective']!r} is unknown; write ego or exo")
    if not (root / values["path"]).is_file():
        raise UserError(f"{place}, column 'path': {root / values['path']} is missing; paths are relative to {root}")
    offset = values.get("start_offset_s") or "0"
    try:
        start_offset_s = float(offset)
    except ValueError:
        start_offset_s = math.nan
    if not math.isfinite(start_offset_s):
        raise UserError(f"{place}, column 'start_offset_s': {offset!r} is not a number; give seconds, such as 1.25")
    return _Line(number, values, perspective, start_offset_s)


def _recording(csv_file: Path, line: _Line, info: VideoInfo) -> Recording:
    values = line.values
    return Recording(
        dataset=csv_file.stem, scene=values["scene"], view=values["view"],
        perspective=line.perspective, subject=values.get("subject", ""), action=values.get("action", ""),
        path=values["path"], kind="video", fps=info.fps, num_frames=info.num_frames, height_px=info.height_px,
        width_px=info.width_px, start_offset_s=line.start_offset_s,
    )  # fmt: skip


def _labels(root: Path, csv_file: Path, line: _Line, num_frames: int) -> np.ndarray:
    """int32 (num_frames,)."""
    file, place = root / line.values["labels"], f"{csv_file}, line {line.number}, column 'labels'"
    try:
        if file.suffix == ".npy":
            labels = np.load(storage.local(file), allow_pickle=False)
        elif file.suffix in (".txt", ".csv"):
            labels = np.array([int(text) for text in file.read_text().split()], np.int64)
        else:
            raise UserError(f"it ends in {file.suffix!r}")
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"it holds {labels.dtype} of shape {labels.shape}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{place}: {file}: {error}; give a .txt, .csv or .npy file with one whole number per frame"
        ) from error
    if len(labels) != num_frames:
        raise UserError(
            f"{place}: {file} holds {len(labels)} labels, but {line.values['path']} decodes to {num_frames} frames; "
            "there must be one label per frame"
        )
    return labels.astype(np.int32)
