"""PKU-MMD, phase I or II (arXiv 1703.07475): long videos of many actions, filmed by three synchronous cameras.

Videos AxxNyy-V.avi (phase II) or NNNN-V.avi (phase I), in any folders under ROOT; a label file of each video's name in
folders whose name contains "label"; and the split files of the protocols xsub and xview. All cameras are exo.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossview.datasets.catalog import Catalog, Recording, Segment
from crossview.datasets.catalog.annotations import Spans
from crossview.datasets.catalog.class_lists import names_in
from crossview.datasets.catalog.found import coverage, dropped, files_under, one_each
from crossview.datasets.catalog.listing import Problems, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import protocols_of
from crossview.errors import UserError

PROTOCOLS = ("xsub", "xview")
PAIRINGS = ("single", "synchronized", "paired", "group")
NUM_CLASSES = 51
"""Of both phases, which share their numbers; phase II shows fewer of them."""
VIDEO = {
    1: re.compile(r"(?P<scene>\d{4})-(?P<view>[LMR])"),
    2: re.compile(r"(?P<scene>A\d{2}N(?P<subject>\d{2}))-(?P<view>[LMR])"),
}
"""Names without ending, by phase."""
SPLIT_FILES: dict[int, dict[str, tuple[str, ...]]] = {
    1: {"xsub": ("cross-subject.txt", "cross_subject.txt"), "xview": ("cross-view.txt", "cross_view.txt")},
    2: {"xsub": ("cross_subject_v2.txt",), "xview": ("cross_view_v2.txt",)},
}
TEST_SUBJECTS = frozenset(("02", "03", "07"))
"""Of phase II's xsub, which is known without its file."""
WITHOUT_M = frozenset(("A05N04", "A07N12", "A08N12", "A14N12", "A20N01"))
NAMES_2 = tuple(
    f"A{sequence:02d}N{subject:02d}-{view}"
    for sequence in range(1, 27)
    for subject in range(1, 14)
    for view in "LMR"
    if view != "M" or f"A{sequence:02d}N{subject:02d}" not in WITHOUT_M
)
"""The 1,009 videos of phase II."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the files are, and which phase."""

    root: Path
    """Folder with the videos, the label files and the split files, in any folders below it."""
    phase: Literal[1, 2] = 2
    """Phase of the dataset; each is a catalog of its own."""
    names: Path | None = None
    """List of the names of the 51 actions, one per line in the order of their numbers; None names them 1 to 51."""
    label_fps: float = 30.0
    """Rate at which label files count frames, from 0."""


@dataclass(frozen=True)
class Interval:
    """A line of a label file: an action, and its frames from 0, without the last."""

    action: int
    start: int
    end: int


