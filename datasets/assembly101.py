"""Assembly101 (arXiv 2203.14712): toys put together and taken apart, filmed by eight fixed and four headset cameras.

The videos RECORDING/VIEW.mp4 in any folders under --root, or the published TSM features (--features, --packed); labels
and splits in --annotations, which holds coarse-annotations, fine-grained-annotations or both. Views are v1 to v8 (exo)
and e1 to e4 (ego), whichever of the two headsets was worn; e1 is the primary one. The labels of test are withheld.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crossview.datasets.catalog import Catalog, Quarantined, Recording, Segment, one_protocol
from crossview.datasets.catalog.annotations import Spans
from crossview.datasets.catalog.class_lists import as_classes, class_lists
from crossview.datasets.catalog.found import content, coverage, dropped, files_under, named, named_files, one_each
from crossview.datasets.catalog.listing import Problems, cells, text_lines, whole_number
from crossview.datasets.catalog.probing import Prober, Tick
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.features.frame_lmdb import FrameLmdb
from crossview.datasets.features.packing import Job, feature_columns, pack, packed_shape
from crossview.errors import UserError

PROTOCOLS = (DEFAULT,)
PAIRINGS = ("single", "synchronized", "paired", "unpaired", "group")
SPLITS = ("train", "val", "test")
HEADSETS = (("84346135", "84347414", "84355350", "84358933"), ("21176875", "21176623", "21110305", "21179183"))
"""Serial numbers of the cameras e1 to e4; a recording has one of the two headsets."""
EXO = ("C10095", "C10115", "C10118", "C10119", "C10379", "C10390", "C10395", "C10404")
SLOTS = {f"HMC_{serial}_mono10bit": f"e{k}" for serials in HEADSETS for k, serial in enumerate(serials, 1)} | {
    f"{camera}_rgb": f"v{k}" for k, camera in enumerate(EXO, 1)
}
"""The view of each camera's files; the primary ego view comes first."""
RECORDING = re.compile(
    r"nusar-2021_action_both_(?P<actor>\d{4})-(?P<toy>[abc]\d{2}[a-f]?)_(?P<user>\d{4})_user_id_\d{4}-\d\d-\d\d_\d{6}"
)
FPS = 30
"""Of frame numbers in annotations and of features, which count from 1; the videos have 60 frames per second."""
WIDTH = 2048
"""Of a frame's features."""
Label = Literal["coarse", "verb", "noun", "action"]
SEQUENCE, PARTS = "sequence", ("assembly", "disassembly")
"""Kind of the segments that span a coarse sequence, and its labels."""
FINE: tuple[Label, ...] = ("verb", "noun", "action")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the files are."""

    root: Path | None = None
    """Folder with the videos, in any folders below it; left out with features."""
    annotations: Path
    """Folder that holds coarse-annotations, fine-grained-annotations, or both."""
    labels: tuple[Label, ...] = ("coarse", *FINE)
    """Kinds of segments: coarse actions with the sequences that they make up, and verb, noun and action of fine ones,
    of which each has some 0.8 million rows over all views; leave out what you do not need."""
    features: Path | None = None
    """Folder with an LMDB of TSM features per view, VIEW/data.mdb, to be packed; what is packed already is left."""
    packed: Path | None = None
    """Folder for the packed features, RECORDING/VIEW.npy; without `features`, what is there is catalogued."""


class Span(NamedTuple):
    """A labelled span: its first frame, counted from 1, the one after its last, and its labels by kind."""

    first: int
    stop: int
    labels: tuple[tuple[str, str], ...]


@dataclass
class Annotations:
    """What the annotations say."""

    splits: dict[str, str] = field(default_factory=dict)
    """By recording."""
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    coarse: dict[str, list[Span]] = field(default_factory=dict)
    """By recording."""
    fine: dict[str, list[Span]] = field(default_factory=dict)
    """By RECORDING/CAMERA."""
    sequences: Counter[str] = field(default_factory=Counter)
    """Coarse sequences per split: a recording has one of assembly and one of disassembly, or one of them."""
    videos: dict[str, None] = field(default_factory=dict)
    """RECORDING/CAMERA of all videos of these sequences."""
    left_out: list[str] = field(default_factory=list)
    """File and line of segments that end before they begin."""
    silent: list[str] = field(default_factory=list)
    """Label files of train and val that are missing, as where their names are spelt otherwise."""
    cut: Spans = field(default_factory=Spans)


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per video or features of a camera: scenes are recordings, actions toys, subjects the second number.

    Raises UserError for folders without such files, and for annotations that are broken or contradict each other.
    """
    prober = prober or Prober()
    if (options.root is None) == (options.packed is None):
        raise UserError(
            f"--root is {options.root} and --packed {options.packed}; give --root for a catalog of videos, "
            "or --packed, and --features the first time, for one of features"
        )
    files, quarantined = _videos(options.root) if options.root else _features(options, prober.tick)
    annotations = read_annotations(options.annotations, options.labels)
    root = options.root or options.packed or Path()
    facts: dict[str, dict[str, Any]] = {}
    if options.root:
        infos, unreadable = prober.probe(root, files.values())
        facts = {path: {"kind": "video", **info.columns()} for path, info in infos.items()}
        quarantined += unreadable
    else:
        for path in files.values():
            shape = packed_shape(root / path)
            if shape is None:
                reason = f"{root / path}: it is no whole array of features; remove it and pack it again"
                quarantined += (Quarantined(path, reason),)
            else:
                facts[path] = feature_columns(shape, FPS)
    recordings = {key: _recording(key, path, facts[path]) for key, path in files.items() if path in facts}
    segments = tuple(s for key, recording in recordings.items() for s in _segments(annotations, recording, key))
    members = [(r, annotations.splits[r.scene]) for r in recordings.values() if r.scene in annotations.splits]
    return Catalog(
        root,
        tuple(recordings.values()),
        segments,
        quarantined=quarantined,
        protocols=one_protocol(members),
        classes=annotations.classes,
        notes=_notes(annotations, files, recordings.values(), segments),
    )


