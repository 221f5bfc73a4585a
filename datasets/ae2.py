"""One of AE2's four sets (arXiv 2306.05526): ego and exo videos with one phase label per frame.

Two layouts, detected from the files; ROOT/SET holds `label.pickle` and
- lists (break_eggs, tennis_forehand): {ego,exo}/*.mp4, and {ego,exo}/{train,val,test}.csv: no header, one name a line;
- folders (pour_milk, pour_liquid): {train,val,test}/{ego,exo}/*.mp4

Any part of the videos works: those that are listed or labelled but missing are counted in the catalog's notes.
A set of other phases than AE2's names them in `phases.txt`: one name a line, in the order of their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from crossview.datasets.catalog import Catalog, Perspective, Quarantined, Recording, one_protocol, safe_pickle
from crossview.datasets.catalog.found import content, coverage, named
from crossview.datasets.catalog.frame_labels import check_length, whole_numbers
from crossview.datasets.catalog.listing import Problems, cells, exists, first_of, relative_path, text_lines
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


Entry = tuple[str, Perspective, str]
"""Split, perspective, and path relative to the root of a video."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which set, and where it is."""

    root: Path
    """Folder that holds the sets."""
    set: str
    """Name of the set, e.g. break_eggs."""


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """The set's recordings, per split sorted by path with ego before exo, and their "phase" labels.

    Missing videos are counted in `Catalog.notes`. Raises ValueError, before any video is opened, for a root without
    any, broken lists, broken labels, and a name that two videos of one view share. Unreadable videos, and those with
    another number of frames than labels, are listed in `Catalog.quarantined`.
    """
    root, name = options.root, options.set
    base, label_file = root / name, root / name / "label.pickle"
    lists = _has_lists(root, name)
    listed, notes = _listed(root, base, lists)
    check_splits(root, ((split, Part(path)) for split, _, path in listed), base)
    _check_names(listed, label_file)
    here = _present(root, base, listed)
    names, entries = _phase_names(base), _label_entries(label_file)
    labels = _labels(root, listed, here, label_file, entries, names)
    notes.append(_coverage(root, base, listed, here) if lists else _labelled(here, entries))
    infos, unreadable = (prober or Prober()).probe(root, (path for *_, path in here))
    quarantined = list(unreadable)
    members: list[tuple[Recording, str]] = []
    phases = {}
    for split, perspective, path in here:
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
        notes=tuple(notes),
    )


def _phase_names(base: Path) -> tuple[str, ...]:
    """From the set's phases.txt, else AE2's own; none where neither knows the set, whose phases have numbers alone."""
    file = base / "phases.txt"
    if not file.is_file():
        return PHASES.get(base.name, ())
    return tuple(line.strip() for _, line in text_lines(file))


def _check_names(listed: list[Entry], label_file: Path) -> None:
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


def _has_lists(root: Path, set_name: str) -> bool:
    """Which of the two layouts it is: lists, or else folders; raises UserError if there is neither."""
    base = root / set_name
    if not base.is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        raise UserError(
            f"{base}: the folder is missing ({root} holds {', '.join(there) or 'nothing'}); "
            "pass the folder that holds the AE2 sets, and the name of one of them"
        )
    parts = [(split, view) for split in SPLITS for view in PERSPECTIVES]
    if any((base / view / f"{split}.csv").is_file() for split, view in parts):
        return True
    if any((base / split / view).is_dir() for split, view in parts):
        return False
    raise UserError(
        f"{base}: neither ego/train.csv nor train/ego is here, nor their like; arrange the set as AE2 does, either "
        "with lists ({ego,exo}/{train,val,test}.csv) or with folders ({train,val,test}/{ego,exo})"
    )


def _listed(root: Path, base: Path, lists: bool) -> tuple[list[Entry], list[str]]:
    """Every video that lists name or folders hold, in the benchmark's order, and a note per list or folder without."""
    listed: list[Entry] = []
    notes: list[str] = []
    problems = Problems()
    for split in SPLITS:
        for perspective in PERSPECTIVES:
            source = base / perspective / f"{split}.csv" if lists else base / split / perspective
            files = _read_list(source, problems) if lists else list(source.glob("*.mp4"))
            if not files:
                lack = "is not there" if not source.exists() else "holds no .mp4 file"
                where = source.relative_to(base).as_posix()
                notes.append(f"{where} {lack}, so split {split!r} has no {perspective} video")
            listed += [(split, perspective, str(PurePosixPath(*f.relative_to(root).parts))) for f in sorted(files)]
    problems.refuse()
    return listed, notes


