"""Kinetics-400 (arXiv 1705.06950): ten-second clips of YouTube videos with one of 400 actions each.

The videos of each split (train, val, test) under ROOT, as they are downloaded or arranged: SPLIT/ID_START_END.mp4 with
annotations/SPLIT.csv; SPLIT/CLASS/*.mp4; videos_SPLIT/CLASS/*.mp4 with kinetics400_SPLIT_list_videos.txt; or SPLIT.csv
with lines "path label". Files in replacement/ take the place of corrupted ones. All clips count as exo.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from crossview.datasets.catalog import Catalog, Recording, one_protocol
from crossview.datasets.catalog.class_lists import names_in
from crossview.datasets.catalog.found import coverage, dropped, files_under, named
from crossview.datasets.catalog.listing import Problems, cells, leads_out, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.video.frames import printable
from crossview.errors import UserError

PROTOCOLS = (DEFAULT,)
PAIRINGS = ("single", "unpaired")
SPLITS = ("train", "val", "test")
NUM_CLASSES = 400
NAME = re.compile(r"(?P<id>[A-Za-z0-9_-]{11})(?:_(?P<start>\d{6})_(?P<end>\d{6}))?")
"""A clip's file without ending; copies with truncated names have the video's id alone."""
ENDINGS = (".mp4", ".mkv", ".webm", ".avi")
LABEL_MAP = "label_map_k400.txt"
_LINE = re.compile(r'(?P<quote>"?)(?P<path>[^"]*[^",\s])(?P=quote)[ ,\t]+(?P<label>\d{1,9})')


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the files are."""

    root: Path
    """Folder with the videos of the splits."""
    lists: Path | None = None
    """Folder of the lists SPLIT.csv or kinetics400_SPLIT_list_videos.txt; None looks in ROOT/annotations and ROOT."""
    classes: Path | None = None
    """List of the 400 classes, one per line in the order of their numbers. None takes ROOT's label_map_k400.txt, else
    the labels of the official lists, else the folders of the classes that are here."""


class Clip(NamedTuple):
    """One clip of a split."""

    scene: str
    """Id of the video and second where the clip starts, where they are known."""
    path: str
    label: str
    """A class's name, or a folder's, or a number; empty if unknown."""
    source: str
    """What gives the label: file and line, or folder."""


@dataclass
class Found:
    """What is under the root."""

    clips: dict[str, list[Clip]] = field(default_factory=dict)
    """By split."""
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    official: set[str] = field(default_factory=set)
    """Classes of official lists."""
    numbered: bool = False
    """Whether a list has numbers of classes."""


@dataclass(frozen=True)
class Files:
    """The videos under the root."""

    root: Path
    paths: frozenset[str]
    of_split: dict[str, list[str]]
    """Those in a folder of the split, in the order of their names."""
    replacements: dict[str, str]
    """Paths by the video's id."""

    def chosen(self, path: str) -> str:
        """The file that is read for it: a replacement, if there is one."""
        match = NAME.fullmatch(PurePosixPath(path).stem)
        return self.replacements.get(match["id"], path) if match else path


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per clip: scene ID_START, view exo, its class as the action.

    Raises UserError for a root without such videos, and for broken lists. Missing videos are counted.
    """
    found = found_under(options)
    splits = found.clips
    infos, unreadable = (prober or Prober()).probe(options.root, (c.path for of in splits.values() for c in of))
    members = [
        (
            Recording(
                dataset="kinetics", scene=clip.scene, view="exo", perspective="exo", subject="", action=clip.label,
                path=clip.path, kind="video", **infos[clip.path].columns(),
            ),
            split,
        )
        for split, clips in splits.items()
        for clip in clips
        if clip.path in infos
    ]  # fmt: skip
    return Catalog(
        options.root,
        tuple(recording for recording, _ in members),
        quarantined=unreadable,
        protocols=one_protocol(members),
        classes={"action": found.classes},
        notes=tuple(found.notes),
    )


def found_under(options: Options) -> Found:
    """The clips of each split that are under the root, with the classes' names as labels; raises UserError."""
    files, found, left_out = _files(options.root), Found(), dict[str, list[str]]()
    lists = {split: file for split in SPLITS if (file := _list_of(options, split))}
    problems, seen = Problems(), set[str]()
    for split in SPLITS:
        clips = _listed(lists[split], files, split, found, problems) if split in lists else _unlisted(files, split)
        for clip in clips:
            if clip.scene in seen:
                left_out.setdefault("clips that are there already", []).append(clip.path)
            else:
                seen.add(clip.scene)
                found.clips.setdefault(split, []).append(clip)
    problems.refuse()
    if not found.clips:
        raise UserError(_nothing(options, files, lists))
    found.classes = _classes(options, found)
    _name_labels(found, problems)
    problems.refuse()
    found.notes += (*_counts(found), *dropped(left_out))
    return found