def _videos(root: Path) -> tuple[dict[str, str], tuple[Quarantined, ...]]:
    """Paths by RECORDING/CAMERA, in order of recordings and views."""
    grammar = re.compile(rf"({'|'.join(SLOTS)})\.mp4", re.IGNORECASE)
    what = f"Assembly101's videos are, such as {next(reversed(SLOTS))}.mp4 in the folder of its recording"
    return _in_order(root, list(named_files(root, grammar, what)), "--root"), ()


def _in_order(root: Path, paths: Sequence[str], option: str) -> dict[str, str]:
    """Paths by RECORDING/CAMERA; raises UserError where a recording has two files of one view, or there is none."""
    spelled = {camera.lower(): camera for camera in SLOTS}
    placed = {path: root.absolute() / path for path in paths}
    places = [
        (path, (file.parent.name, SLOTS[spelled[file.stem.lower()]]))
        for path, file in placed.items()
        if RECORDING.fullmatch(file.parent.name)
    ]
    found = one_each(root, places, "view of a recording, which has one headset and one file per camera")
    if not found:
        raise UserError(
            f"{root}: {named(paths)}: none is in a folder that is named as a recording, "
            f"nusar-2021_action_both_...; pass the folder of the recordings' folders as {option}"
        )
    return {f"{key[0]}/{spelled[placed[path].stem.lower()]}": path for key, path in sorted(found.items())}


def _features(options: Options, tick: Tick | None) -> tuple[dict[str, str], tuple[Quarantined, ...]]:
    """As `_videos`, of packed features, after packing those that are not; what cannot be packed is quarantined."""
    packed = options.packed or Path()
    reasons: dict[Path, str] = {}
    if options.features is not None:
        reasons = pack(list(_jobs(options.features, packed)), tick)
    grammar = re.compile(rf"(?:{'|'.join(SLOTS)})\.npy")
    there = list(files_under(packed)) if packed.is_dir() else []
    paths = [path for path in there if grammar.fullmatch(path.rpartition("/")[2])]
    quarantined = tuple(
        Quarantined(target.relative_to(packed).as_posix(), reason) for target, reason in sorted(reasons.items())
    )
    if not paths and not reasons:
        raise UserError(
            f"{packed}: no RECORDING/VIEW.npy is here ({content(packed)}); pass --features to pack features there"
        )
    return _in_order(packed, paths, "--packed") if paths else {}, quarantined


