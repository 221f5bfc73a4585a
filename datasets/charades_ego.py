"""Charades-Ego v1 (arXiv 1804.09627): scripts acted twice, filmed once in third and once in first person.

ROOT holds the folder of one release, CharadesEgo_v1_480 or CharadesEgo_v1 (ID.mp4) or CharadesEgo_v1_rgb
(ID/ID-000001.jpg, 24 per second), and in itself or in another folder CharadesEgo_v1_train.csv and _test.csv (or their
_only1st and _only3rd parts) and Charades_v1_classes.txt. ABCDEEGO is the first-person partner of ABCDE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from crossview.datasets.catalog import Catalog, Recording, Segment, one_protocol
from crossview.datasets.catalog.annotations import Spans, folder_with
from crossview.datasets.catalog.found import content, coverage, dropped, one_each
from crossview.datasets.catalog.listing import Problems, Row, one_of, relative_path, seconds, table, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.video.image_folder import Images
from crossview.errors import UserError

PROTOCOLS = (DEFAULT,)
PAIRINGS = ("single", "paired", "unpaired")
SPLITS = ("train", "test")
FOLDERS = ("CharadesEgo_v1_480", "CharadesEgo_v1", "CharadesEgo_v1_rgb", ".")
CLASSES = 157
FRAMES = Images(fps=24, first_number=1)
ID = re.compile(r"([A-Z0-9]{5})(EGO)?")
_REQUIRED = ("id", "subject", "actions", "egocentric")
_OPTIONAL = (
    "scene", "quality", "relevance", "verified", "script", "objects", "descriptions", "length", "charades_video",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where videos and annotations are."""

    root: Path
    """Folder that holds the folder of videos or frames."""
    annotations: Path | None = None
    """Folder with the CSV files and the class list; None is the root, or the first folder in it that has them."""
    folder: str | None = None
    """Folder of the videos or frames, below the root; None is the first that has any of CharadesEgo_v1_480,
    CharadesEgo_v1, CharadesEgo_v1_rgb and the root itself."""


class Interval(NamedTuple):
    """A labelled span, in s."""

    number: int
    """Of the class."""
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Listed:
    """A video as the annotations list it."""

    id: str
    split: str
    subject: str
    line: str
    """File and line, for messages."""
    intervals: tuple[Interval, ...]

    @property
    def ego(self) -> bool:
        """Whether it is the first-person one of its pair."""
        return len(self.id) == len("ABCDEEGO")

    @property
    def pair(self) -> str:
        """The id that it shares with its partner."""
        return self.id[:5]