def _counts(found: Found) -> Iterator[str]:
    shown = {clip.label for clips in found.clips.values() for clip in clips} - {""}
    unlabelled = sum(not clip.label for clips in found.clips.values() for clip in clips)
    counts = ", ".join(f"{split}: {len(clips):,} clips" for split, clips in found.clips.items())
    yield f"{counts}; of {len(shown)} of {len(found.classes)} classes, without a label: {unlabelled:,}"
    if len(found.classes) != NUM_CLASSES:
        yield (
            f"classes: {len(found.classes)} are named and numbered by what is here, not {NUM_CLASSES}; with another "
            f"part of the dataset they are numbered differently: pass --classes, a list such as {LABEL_MAP}"
        )


def _files(root: Path) -> Files:
    of_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    folders = {name: split for split in SPLITS for name in (split, f"videos_{split}")}
    paths, replacements = [], {}
    for path in files_under(root):
        if not path.lower().endswith(ENDINGS):
            continue
        paths.append(path)
        *parents, name = path.split("/")
        match = NAME.fullmatch(PurePosixPath(name).stem)
        if any(parent.startswith("replacement") for parent in parents):
            if match:
                replacements[match["id"]] = path
            continue
        split = next((folders[parent] for parent in parents if parent in folders), None)
        if split:
            of_split[split].append(path)
    return Files(root, frozenset(paths), of_split, replacements)


def _list_of(options: Options, split: str) -> Path | None:
    folders = [options.lists] if options.lists else [options.root / "annotations", options.root]
    names = (f"{split}.csv", f"kinetics400_{split}_list_videos.txt")
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _scene(path: str) -> str:
    """From a file's name; of another grammar than the dataset's, the whole path."""
    stem = PurePosixPath(path).with_suffix("")
    match = NAME.fullmatch(stem.name)
    if not match:
        return str(stem).replace("/", "_")
    return f"{match['id']}_{match['start']}" if match["start"] else match["id"]


def _unlisted(files: Files, split: str) -> list[Clip]:
    """Clips whose class is their folder; only those of test may have none."""
    clips = []
    for path in files.of_split[split]:
        parent = printable(path.split("/")[-2])
        label = "" if parent in (split, f"videos_{split}") else parent
        if not label and split != "test":
            raise UserError(
                f"{files.root / path}: it is in no folder of a class, and no list gives its label; put "
                f"annotations/{split}.csv there, or pass the folder of the lists as --lists"
            )
        clips.append(Clip(_scene(path), files.chosen(path), label, str(files.root / path)))
    return clips


def _listed(file: Path, files: Files, split: str, found: Found, problems: Problems) -> list[Clip]:
    """Clips of a list whose videos are here; what is missing is added to the notes."""
    if _is_official(file):
        rows = list(_rows(file, problems))
        found.official |= {row.label for row in rows if row.label}
        clips, names = _matched(rows, files, split)
        listed = [row.scene for row in rows]
    else:
        found.numbered = True
        entries = list(_entries(file, files, split, problems))
        clips = [clip for clip in entries if clip.path in files.paths]
        listed, names = [entry.path for entry in entries], [clip.path for clip in clips]
    found.notes.append(coverage(f"{split}, clips of {file.name}", listed, names))
    return clips


class Row(NamedTuple):
    """A line of an official list."""

    id: str
    start_s: int
    end_s: int
    label: str
    source: str

    @property
    def scene(self) -> str:
        """Of its clip."""
        return f"{self.id}_{self.start_s:06d}"


def _is_official(file: Path) -> bool:
    """Whether its first line is a header that names youtube_id, or label,youtube_id,time_start,time_end."""
    for _, line in text_lines(file)[:1]:
        values = [value.strip(' "') for value in line.split(",")]
        return "youtube_id" in values or (len(values) >= 4 and bool(re.fullmatch(r"[\w-]{11}", values[1], re.ASCII)))
    return False


