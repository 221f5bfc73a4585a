"""One of AE2's four sets (arXiv 2306.05526): ego and exo videos with one phase label per frame.

Two layouts, detected from the files; ROOT/SET holds `label.pickle` and
- lists (break_eggs, tennis_forehand): {ego,exo}/*.mp4, and {ego,exo}/{train,val,test}.csv: no header, one name a line;
- folders (pour_milk, pour_liquid): {train,val,test}/{ego,exo}/*.mp4

A set of other phases than AE2's names them in `phases.txt`: one name a line, in the order of their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from crossview.datasets.catalog import Catalog, Perspective, Quarantined, Recording, one_protocol, safe_pickle
from crossview.datasets.catalog.frame_labels import check_length, whole_numbers
from crossview.datasets.catalog.listing import Problems, cells, first_of, relative_path, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.catalog.spans import Part, check_splits
from crossview.errors import UserError

PROTOCOLS = (DEFAULT,)
PAIRINGS = ("single", "unpaired")
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


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """The set's recordings, per split sorted by path with ego before exo, and their "phase" labels.

    Raises ValueError, before any video is opened, for a missing root, an empty split, broken lists, broken labels, and
    a name that two videos of one view share. Unreadable videos, and those with another number of frames than labels,
    are listed in `Catalog.quarantined`.
    """
    root, name = options.root, options.set
    base = root / name
    listed = _listed(root, name)
    check_splits(root, ((split, Part(path)) for split, _, path in listed), base)
    label_file = base / "label.pickle"
    _check_names(listed, label_file)
    names = _phase_names(base)
    labels = _labels(root, listed, label_file, names)
    infos, unreadable = (prober or Prober()).probe(root, (path for *_, path in listed))
    quarantined = list(unreadable)
    members: list[tuple[Recording, str]] = []
    phases = {}
    for split, perspective, path in listed:
        if path not in infos:
            continue
        info, stem = infos[path], PurePosixPath(path).stem
        try:
            check_length(labels[stem], info.num_frames, f"{label_file}, key {stem!r},", path)
        except UserError as error:
            quarantined.append(Quarantined(path, str(error)))
            continue
        recording = Recording(
            dataset=f"ae2-{name}", scene=stem, view=perspective, perspective=perspective,
            subject=stem.split("_")[0], action=name, path=path, kind="video", **info.columns(),
        )  # fmt: skip
        members.append((recording, split))
        phases[recording.id] = labels[stem]
    return Catalog(
        root,
        tuple(recording for recording, _ in members),
        frame_labels={"phase": phases},
        quarantined=tuple(quarantined),
        protocols=one_protocol(members),
        classes={f"phase/{name}": names} if names else {},
    )


def _phase_names(base: Path) -> tuple[str, ...]:
    """From the set's phases.txt, else AE2's own; none where neither knows the set, whose phases have numbers alone."""
    file = base / "phases.txt"
    if not file.is_file():
        return PHASES.get(base.name, ())
    return tuple(line.strip() for _, line in text_lines(file))


def _check_names(listed: list[tuple[str, Perspective, str]], label_file: Path) -> None:
    """Labels are found by a video's name alone, without folder or split: two of one view cannot share it."""
    problems = Problems()
    first: dict[tuple[str, str], str] = {}
    for _, perspective, path in listed:
        known = first.setdefault((perspective, PurePosixPath(path).stem), path)
        if known != path:
            problems.add(
                f"{label_file}: {known} and {path} have one name, so {perspective} videos share one entry of labels; "
                "rename one of them and give it an entry of its own"
            )
    problems.refuse()


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
    problems = Problems()
    for split in SPLITS:
        for perspective in PERSPECTIVES:
            if lists:
                files = _read_list(base / perspective / f"{split}.csv", problems)
            else:
                files = _read_folder(base / split / perspective)
            listed += [(split, perspective, str(PurePosixPath(*f.relative_to(root).parts))) for f in sorted(files)]
    problems.refuse()
    return listed


def _read_list(file: Path, problems: Problems) -> list[Path]:
    """The videos that a csv list names, relative to its own folder; broken lines are added to `problems`."""
    if not file.is_file():
        raise UserError(f"{file}: the list is missing; AE2 has one per split and view, with a video's name per line")
    found: list[Path] = []
    for number, line in text_lines(file):
        try:
            found.append(_entry(file, cells(file, number, line, ","), found))
        except UserError as error:
            broken = f"{file}, line {number}: {line.strip()!r} is broken: {error}; correct or remove the line"
            problems.add(error if str(file) in str(error) else broken)
    if not found and not problems:
        raise UserError(f"{file}: the split is empty; list at least one video, one name per line")
    return found


def _entry(file: Path, values: list[str], before: list[Path]) -> Path:
    """The video that a line of a list names; raises UserError, without file and line, if it must not be there."""
    name = values[0]
    if len(values) != 1:
        raise UserError("a line holds one file name")
    if PurePosixPath(name).suffix != ".mp4":
        raise UserError("the name must end in .mp4")
    video = relative_path(file.parent, name)
    if video in before:
        raise UserError("a file is listed once")
    return video


def _read_folder(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: the folder is missing; AE2 has one per split and view, with .mp4 files")
    found = list(folder.glob("*.mp4"))
    if not found:
        raise UserError(f"{folder}: the split is empty; it must hold at least one .mp4 file")
    return found


def _labels(
    root: Path, listed: list[tuple[str, Perspective, str]], file: Path, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The labels of every listed video, by its name: int32 (frames,), of as many frames as the file says.

    Raises UserError with all that is wrong in them.
    """
    found = safe_pickle.load(file)
    if not isinstance(found, dict):
        raise UserError(
            f"{file}: it holds a {type(found).__name__}; it must be a dict from a video's name to its labels"
        )
    stems = {PurePosixPath(path).stem: path for *_, path in listed}
    problems = Problems()
    labels: dict[str, np.ndarray] = {}
    for stem, path in stems.items():
        if found.get(stem) is None:
            problems.add(f"{file}: it has no labels for {root / path}; add the key {stem!r}")
            continue
        try:
            labels[stem] = whole_numbers(found[stem], f"{file}, key {stem!r}", classes=names)
        except UserError as error:
            problems.add(error)
    unused = sorted(map(repr, found.keys() - stems.keys()))
    if len(labels) < len(stems) and unused:
        problems.found.insert(
            0,
            f"{file}: {len(unused)} of its {len(found)} keys name no video ({', '.join(first_of(unused, 3))}); a key "
            "is a video's file name without folder and .mp4",
        )
    problems.refuse()
    return labels