def _present(root: Path, base: Path, listed: list[Entry]) -> list[Entry]:
    """The videos that are there; raises UserError if none is."""
    here = [entry for entry in listed if exists(root / entry[2])]
    if not here:
        looked = named([path for *_, path in listed]) or "files such as train/ego/NAME.mp4"
        raise UserError(
            f"{base}: no video of the set is there; looked for {looked}; {content(base)}: put the videos where AE2 has "
            "them, or pass the folder that holds the sets as --root"
        )
    return here


def _coverage(root: Path, base: Path, listed: list[Entry], here: list[Entry]) -> str:
    """How many of the videos in lists are there, and how many files are in no list."""
    beside = [path.relative_to(root).as_posix() for view in PERSPECTIVES for path in (base / view).glob("*.mp4")]
    return coverage("videos", [path for *_, path in listed], [*(path for *_, path in here), *beside])


def _labelled(here: list[Entry], entries: dict[object, object]) -> str:
    """How many of the videos with labels are there: where no list names the videos, the labels do."""
    return coverage("videos with labels", sorted(map(str, entries)), [PurePosixPath(path).stem for *_, path in here])


def _read_list(file: Path, problems: Problems) -> list[Path]:
    """The videos that a csv list names in its folder; none where it is missing. What is wrong goes to `problems`."""
    if not file.is_file():
        return []
    found: list[Path] = []
    before = len(problems.found)
    for number, line in text_lines(file):
        try:
            found.append(_entry(file, cells(file, number, line, ","), found))
        except UserError as error:
            broken = f"{file}, line {number}: {line.strip()!r} is broken: {error}; correct or remove the line"
            problems.add(error if str(file) in str(error) else broken)
    if not found and len(problems.found) == before:
        problems.add(f"{file}: the split is empty; list at least one video, one name per line")
    return found


def _entry(file: Path, values: list[str], before: list[Path]) -> Path:
    """The video that a line of a list names; raises UserError, without file and line, if it must not be there."""
    name = values[0]
    if len(values) != 1:
        raise UserError("a line holds one file name")
    if PurePosixPath(name).suffix != ".mp4":
        raise UserError("the name must end in .mp4")
    video = relative_path(file.parent, name, folders=lambda _: True)  # a missing one is counted, not refused
    if video in before:
        raise UserError("a file is listed once")
    return video


def _label_entries(file: Path) -> dict[object, object]:
    """What label.pickle holds, by the names of videos."""
    found = safe_pickle.load(file)
    if not isinstance(found, dict):
        raise UserError(
            f"{file}: it holds a {type(found).__name__}; it must be a dict from a video's name to its labels"
        )
    return found


def _labels(
    root: Path,
    listed: list[Entry],
    here: list[Entry],
    file: Path,
    entries: dict[object, object],
    names: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """The labels of every video that is there, by its name: int32 (frames,), of as many frames as the file says.

    Raises UserError with all that is wrong in them.
    """
    stems = {PurePosixPath(path).stem: path for *_, path in here}
    problems = Problems()
    labels: dict[str, np.ndarray] = {}
    for stem, path in stems.items():
        if entries.get(stem) is None:
            problems.add(f"{file}: it has no labels for {root / path}; add the key {stem!r}")
            continue
        try:
            labels[stem] = whole_numbers(entries[stem], f"{file}, key {stem!r}", classes=names)
        except UserError as error:
            problems.add(error)
    unused = sorted(map(repr, entries.keys() - {PurePosixPath(path).stem for *_, path in listed}))
    if len(labels) < len(stems) and unused:
        problems.found.insert(
            0,
            f"{file}: {len(unused)} of its {len(entries)} keys name no video ({', '.join(first_of(unused, 3))}); a key "
            "is a video's file name without folder and .mp4",
        )
    problems.refuse()
    return labels