@dataclass(frozen=True)
class Found:
    """What is on the disk, by a video's name without ending."""

    videos: dict[str, str]
    """Paths relative to the root, as those of labels."""
    labels: dict[str, str]
    splits: dict[str, dict[str, str]]
    """By protocol; of all listed videos, here or not."""
    notes: tuple[str, ...]


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per video, with views L, M and R of a scene, and its "action" segments.

    Raises UserError, before any video is opened, for a root without such videos or without splits for them, two videos
    or label files of one name, and broken split and label files. Intervals without a frame are left out.
    """
    if not 0 < options.label_fps < math.inf:
        raise UserError(f"--label-fps is {options.label_fps:g}; frames are counted at a rate above 0, such as 30")
    names = class_names(options.names)
    here = found(options)
    left_out: dict[str, list[str]] = {}
    intervals = {stem: read_labels(options.root / path, left_out) for stem, path in here.labels.items()}
    infos, unreadable = (prober or Prober()).probe(options.root, here.videos.values())
    recordings: list[Recording] = []
    segments: list[Segment] = []
    spans = Spans()
    for stem, path in here.videos.items():
        if path not in infos:
            continue
        parts = VIDEO[options.phase].fullmatch(stem)
        assert parts
        subject = parts.groupdict().get("subject")
        recording = Recording(
            dataset=f"pku_mmd{options.phase}", scene=parts["scene"], view=parts["view"], perspective="exo",
            subject=f"N{subject}" if subject else "", action="", path=path, kind="video", **infos[path].columns(),
        )  # fmt: skip
        recordings.append(recording)
        for interval in intervals.get(stem, ()):
            case = f"{path}: {interval.action},{interval.start},{interval.end}"
            start_s, end_s = interval.start / options.label_fps, interval.end / options.label_fps
            if times := spans.within(recording, start_s, end_s, case):
                segments.append(Segment(recording.id, *times, "action", names[interval.action - 1]))
    stems = {path: stem for stem, path in here.videos.items()}
    return Catalog(
        options.root,
        tuple(recordings),
        tuple(segments),
        quarantined=unreadable,
        protocols=protocols_of(here.splits, recordings, lambda r, name: here.splits[name].get(stems[r.path])),
        classes={"action": names},
        notes=(
            *here.notes,
            coverage("label files of these videos", list(here.videos), intervals),
            _instances(segments),
            *dropped(left_out),
            *spans.notes(),
        ),
    )


def found(options: Options) -> Found:
    """What of the phase is under the root; raises UserError as `catalog` does for all but labels."""
    files = list(files_under(options.root))
    videos, labels = _by_stem(options, files, (".avi", ".mp4")), _by_stem(options, files, (".txt",))
    if not videos:
        raise UserError(_no_videos(options, files))
    splits, listed, said = _splits(options, files, videos)
    of_videos = {stem: labels[stem] for stem in videos if stem in labels}
    return Found(videos, of_videos, splits, (coverage("videos", listed, videos), *said))


def class_names(file: Path | None) -> tuple[str, ...]:
    """The names of the 51 actions in the order of their numbers; raises UserError for another list."""
    if file is None:
        return tuple(str(number) for number in range(1, NUM_CLASSES + 1))
    return names_in(file, NUM_CLASSES)


def read_labels(file: Path, left_out: dict[str, list[str]]) -> list[Interval]:
    """The intervals in a label file; those without a frame are added to `left_out` with file and line.

    Raises UserError for lines that are not label,start,end,confidence, and for actions other than 1 to 51.
    """
    problems, found = Problems(), list[Interval]()
    for number, line in text_lines(file):
        values = [value.strip() for value in line.split(",")]
        if len(values) != 4 or not all(re.fullmatch("[0-9]{1,9}", value) for value in values[:3]):
            problems.add(
                f"{file}, line {number}: {line.strip()[:80]!r} is broken; a line is label,start,end,confidence, whole "
                "numbers such as 12,340,425,2: correct or remove it"
            )
            continue
        action, start, end = map(int, values[:3])
        if not 1 <= action <= NUM_CLASSES:
            problems.add(
                f"{file}, line {number}: the action {action} is unknown; actions are 1 to {NUM_CLASSES}: correct or "
                "remove the line"
            )
        elif start >= end:
            left_out.setdefault("intervals that end where they start or earlier", []).append(
                f"{file.name}, line {number}"
            )
        else:
            found.append(Interval(action, start, end))
    problems.refuse()
    return found


def read_split(file: Path, phase: int) -> dict[str, str]:
    """Split "train" or "test" by video, from a caption and a list of names for each.

    Raises UserError for another number of lines, broken names, and a video in both lists.
    """
    lines = text_lines(file)
    if len(lines) != 4:
        raise UserError(
            f"{file}: it has {len(lines)} lines with text; a split file has four: a caption, the training videos, a "
            "caption, the others, each list in one line with commas"
        )
    problems, splits = Problems(), dict[str, str]()
    for split, (number, line) in (("train", lines[1]), ("test", lines[3])):
        for name in filter(None, (value.strip() for value in line.split(","))):
            if not VIDEO[phase].fullmatch(name):
                example = "A01N01-L" if phase == 2 else "0002-L"
                problems.add(f"{file}, line {number}: {name[:80]!r} is no video of phase {phase}, such as {example}")
            elif splits.setdefault(name, split) != split:
                problems.add(f"{file}, line {number}: {name} is among the training videos too; remove it from one list")
    problems.refuse()
    return splits


def _by_stem(options: Options, files: Iterable[str], endings: tuple[str, ...]) -> dict[str, str]:
    """Paths of the phase's videos or label files by their names without ending, in the order of these."""
    named: list[tuple[str, str]] = []
    for path in files:
        folder, _, name = path.rpartition("/")
        stem, dot, ending = name.rpartition(".")
        if f"{dot}{ending}".lower() not in endings or not VIDEO[options.phase].fullmatch(stem):
            continue
        if endings == (".txt",) and "label" not in folder.rpartition("/")[2].lower():  # skeletons have the same names
            continue
        named.append((path, stem))
    return dict(sorted(one_each(options.root, named, "video" if ".avi" in endings else "video's label file").items()))


def _no_videos(options: Options, files: list[str]) -> str:
    other = 3 - options.phase
    if any(VIDEO[other].fullmatch(Path(path).stem) for path in files):
        return f"{options.root}: it holds phase {other}, and no video of phase {options.phase}; pass --phase {other}"
    here = f"it holds {', '.join(files[:3])}" if files else "it holds no file"
    example = "A01N01-L.avi" if options.phase == 2 else "0002-L.avi"
    return (
        f"{options.root}: no file is named as PKU-MMD's videos of phase {options.phase} are, such as {example}; "
        f"{here}: pass the folder that holds them as --root"
    )


def _splits(
    options: Options, files: Iterable[str], videos: Mapping[str, str]
) -> tuple[dict[str, dict[str, str]], tuple[str, ...], list[str]]:
    """Split by protocol and video; the videos that are listed; what is to be said of missing lists."""
    places = {path.rpartition("/")[2].lower(): path for path in files}
    splits: dict[str, dict[str, str]] = {}
    said: list[str] = []
    for protocol, names in SPLIT_FILES[options.phase].items():
        here = [places[name] for name in names if name in places]
        if here:
            splits[protocol] = read_split(options.root / here[0], options.phase)
        elif options.phase == 2 and protocol == "xsub":
            splits[protocol] = {name: "test" if name[4:6] in TEST_SUBJECTS else "train" for name in NAMES_2}
            said.append(f"protocol xsub: {names[0]} is not here; subjects 02, 03 and 07 are tested, as it says")
        else:
            said.append(f"protocol {protocol} is left out: its split file {' or '.join(names)} is not here")
    if not splits:
        wanted = ", ".join(names[0] for names in SPLIT_FILES[options.phase].values())
        raise UserError(
            f"{options.root}: no split file of phase {options.phase} is here ({wanted}), which alone says what is "
            "trained on; put them there, as the dataset has them in Split/"
        )
    listed = NAMES_2 if options.phase == 2 else tuple(sorted({name for of in splits.values() for name in of}))
    if not any(name in of for of in splits.values() for name in videos):
        raise UserError(f"{options.root}: no split file lists {next(iter(videos))} or another video that is here")
    return splits, listed, said


def _instances(segments: Iterable[Segment]) -> str:
    counts = Counter(segment.label for segment in segments)
    return f"instances: {sum(counts.values()):,} of {len(counts)} of the {NUM_CLASSES} actions"