@dataclass
class Listing:
    """All that the annotations hold."""

    classes: tuple[str, ...]
    """Lines of the class list, such as "c008 Opening a door", by number."""
    videos: dict[str, Listed] = field(default_factory=dict)
    """By id, sorted, and the first-person one of a pair first."""
    notes: tuple[str, ...] = ()


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per video: scenes ABCDE with views first (ego) and third (exo), each on its own clock.

    Segments "action" have the 157 classes; those that end when or before they start are left out, and one that is
    longer than its video is shortened. Raises UserError, before any video is opened, for missing or broken annotations
    and for a root without videos.
    """
    listing = read_annotations(folder_with(options.root, options.annotations, _files("train") + _files("test"),
                                           "the annotation files of Charades-Ego"))  # fmt: skip
    on_disk = _on_disk(options, listing)
    found = {name: on_disk[name] for name in listing.videos if name in on_disk}
    frames = {path: FRAMES for path in found.values() if not path.lower().endswith(".mp4")}
    infos, unreadable = (prober or Prober()).probe(options.root, found.values(), frames)
    members, segments, spans = [], [], Spans()
    for name, path in found.items():
        if path not in infos:
            continue
        video, info = listing.videos[name], infos[path]
        recording = Recording(
            dataset="charades_ego", scene=video.pair, view="first" if video.ego else "third",
            perspective="ego" if video.ego else "exo", subject=video.subject, action="", path=path,
            kind="frames" if path in frames else "video", own_clock=True, **info.columns(),
        )  # fmt: skip
        members.append((recording, video.split))
        for interval in video.intervals:
            label = listing.classes[interval.number]
            case = f"{video.line}: {name} {label[:4]} {interval.start_s:.2f} {interval.end_s:.2f}"
            if span := spans.within(recording, interval.start_s, interval.end_s, case):
                segments.append(Segment(recording.id, *span, "action", label))
    pairs = [video.pair for video in listing.videos.values() if video.ego and video.pair in listing.videos]
    here = [pair for pair in pairs if pair in found and f"{pair}EGO" in found]
    return Catalog(
        options.root,
        tuple(recording for recording, _ in members),
        tuple(segments),
        quarantined=unreadable,
        protocols=one_protocol(members),
        classes={"action": listing.classes},
        notes=(
            *listing.notes,
            coverage("videos", list(listing.videos), list(on_disk)),
            coverage("pairs of a first- and a third-person video", pairs, here),
            *spans.notes(),
        ),
    )


def read_annotations(folder: Path) -> Listing:
    """What the CSV files in `folder` list, without looking for videos; raises UserError with file and line."""
    classes = read_classes(folder / "Charades_v1_classes.txt")
    problems, notes = Problems(), []
    videos: dict[str, Listed] = {}
    empty: dict[str, list[str]] = {}
    for split in SPLITS:
        whole, *parts = _files(split)
        names = [name for name in ((whole,) if (folder / whole).is_file() else parts) if (folder / name).is_file()]
        if not names:
            notes.append(f"{whole} is not there, so there is no split {split!r}")
        for name in names:
            listed = list(_rows(folder / name, split, problems, empty))
            for video in listed:
                if known := videos.get(video.id):
                    problems.add(f"{folder}: {video.line}: id {video.id!r} is also in {known.line}; keep one of them")
                videos[video.id] = video
            ego = sum(video.ego for video in listed)
            unlabelled = sum(not video.intervals for video in listed)
            notes.append(
                f"{name}: {ego:,} first-person and {len(listed) - ego:,} third-person videos with "
                f"{sum(len(video.intervals) for video in listed):,} usable intervals, {unlabelled:,} videos without one"
            )
    problems.refuse()
    order = sorted(videos, key=lambda name: (name[:5], -len(name)))
    return Listing(classes, {name: videos[name] for name in order}, (*notes, *dropped(empty)))


def read_classes(file: Path) -> tuple[str, ...]:
    """The lines of the class list by number; raises UserError unless they are c000 to c156."""
    if not file.is_file():
        raise UserError(f"{file}: the list of classes is missing; put it beside the CSV files, where it was published")
    lines = [(number, line.strip()) for number, line in text_lines(file)]
    for k, (number, line) in enumerate(lines):
        if not re.fullmatch(rf"c{k:03d} \S.*", line):
            raise UserError(
                f"{file}, line {number}: {line[:80]!r} is not class c{k:03d} and its description; restore the "
                "published list"
            )
    if len(lines) != CLASSES:
        raise UserError(
            f"{file}: it lists {len(lines)} classes, and Charades has {CLASSES}; restore the published list"
        )
    return tuple(line for _, line in lines)


def _files(split: str) -> tuple[str, ...]:
    """The annotation file of a split, and the two that it may be in parts."""
    return tuple(f"CharadesEgo_v1_{split}{part}.csv" for part in ("", "_only1st", "_only3rd"))


def _rows(file: Path, split: str, problems: Problems, empty: dict[str, list[str]]) -> Iterator[Listed]:
    """Videos of one file; intervals without a length are added to `empty` by what to call them."""
    for row in table(file, _REQUIRED, _OPTIONAL, problems):
        try:
            found = list(_intervals(row.values["actions"]))
            _check_id(row)
        except UserError as error:
            problems.add(f"{file}, line {row.number}: {error}")
            continue
        kept = tuple(interval for interval in found if interval.end_s > interval.start_s)
        line, name = f"{file.name} line {row.number}", row.values["id"]
        reason = f"intervals of {file.name} that end when or before they start"
        empty.setdefault(reason, []).extend(
            f"line {row.number}: {name} c{number:03d} {start_s:.2f} {end_s:.2f}"
            for number, start_s, end_s in found
            if end_s <= start_s
        )
        yield Listed(name, split, row.values["subject"], line, kept)


def _intervals(text: str) -> Iterator[Interval]:
    """Of "c156 3.90 12.00;c061 8.20 12.50"; raises UserError, without file and line, for anything else."""
    for part in text.split(";"):
        if not part.strip():
            continue
        match part.split():
            case [code, start, end] if re.fullmatch(r"c\d{3}", code, re.ASCII):
                if int(code[1:]) >= CLASSES:
                    raise UserError(f"class {code} is outside c000 to c{CLASSES - 1}; correct column 'actions'")
                if seconds(start) < 0:
                    raise UserError(f"{part.strip()!r} in column 'actions' starts before its video; correct it")
                yield Interval(int(code[1:]), seconds(start), seconds(end))
            case _:
                raise UserError(f"{part.strip()[:80]!r} in column 'actions' is no class, start and end, such as "
                                "'c156 3.90 12.00'; correct it")  # fmt: skip


def _check_id(row: Row) -> None:
    match = ID.fullmatch(row.values["id"])
    if not match:
        raise UserError(f"id {row.values['id']!r} is not five capitals or digits, with EGO after them or without")
    said = one_of(row.values["egocentric"], ("yes", "no"))
    if (said == "yes") != (match[2] is not None):
        raise UserError(f"egocentric is {row.values['egocentric']!r} for id {match[0]!r}; ids of first-person videos, "
                        "and no others, end in EGO: correct one of them")  # fmt: skip


def _on_disk(options: Options, listing: Listing) -> dict[str, str]:
    """Paths of videos and folders of frames that are named by an id, by that id; some of them are listed."""
    root = options.root
    if options.folder is not None:
        try:
            relative_path(root, options.folder, folders=Path.is_dir)
        except UserError as error:
            raise UserError(f"--folder: {error}") from error
    tried = FOLDERS if options.folder is None else (options.folder,)
    for folder in tried:
        found = _named_by_id(root / folder) if (root / folder).is_dir() else {}
        if any(name in listing.videos for name in found):
            return {name: path.relative_to(root).as_posix() for name, path in found.items()}
    looked = f"{next(iter(listing.videos), 'ABCDE')}.mp4"
    raise UserError(
        f"{root}: no video of the annotations is in {', '.join(tried)}; looked for files such as {looked}, and folders "
        f"of frames; {content(root)}: pass the folder that holds them as --root, or unpack the archives"
    )


def _named_by_id(folder: Path) -> dict[str, Path]:
    """ID.mp4, or else the folder ID, in the order of their names; raises UserError for ID.mp4 beside ID.MP4."""
    here = sorted(folder.iterdir())
    files = [(path.name, path.stem) for path in here if path.suffix.lower() == ".mp4" and path.is_file()]
    found = {path.name: path for path in here if path.is_dir()}
    found |= {name: folder / file for name, file in one_each(folder, files, "video").items()}
    return {name: found[name] for name in sorted(found) if ID.fullmatch(name)}
