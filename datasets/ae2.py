"""One of AE2's four sets (arXiv 2306.05526): ego and exo videos with one phase label per frame.

Two layouts, detected from the files; ROOT/SET holds `label.pickle` and
- lists (break_eggs, tennis_forehand): {ego,exo}/*.mp4, and {ego,exo}/{train,val,test}.csv: no header, one name a line;
- folders (pour_milk, pour_liquid): {train,val,test}/{ego,exo}/*.mp4

A set of other phases than AE2's names them in `phases.txt`: one name a line, in the order of their numbers.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from crossview.datasets.catalog import Catalog, Perspective, Recording, one_protocol, safe_pickle
from crossview.datasets.catalog.probing import Tick, check_splits, probe_all
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.errors import UserError

PROTOCOLS = (DEFAULT,)
SPLITS = ("train", "val", "test")
PERSPECTIVES: tuple[Perspective, ...] = ("ego", "exo")
PHASES: dict[str, tuple[str, ...]] = {
    "break_eggs": ("before the hit", "hit to visible crack", "visible crack to contents released", "released"),
    "pour_milk": ("before the liquid exits", "pouring", "pouring complete"),
    "pour_liquid": ("before the liquid exits", "pouring", "pouring complete"),
    "tennis_forehand": ("before the racket touches the ball", "after it"),
}
"""Phases between the key events that the benchmark labels, by set; those of another set come from its phases.txt."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which set, and where it is."""

    root: Path
    """Folder that holds the sets."""
    set: str
    """Name of the set, e.g. break_eggs."""


def catalog(options: Options, *, tick: Tick | None = None) -> Catalog:
    """The set's recordings, per split sorted by path with ego before exo, and their "phase" labels.

    Raises ValueError for a missing root, an empty split, a broken list, labels that do not match their video, and a
    name that two videos of one view share. Unreadable videos are listed in `Catalog.quarantined`.
    """
    root, name = options.root, options.set
    base = root / name
    listed = _listed(root, name)
    check_splits(root, ((split, path) for split, _, path in listed), base)
    label_file = base / "label.pickle"
    _check_names(listed, label_file)
    labels = _labels(label_file)
    infos, quarantined = probe_all(root, [path for *_, path in listed], tick=tick)
    members: list[tuple[Recording, str]] = []
    phases = {}
    for split, perspective, path in listed:
        if path not in infos:
            continue
        info, stem = infos[path], PurePosixPath(path).stem
        recording = Recording(
            dataset=f"ae2-{name}", scene=stem, view=perspective, perspective=perspective,
            subject=stem.split("_")[0], action=name, path=path, kind="video", fps=info.fps,
            num_frames=info.num_frames, height_px=info.height_px, width_px=info.width_px,
        )  # fmt: skip
        members.append((recording, split))
        phases[recording.id] = _phases(root / path, info.num_frames, label_file, labels.get(stem))
    return Catalog(
        root,
        tuple(recording for recording, _ in members),
        frame_labels={"phase": phases},
        quarantined=quarantined,
        protocols=one_protocol(members),
        classes={f"phase/{name}": names} if (names := _phase_names(base)) else {},
    )


def _phase_names(base: Path) -> tuple[str, ...]:
    """From the set's phases.txt, else AE2's own; none where neither knows the set, whose phases have numbers alone."""
    file = base / "phases.txt"
    if not file.is_file():
        return PHASES.get(base.name, ())
    return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())


def _check_names(listed: list[tuple[str, Perspective, str]], label_file: Path) -> None:
    """Labels are found by a video's name alone, without folder or split: two of one view cannot share it."""
    first: dict[tuple[str, str], str] = {}
    for _, perspective, path in listed:
        known = first.setdefault((perspective, PurePosixPath(path).stem), path)
        if known != path:
            raise UserError(
                f"{label_file}: {known} and {path} have one name, so {perspective} videos share one entry of labels; "
                "rename one of them and give it an entry of its own"
            )


def _listed(root: Path, set_name: str) -> list[tuple[str, Perspective, str]]:
    """(split, perspective, path relative to root) of every video, in the benchmark's order."""
    base = root / set_name
    if not base.is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        raise UserError(
            f"{base}: the folder is missing ({root} holds {', '.join(there) or 'nothing'}); "
            "pass the folder that holds the AE2 sets, and the name of one of them"
        )
    lists = (base / "ego" / "train.csv").is_file() or (base / "exo" / "train.csv").is_file()
    if not lists and not (base / "train").is_dir():
        raise UserError(
            f"{base}: neither ego/train.csv nor train/ego is here; arrange the set as AE2 does, either with lists "
            "({ego,exo}/{train,val,test}.csv) or with folders ({train,val,test}/{ego,exo})"
        )
    listed: list[tuple[str, Perspective, str]] = []
    for split in SPLITS:
        for perspective in PERSPECTIVES:
            if lists:
                files = _read_list(base / perspective / f"{split}.csv")
            else:
                files = _read_folder(base / split / perspective)
            listed += [(split, perspective, str(PurePosixPath(*f.relative_to(root).parts))) for f in sorted(files)]
    return listed


def _read_list(file: Path) -> list[Path]:
    """The videos that a csv list names, relative to its own folder."""
    if not file.is_file():
        raise UserError(f"{file}: the list is missing; AE2 has one per split and view, with a video's name per line")
    found: list[Path] = []
    with file.open(newline="", encoding="utf-8-sig") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            if not row:  # a blank line
                continue
            video = file.parent / row[0].strip()
            if len(row) != 1 or video.suffix != ".mp4" or not video.is_file() or video in found:
                rule = (
                    "a line holds one file name" if len(row) != 1
                    else "the name must end in .mp4" if video.suffix != ".mp4"
                    else "a file is listed once" if video in found
                    else f"{video} must exist"
                )  # fmt: skip
                raise UserError(
                    f"{file}, line {number}: {','.join(row)!r} is broken: {rule}; correct or remove the line"
                )
            found.append(video)
    if not found:
        raise UserError(f"{file}: the split is empty; list at least one video, one name per line")
    return found


def _read_folder(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: the folder is missing; AE2 has one per split and view, with .mp4 files")
    found = list(folder.glob("*.mp4"))
    if not found:
        raise UserError(f"{folder}: the split is empty; it must hold at least one .mp4 file")
    return found


def _labels(file: Path) -> dict[str, Any]:
    labels = safe_pickle.load(file)
    if not isinstance(labels, dict):
        raise UserError(
            f"{file}: it holds a {type(labels).__name__}; it must be a dict from a video's name to its labels"
        )
    return labels


def _phases(video: Path, num_frames: int, file: Path, values: Any) -> np.ndarray:
    """One video's labels: int32 (num_frames,)."""
    if values is None:
        raise UserError(f"{file}: it has no labels for {video}; add the key {video.stem!r}")
    phases = np.asarray(values)
    if phases.ndim != 1 or not np.issubdtype(phases.dtype, np.number) or (phases != np.round(phases)).any():
        raise UserError(f"{file}: the labels of {video} are not a flat row of whole numbers; save one per frame")
    if len(phases) != num_frames:
        raise UserError(
            f"{file}: {len(phases)} labels for {video}, which decodes to {num_frames} frames; there must be one label "
            "per frame: correct the labels, or get the video again"
        )
    if phases.min() < 0:
        raise UserError(f"{file}: the labels of {video} go down to {phases.min()}; phases count from 0")
    return phases.astype(np.int32)
