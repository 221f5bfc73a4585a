"""EPIC-KITCHENS-100 and -55 (arXiv 2006.13256, 1804.02748): kitchens filmed by head cameras, with verbs and nouns.

ROOT is EPIC-KITCHENS or the folder that holds it: P01/videos/P01_01.MP4 or P01/rgb_frames/P01_01/frame_0000000001.jpg
(60 per second; 50 for the extension, P01_101); or the older tree of EPIC-55, videos/train/P01/P01_01.MP4 or
frames_rgb_flow/rgb/train/P01/P01_01. The CSV files of its annotations are in ROOT, in a folder there, or elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from crossview.datasets.catalog import Catalog, Recording, Segment
from crossview.datasets.catalog.annotations import Spans, folder_with
from crossview.datasets.catalog.class_lists import numbered
from crossview.datasets.catalog.classes import distinct
from crossview.datasets.catalog.found import content, coverage, dropped, named, one_each
from crossview.datasets.catalog.listing import Problems, one_of, table, text_lines, whole_number
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import protocols_of
from crossview.datasets.video.image_folder import Images
from crossview.errors import UserError

PROTOCOLS = ("recognition", "uda", "retrieval")
PAIRINGS = ("single",)
VIDEO = re.compile(r"(P\d{2})_\d{2,3}", re.ASCII)
TREES = {"videos": ("P*/videos", "videos/*/P*"), "frames": ("P*/rgb_frames", "frames_rgb_flow/rgb/*/P*")}
"""Folders of video files, and of folders of frames, below EPIC-KITCHENS."""
CHALLENGES = {
    "uda": {"da_source_train": "train", "da_target_train": "target", "da_source_test": "val", "da_target_test": "test"},
    "retrieval": {"cmr_train": "train", "cmr_test": "test"},
}
"""Columns of epic_100_splits.csv, and the splits that they are here."""
_OTHER_SPLITS = (
    "ar_train", "ar_val", "ar_test", "da_val_source_train", "da_val_source_test", "da_val_target_train",
    "da_val_target_test",
)  # fmt: skip
_TIME = re.compile(r"(\d{1,2}):([0-5]\d):([0-5]\d(?:\.\d+)?)", re.ASCII)
_SPAN = ("video_id", "start_timestamp", "stop_timestamp")
_LABEL = ("verb_class", "noun_class")
_OTHER = (
    "uid", "narration_id", "participant_id", "narration_timestamp", "start_frame", "stop_frame", "narration", "verb",
    "noun", "all_nouns", "all_noun_classes",
)  # fmt: skip


class Release(NamedTuple):
    """Files of one release's annotations."""

    splits: dict[str, str]
    """By split; the tests' have spans without labels."""
    verbs: tuple[str, ...]
    """Names that the list of verb classes has had."""
    nouns: tuple[str, ...]
    counts: tuple[int, int]
    """Classes of verbs and of nouns."""