def _jobs(folder: Path, packed: Path) -> Iterator[Job]:
    """What is to be packed."""
    cameras = [camera for camera in SLOTS if (folder / camera / "data.mdb").is_file()]
    if not cameras:
        raise UserError(
            f"{folder}: no VIEW/data.mdb is here, such as {next(reversed(SLOTS))}/data.mdb "
            f"({content(folder)}); pass the folder with the LMDBs of features, TSM_features, as --features"
        )
    for camera in cameras:
        key = rf"(?P<prefix>[^/]+/{camera}/{camera}_)(?P<frame>\d{{10}})\.jpg"
        features = FrameLmdb(folder / camera, key, WIDTH)
        for prefix, last in features.last_frames().items():
            recording = prefix.split("/")[0]
            if RECORDING.fullmatch(recording):
                target, source = packed / recording / f"{camera}.npy", f"{folder / camera}, recording {recording}"
                yield Job(target, source, (last, WIDTH), partial(features.frames, prefix, last))


def _recording(key: str, path: str, facts: dict[str, Any]) -> Recording:
    scene, _, camera = key.partition("/")
    person = RECORDING.fullmatch(scene)
    assert person
    return Recording(
        dataset="assembly101", scene=scene, view=SLOTS[camera], perspective="ego" if SLOTS[camera] < "f" else "exo",
        subject=person["user"], action=person["toy"], path=path, **facts,
    )  # fmt: skip


def _segments(annotations: Annotations, recording: Recording, key: str) -> Iterator[Segment]:
    """Of one recording, cut at the end of its file, which may be truncated."""
    for span in (*annotations.coarse.get(recording.scene, ()), *annotations.fine.get(key, ())):
        start_s, end_s = (span.first - 1) / FPS, (span.stop - 1) / FPS
        if times := annotations.cut.within(recording, start_s, end_s, f"{recording.id} at {start_s:.2f} s"):
            yield from (Segment(recording.id, *times, kind, label) for kind, label in span.labels)


def _notes(
    annotations: Annotations, files: dict[str, str], recordings: Collection[Recording], segments: Sequence[Segment]
) -> tuple[str, ...]:
    listed = ", ".join(f"{split} {annotations.sequences[split]}" for split in SPLITS)
    without = sorted({r.scene for r in recordings} - annotations.splits.keys())
    kinds = Counter(segment.name for segment in segments)
    said = [f"coarse sequences in the lists: {listed}"] if annotations.sequences else []
    said.append(coverage("recordings", sorted(annotations.splits), {r.scene for r in recordings}))
    if annotations.videos:
        said.append(coverage("videos or features of coarse sequences", list(annotations.videos), files))
    said.append(f"segments: {', '.join(f'{kind} {count:,}' for kind, count in sorted(kinds.items())) or 'none'}")
    if without:
        said.append(f"without a split: {len(without)} recordings ({named(without)})")
    if annotations.silent:
        said.append(f"without labels: {len(annotations.silent)} of coarse_labels ({named(annotations.silent)})")
    left_out = {"segments that end before they begin": annotations.left_out}
    return (*said, *dropped(left_out), *annotations.cut.notes())


def read_annotations(folder: Path, labels: Sequence[Label]) -> Annotations:
    """Everything that the annotations hold of the labels asked for; raises UserError with all that is wrong."""
    coarse, fine = folder / "coarse-annotations", folder / "fine-grained-annotations"
    if not coarse.is_dir() and not fine.is_dir():
        raise UserError(
            f"{folder}: neither coarse-annotations nor fine-grained-annotations is here ({content(folder)}); pass the "
            "folder that holds them as --annotations"
        )
    found, problems = Annotations(), Problems()
    if coarse.is_dir():
        _read_coarse(coarse, labels, found, problems)
    if fine.is_dir():
        _read_fine(fine, [kind for kind in FINE if kind in labels], found, problems)
    problems.refuse()
    return found


def _read_coarse(folder: Path, labels: Sequence[Label], found: Annotations, problems: Problems) -> None:
    names: dict[int, str] = {}
    if "coarse" in labels:
        names = class_lists(folder / "actions.csv", ("action",), problems)["action"]
        found.classes |= {"coarse": as_classes(names), SEQUENCE: PARTS}
    known = frozenset(names.values())
    for split in SPLITS:
        for part in PARTS:
            file = folder / "coarse_splits" / f"{split}_coarse_{part}.txt"
            for number, line in text_lines(file):
                name = line.split("\t")[0].strip()  # an empty field, and further ones of any number, follow
                recording = name.removeprefix(f"{part}_").removesuffix(".txt")
                if name != f"{part}_{recording}.txt" or not RECORDING.fullmatch(recording):
                    problems.add(f"{file}, line {number}: {name!r} names no sequence, {part}_RECORDING.txt; correct it")
                    continue
                _join(found, recording, split, f"{file}, line {number}", problems)
                found.sequences[split] += 1
                if "coarse" not in labels:
                    continue
                if (labelled := folder / "coarse_labels" / name).is_file():
                    spans = list(_coarse_spans(labelled, known, split, found, problems))
                    if spans:
                        ends = min(span.first for span in spans), max(span.stop for span in spans)
                        spans.append(Span(*ends, ((SEQUENCE, part),)))
                    found.coarse.setdefault(recording, []).extend(spans)
                elif split != "test":
                    found.silent.append(name)
    if (views := folder / "coarse_seq_views.txt").is_file():
        for number, line in text_lines(views):
            video = line.strip().partition("assembly_")[2].removesuffix(".mp4")
            if _video(video, f"{views}, line {number}", problems):
                found.videos[video] = None