def _rows(file: Path, problems: Problems) -> Iterator[Row]:
    columns = {"label": 0, "youtube_id": 1, "time_start": 2, "time_end": 3}
    for k, (number, line) in enumerate(text_lines(file)):
        source = f"{file}, line {number}"
        try:
            values = cells(file, number, line, ",")
        except UserError as error:
            problems.add(error)
            continue
        if k == 0 and "youtube_id" in values:
            columns = {name: values.index(name) for name in columns if name in values}
            if missing := [name for name in ("youtube_id", "time_start", "time_end") if name not in columns]:
                raise UserError(f"{source}: column {missing[0]!r} is missing; get the official list again")
            continue
        row = {name: values[at] if at < len(values) else "" for name, at in columns.items()}
        times = [re.fullmatch(r"(\d{1,6})(?:\.0*)?", row[name]) for name in ("time_start", "time_end")]
        if not re.fullmatch(r"[A-Za-z0-9_-]{11}", row["youtube_id"]) or not all(times):
            problems.add(
                f"{source}: {line.strip()[:80]!r} is broken; a line is label,youtube_id,time_start,time_end: an id of "
                "11 characters and whole seconds: correct or remove it"
            )
            continue
        start_s, end_s = (int(match[1]) for match in times if match)
        yield Row(row["youtube_id"], start_s, end_s, row.get("label", ""), source)


def _matched(rows: Iterable[Row], files: Files, split: str) -> tuple[list[Clip], list[str]]:
    """Clips of the rows whose video is here, by the whole name or else by its id alone; and the names of all videos."""
    whole: dict[str, str] = {}
    by_id: dict[str, str] = {}
    for path in files.of_split[split]:
        stem = PurePosixPath(path).stem
        if match := NAME.fullmatch(stem):
            whole.setdefault(stem, path)
            by_id.setdefault(match["id"], path)
    clips = []
    left = dict(by_id)
    for row in rows:
        original = whole.get(f"{row.id}_{row.start_s:06d}_{row.end_s:06d}") or by_id.get(row.id)
        if chosen := files.replacements.get(row.id, original):
            left.pop(row.id, None)
            clips.append(Clip(row.scene, chosen, row.label, row.source))
    return clips, [clip.scene for clip in clips] + list(left)


def _entries(file: Path, files: Files, split: str, problems: Problems) -> Iterator[Clip]:
    """What a list of paths and numbers says; the path of a missing file is as the list has it."""
    for number, line in text_lines(file):
        source = f"{file}, line {number}"
        match = _LINE.fullmatch(line.strip())
        if not match or int(match["label"]) >= NUM_CLASSES:
            problems.add(
                f"{source}: {line.strip()[:120]!r} is broken; a line is a path and a label from 0 to "
                f"{NUM_CLASSES - 1}, with a space, comma or tab between them: correct or remove it"
            )
            continue
        path = match["path"].removeprefix(f"{files.root}/")
        if leads_out(path):
            problems.add(f"{source}: {path[:120]!r} leads out of {files.root}; write paths relative to it")
            continue
        places = (f"videos_{split}/{path}", f"{split}/{path}")
        path = next((place for place in places if place in files.paths), path)
        yield Clip(_scene(path), files.chosen(path), match["label"], source)


def _classes(options: Options, found: Found) -> tuple[str, ...]:
    near = [folder / LABEL_MAP for folder in (options.lists, options.root / "annotations", options.root) if folder]
    file = options.classes or next((file for file in near if file.is_file()), None)
    if file:
        return names_in(file)
    if found.official:
        return tuple(sorted(found.official))
    if found.numbered:
        return tuple(map(str, range(NUM_CLASSES)))
    return tuple(sorted({clip.label.replace("_", " ") for of in found.clips.values() for clip in of} - {""}))


def _name_labels(found: Found, problems: Problems) -> None:
    """Labels become names of classes: as they are spelt, with spaces for "_", or by letters and digits alone."""
    known = {_plain(name): name for name in found.classes}
    known |= {name.replace("_", " "): name for name in found.classes} | {name: name for name in found.classes}
    name: str | None
    for split, clips in found.clips.items():
        named_clips = []
        for clip in clips:
            label, spelt = clip.label, clip.label.replace("_", " ")
            if label.isdigit() and label not in known and int(label) < len(found.classes):
                name = found.classes[int(label)]
            else:
                name = known.get(label) or known.get(spelt) or known.get(_plain(label)) if label else ""
            if name is None:
                problems.add(
                    f"{clip.source}: the class {label[:80]!r} is none of the {len(found.classes)} "
                    f"({named(found.classes)}): correct it, or the list of classes"
                )
            else:
                named_clips.append(clip._replace(label=name))
        found.clips[split] = named_clips


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _nothing(options: Options, files: Files, lists: Mapping[str, Path]) -> str:
    here = f"it holds {named(sorted(files.paths))}" if files.paths else "it holds no video"
    if lists:
        return (
            f"{options.root}: no video that {', '.join(str(file) for file in lists.values())} lists is here; {here}: "
            "pass the folder that holds them as --root"
        )
    return (
        f"{options.root}: neither a folder train, val or test (or videos_train and so on) with videos is here, nor a "
        f"list of them such as annotations/train.csv; {here}: pass the folder that holds them as --root"
    )