RELEASES = {
    "100": Release(
        {"train": "EPIC_100_train.csv", "val": "EPIC_100_validation.csv", "test": "EPIC_100_test_timestamps.csv"},
        ("EPIC_100_verb_classes.csv",), ("EPIC_100_noun_classes.csv", "EPIC_100_noun_classes_v2.csv"), (97, 300),
    ),
    "55": Release(
        {
            "train": "EPIC_train_action_labels.csv",
            "test_s1": "EPIC_test_s1_timestamps.csv",
            "test_s2": "EPIC_test_s2_timestamps.csv",
        },
        ("EPIC_verb_classes.csv",), ("EPIC_noun_classes.csv",), (125, 352),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which release, and where its files are."""

    root: Path
    """EPIC-KITCHENS, or the folder that holds it."""
    release: Literal["100", "55"] = "100"
    """EPIC-KITCHENS-100, or -55, whose videos it includes; labels and classes differ."""
    annotations: Path | None = None
    """Folder with the release's CSV files; None is the root, or the first folder in it that has any."""
    prefer: Literal["videos", "frames"] = "videos"
    """What to take of a video whose file and whose rgb_frames are both there."""
    splits: Path | None = None
    """epic_100_splits.csv of the official download scripts, for the protocols uda and retrieval of EPIC-100."""
    val: Path | None = None
    """List of EPIC-55's training videos (P01_01) or participants (P01), one a line, that are to be the split val."""


@dataclass(frozen=True)
class Span:
    """A row of the annotations; verb and noun are None where they are withheld."""

    start_s: float
    end_s: float
    verb: int | None
    noun: int | None
    line: str
    """File and line, for messages."""


@dataclass
class Listing:
    """All that the annotations hold."""

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    splits: dict[str, str] = field(default_factory=dict)
    """Of each video, in the order of their names."""
    spans: dict[str, list[Span]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per video, of view ego: the subject is the participant, and a scene the video.

    Segments of kinds verb, noun and action; the number of an action is its verb's times the number of nouns, plus its
    noun's. They may overlap, and test videos have none. Raises UserError, before any video is opened, for missing or
    broken annotations and for a root without videos.
    """
    root = options.root
    listing = read_annotations(options)
    challenges = _challenges(options)
    on_disk, frames = _on_disk(options)
    found = {video: on_disk[video] for video in listing.splits if video in on_disk}
    if not found:
        raise UserError(
            f"{root}: none of the {len(listing.splits):,} videos that {options.release}'s annotations list is there, "
            f"but {named(list(on_disk))}; pass another --release, or the folder that holds them as --root"
        )
    infos, unreadable = (prober or Prober()).probe(root, found.values(), frames)
    actions = _distinct(f"{verb} {noun}" for verb in listing.verbs for noun in listing.nouns)
    recordings, segments, cut = [], [], Spans()
    for video, path in found.items():
        if path not in infos:
            continue
        recording = Recording(
            dataset="epic_kitchens", scene=video, view="ego", perspective="ego", subject=video[:3], action="",
            path=path, kind="frames" if path in frames else "video", **infos[path].columns(),
        )  # fmt: skip
        recordings.append(recording)
        for span in listing.spans[video]:
            if span.verb is None or span.noun is None:
                continue
            if times := cut.within(recording, span.start_s, span.end_s, span.line):
                action = actions[span.verb * len(listing.nouns) + span.noun]
                for kind, label in (
                    ("verb", listing.verbs[span.verb]), ("noun", listing.nouns[span.noun]), ("action", action),
                ):  # fmt: skip
                    segments.append(Segment(recording.id, *times, kind, label))
    of = {"recognition": listing.splits} | challenges
    return Catalog(
        root,
        tuple(recordings),
        tuple(segments),
        quarantined=unreadable,
        protocols=protocols_of(of, recordings, lambda r, name: of[name].get(r.scene)),
        classes={"verb": listing.verbs, "noun": listing.nouns, "action": actions},
        notes=(*listing.notes, coverage("videos", list(listing.splits), list(on_disk)), *cut.notes()),
    )


def read_annotations(options: Options) -> Listing:
    """What the CSV files list, without looking for videos; raises UserError with file and line."""
    release = RELEASES[options.release]
    folder = folder_with(
        options.root, options.annotations, tuple(release.splits.values()),
        f"the annotation files of EPIC-KITCHENS-{options.release}",
    )  # fmt: skip
    long = options.release == "100"
    verbs, nouns = (
        _classes(folder, names, ("id", "key") if long else (f"{kind}_id", "class_key"),
                 ("instances", "category") if long else (f"{kind}s",), count)
        for kind, names, count in zip(("verb", "noun"), (release.verbs, release.nouns), release.counts, strict=True)
    )  # fmt: skip
    listing, problems, notes = Listing(verbs, nouns), Problems(), []
    empty: dict[str, list[str]] = {}
    for split, name in release.splits.items():
        if not (folder / name).is_file():
            notes.append(f"{name} is not there, so there is no split {split!r}")
            continue
        rows = 0
        for video, span in _rows(folder / name, not split.startswith("test"), release.counts, problems):
            rows += 1
            known = listing.splits.setdefault(video, split)
            if known != split:
                problems.add(f"{folder}: {span.line}: {video} is also in {release.splits[known]}; correct one of them")
            spans = listing.spans.setdefault(video, [])
            if span.end_s > span.start_s:
                spans.append(span)
            else:
                empty.setdefault(f"rows of {name} that stop when or before they start", []).append(span.line)
        videos = sum(of == split for of in listing.splits.values())
        withheld = ", without labels" if split.startswith("test") else ""
        notes.append(f"{name}: {rows:,} segments of {videos:,} videos{withheld}")
    problems.refuse()
    listing.splits = {video: listing.splits[video] for video in sorted(listing.splits)}
    listing.notes = (*notes, *dropped(empty))
    if options.val is not None:
        _hold_out(options.val, options.release, listing)
    return listing


def _rows(file: Path, labelled: bool, counts: tuple[int, int], problems: Problems) -> Iterator[tuple[str, Span]]:
    """Videos and spans of one file."""
    required, optional = ((*_SPAN, *_LABEL), _OTHER) if labelled else (_SPAN, (*_OTHER, *_LABEL))
    for row in table(file, required, optional, problems):
        values, column = row.values, "video_id"
        try:
            if not VIDEO.fullmatch(values["video_id"]):
                raise UserError(f"{values['video_id']!r} is not the name of a video, such as P01_01 or P01_101")
            column = "start_timestamp"
            start_s = _seconds(values[column])
            column = "stop_timestamp"
            end_s = _seconds(values[column])
            numbers: list[int | None] = [None, None]
            for k, column in enumerate(_LABEL if labelled else ()):
                numbers[k] = number = whole_number(values[column])
                if number >= counts[k]:
                    raise UserError(f"{number} is outside the classes, which are 0 to {counts[k] - 1}; correct it")
        except UserError as error:
            problems.add(f"{file}, line {row.number}, column {column!r}: {error}")
            continue
        yield values["video_id"], Span(start_s, end_s, numbers[0], numbers[1], f"{file.name} line {row.number}")


def _seconds(text: str) -> float:
    match = _TIME.fullmatch(text)
    if not match:
        raise UserError(f"{text!r} is no time, such as 00:01:02.35; correct it")
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def _classes(
    folder: Path, names: Sequence[str], columns: tuple[str, str], others: tuple[str, ...], count: int
) -> tuple[str, ...]:
    """The keys of classes 0 to `count` - 1; a later list may have more, which no label has."""
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder / names[0]}: the list of classes is missing; put it beside the other annotations")
    problems = Problems()
    keys = numbered(file, table(file, columns, others, problems), columns, problems)
    problems.refuse()
    if missing := [str(number) for number in range(count) if number not in keys]:
        raise UserError(f"{file}: {len(missing)} of the {count} classes are missing ({named(missing)}); restore it")
    return _distinct(keys[number] for number in range(count))


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Names with their number behind those that occur more than once."""
    return distinct([(name, str(number)) for number, name in enumerate(names)])


def _hold_out(file: Path, release: str, listing: Listing) -> None:
    """Make the training videos that `file` lists the split val."""
    if release != "55":
        raise UserError(f"--val is {file}, but EPIC-KITCHENS-100 has a split val of its own; remove the option")
    problems = Problems()
    for number, line in text_lines(file):
        name = line.strip()
        held = [v for v, split in listing.splits.items() if name in (v, v[:3]) and split in ("train", "val")]
        if not held:
            problems.add(f"{file}, line {number}: {name!r} is no training video or participant; correct or remove it")
        listing.splits |= dict.fromkeys(held, "val")
    problems.refuse()


def _challenges(options: Options) -> dict[str, dict[str, str]]:
    """Splits of videos by protocol, for the protocols besides recognition."""
    if options.splits is None:
        return {}
    if options.release != "100":
        raise UserError(
            f"--splits is {options.splits}, but --release is 55, which has no such table; remove one of the options"
        )
    columns = [column for of in CHALLENGES.values() for column in of]
    found: dict[str, dict[str, str]] = {name: {} for name in CHALLENGES}
    problems = Problems()
    for row in table(options.splits, ("video_id", *columns), _OTHER_SPLITS, problems):
        for protocol, splits in CHALLENGES.items():
            try:
                true = [s for column, s in splits.items() if one_of(row.values[column], ("true", "false")) == "true"]
                if len(true) > 1:
                    raise UserError(f"{row.values['video_id']} is in several splits of {protocol}; correct its columns")
            except UserError as error:
                problems.add(f"{options.splits}, line {row.number}: {error}")
                continue
            if true:
                found[protocol][row.values["video_id"]] = true[0]
    problems.refuse()
    return found


def _on_disk(options: Options) -> tuple[dict[str, str], dict[str, Images]]:
    """Path of each video, file or folder of frames, by name; and how the folders among them are read."""
    root = options.root
    files, folders = (_named(root, TREES[kind], kind == "frames") for kind in ("videos", "frames"))
    first, second = (files, folders) if options.prefer == "videos" else (folders, files)
    if not first and not second:
        archives = [path for tree in TREES["frames"] for path in _below(root, f"{tree}/*.tar")]
        unpack = f"it holds {named(archives)} (unpack each into a folder of its name)"
        here = unpack if archives else content(root)
        raise UserError(
            f"{root}: no video is there; looked for P01/videos/P01_01.MP4, P01/rgb_frames/P01_01, "
            f"videos/train/P01/P01_01.MP4 and frames_rgb_flow/rgb/train/P01/P01_01; {here}: pass "
            "EPIC-KITCHENS or the folder that holds it as --root"
        )
    rates = {path: Images(60 if len(video) == 6 else 50, 1) for video, path in folders.items()}
    return second | first, rates


def _below(root: Path, pattern: str) -> Iterator[str]:
    """Paths in EPIC-KITCHENS, which is the root or a folder in it."""
    for prefix in ("", "*/"):
        yield from sorted(path.relative_to(root).as_posix() for path in root.glob(prefix + pattern))


def _named(root: Path, trees: Collection[str], folders: bool) -> dict[str, str]:
    """Paths of files NAME.MP4, or of folders NAME, by the video's name."""
    found: list[tuple[str, str]] = []
    for tree in trees:
        for path in _below(root, f"{tree}/P*"):
            stem, _, ending = path.rpartition("/")[2].partition(".")
            plain = VIDEO.fullmatch(stem) and ending.lower() == ("" if folders else "mp4")
            if plain and folders == (root / path).is_dir():
                found.append((path, stem))
    return one_each(root, found, "video")