def _video(video: str, place: str, problems: Problems) -> bool:
    """Whether it is RECORDING/CAMERA; adds a problem where it is not."""
    recording, _, camera = video.partition("/")
    known = bool(RECORDING.fullmatch(recording)) and camera in SLOTS
    if not known:
        problems.add(f"{place}: {video!r} names no video, RECORDING/VIEW.mp4; correct it")
    return known


def _join(found: Annotations, recording: str, split: str, place: str, problems: Problems) -> None:
    known = found.splits.setdefault(recording, split)
    if known != split:
        problems.add(
            f"{place}: {recording} is in split {split}, and in {known} before; a recording is in one split: correct one"
        )


def _coarse_spans(
    file: Path, names: frozenset[str], split: str, found: Annotations, problems: Problems
) -> Iterator[Span]:
    """Of one sequence: lines of first frame, frame after the last, action and what else there is, between tabs."""
    for number, line in text_lines(file):
        first, stop, *label = (value.strip() for value in (line.rstrip() + "\t").split("\t")[:3])
        place = f"{file}, line {number}"
        if not label or not label[0]:
            if split != "test":
                problems.add(f"{place}: {line.strip()!r} has no action; a line is first frame, end and action")
        elif label[0] not in names:
            problems.add(f"{place}: action {label[0]!r} is none of the {len(names)} of actions.csv; correct it")
        elif span := _span(place, first, stop, (("coarse", label[0]),), found, problems):
            yield span


def _span(
    place: str, first: str, stop: str, labels: tuple[tuple[str, str], ...], found: Annotations, problems: Problems
) -> Span | None:
    try:
        span = Span(whole_number(first), whole_number(stop), labels)
    except UserError as error:
        problems.add(f"{place}: {error}")
        return None
    if span.stop <= span.first:
        found.left_out.append(place)
        return None
    return span


def _read_fine(folder: Path, kinds: Sequence[Label], found: Annotations, problems: Problems) -> None:
    """Tables with a row per segment and video; all views of a segment share their span."""
    names = class_lists(folder / "actions.csv", kinds, problems) if kinds else {}
    found.classes |= {kind: as_classes(of) for kind, of in names.items()}
    spans: dict[Span, Span] = {}
    for split, stem in zip(SPLITS, ("train", "validation", "test"), strict=True):
        file = folder / f"{stem}.csv"
        if not file.is_file():
            continue
        (first, header), *lines = text_lines(file) or [(1, "")]
        places = {name.lower(): k for k, name in enumerate(cells(file, first, header, ","))}
        if lacking := [name for name in ("video", "start_frame", "end_frame") if name not in places]:
            raise UserError(f"{file}, line {first}: column {lacking[0]!r} is missing; get the annotations again")
        labelled = [kind for kind in kinds if f"{kind}_id" in places]
        for number, line in lines:
            values = cells(file, number, line, ",")
            place = f"{file}, line {number}"
            if len(values) != len(places):
                problems.add(f"{place}: it has {len(values)} values for {len(places)} columns; correct the line")
                continue
            video = values[places["video"]].removesuffix(".mp4")
            if not _video(video, place, problems):
                continue
            _join(found, video.partition("/")[0], split, place, problems)
            if not labelled:
                continue
            try:
                texts = [(kind, values[places[f"{kind}_id"]]) for kind in labelled]
                labels = tuple((kind, names[kind][int(text)]) for kind, text in texts)
            except (KeyError, ValueError):
                said = ", ".join(f"{kind} {text}" for kind, text in texts)
                problems.add(f"{place}: {said}: an id is none of actions.csv; correct it")
                continue
            first_frame, stop = values[places["start_frame"]], values[places["end_frame"]]
            if span := _span(place, first_frame, stop, labels, found, problems):
                found.fine.setdefault(video, []).append(spans.setdefault(span, span))
