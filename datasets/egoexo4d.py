"""Ego-Exo4D (arXiv 2311.18259, V2): takes of skilled activities, filmed by Aria glasses and fixed GoPros in step.

ROOT is the downloader's folder with takes.json, annotations/ and takes/, or parts of these; frame-aligned videos, full
or 448 px, or with --features the released features. Protocols: takes (splits.json), keystep (the benchmark's takes) and
proficiency (the demonstrator's). Segments: keystep (the benchmark's), step (all annotated), and proficiency of a take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from crossview.datasets._egoexo4d_labels import Annotations
from crossview.datasets.catalog import Catalog, Perspective, Quarantined, Recording, Segment
from crossview.datasets.catalog.classes import natural_order
from crossview.datasets.catalog.found import coverage, named
from crossview.datasets.catalog.listing import Problems, exists, leads_out, seconds, table
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import protocols_of
from crossview.datasets.catalog.records import AGAIN, an_object, json_file, optional, value
from crossview.datasets.features.arrays import ArrayFile, pack_files, shapes_of
from crossview.datasets.features.packing import feature_columns
from crossview.errors import UserError

PROTOCOLS = ("takes", "keystep", "proficiency")
PAIRINGS = ("single", "synchronized", "paired", "unpaired", "group")
NO_CAMERAS = ("collage", "best_exo")
"""Videos among a take's that are made from others."""
FEATURES = {"omnivore_video": (30 / 16, 16 / 30), "maws_clip_2b": (30.0, 0.0)}
"""Windows or frames per s, and when the middle of the first is shown, in s: windows of 32/30 s begin every 16/30 s."""
SIZES = {"448": ("downscaled/448",), "full": ("",), "any": ("downscaled/448", "")}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the dataset is, and what of it is read."""

    root: Path
    """Folder that holds takes.json."""
    size: Literal["any", "448", "full"] = "any"
    """Which frame-aligned videos: 448 px where they are there and else the full ones, or those of one size alone."""
    streams: tuple[Literal["slam-left", "slam-right", "et"], ...] = ()
    """Further streams of the glasses, beside rgb: views ego-slam-left, ego-slam-right, ego-et."""
    offsets: Path | None = None
    """Table take_name,view,start_offset_s: what is added to a view's times where it is known to run late or early."""
    features: Literal["omnivore_video", "maws_clip_2b"] | None = None
    """Read these features, in ROOT/features, in place of the videos."""
    packed: Path | None = None
    """Folder for the packed features, one float16 array per view; what is packed already is left."""

    def __post_init__(self) -> None:
        if (self.features is None) != (self.packed is None):
            raise UserError("--features and --packed go together: which features, and the folder to pack them into")


class Video(NamedTuple):
    """A camera's video of a take, as takes.json has it."""

    view: str
    perspective: Perspective
    path: str
    """Of the full size, relative to the root."""
    features: str
    """Name of its file of features, without .pt."""


class Take(NamedTuple):
    """A take that takes.json lists."""

    uid: str
    name: str
    action: str
    subject: str
    videos: list[Video]
    """Ego first, the primary one before the others."""


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per camera of every take that is here: scenes are takes, views ego and the names of the exo cameras.

    Further ego cameras are ego-CAMERA. Raises UserError, before any video is opened, for a root without takes.json or
    splits.json, for broken annotations, and where no video is here.
    """
    root, tester = options.root, prober or Prober()
    takes, nulls = read_takes(root, options.streams)
    marks = Annotations(root, {take.uid for take in takes})
    offsets = _offsets(options, takes)
    listed = {video.path: (take, video) for take in takes for video in take.videos}
    found, broken = (_features if options.features else _videos)(options, listed, tester)
    recordings: list[Recording] = []
    segments: list[Segment] = []
    for path, (file, facts) in found.items():
        take, video = listed[path]
        late_s = offsets.get((take.name, video.view), 0.0) + (FEATURES[options.features][1] if options.features else 0)
        recording = Recording(
            dataset="egoexo4d", scene=take.name, view=video.view, perspective=video.perspective, subject=take.subject,
            action=take.action, path=file, start_offset_s=late_s, **facts,
        )  # fmt: skip
        recordings.append(recording)
        segments += marks.segments(take.uid, recording)
    uids = {take.name: take.uid for take in takes}
    several = [
        take.name for take in takes if sum(v.view.startswith("ego") for v in take.videos) > 1 + len(options.streams)
    ]
    counts = Counter(marks.splits["takes"].get(take.uid, "in no split") for take in takes)
    return Catalog(
        options.packed or root,
        tuple(recordings),
        tuple(segments),
        quarantined=broken,
        protocols=protocols_of(PROTOCOLS, recordings, lambda r, name: marks.splits[name].get(uids[r.scene])),
        classes={"action": natural_order(take.action for take in takes if take.action), **marks.classes},
        notes=(
            f"takes.json lists {len(takes):,} takes, of 5,035 in V2: "
            + ", ".join(
                f"{counts[split]:,} {split}" for split in ("train", "val", "test", "in no split") if counts[split]
            ),
            coverage("features" if options.features else "videos", list(listed), found),
            *([f"videos without a path in takes.json: {nulls:,}"] if nulls else []),
            *([f"takes with several ego cameras: {len(several):,} ({named(several)})"] if several else []),
            *marks.notes(),
        ),
    )


Listed = Mapping[str, tuple[Take, Video]]
Found = dict[str, tuple[str, dict[str, Any]]]
"""By a listed path, the file relative to the catalog's root, and fields of its recording."""


def _videos(options: Options, listed: Listed, prober: Prober) -> tuple[Found, tuple[Quarantined, ...]]:
    """The videos that are here, by takes.json's path."""
    here: dict[str, str] = {}
    for path in listed:
        full = PurePosixPath(path)
        sizes = ((full.parent / size / full.name).as_posix() for size in SIZES[options.size])
        if file := next((file for file in sizes if exists(options.root / file)), None):
            here[path] = file
    if not here:
        raise UserError(
            f"{options.root}: no frame-aligned video of size {options.size} is here; looked for {named(listed)}, or "
            "in downscaled/448 beside them: download --parts takes or downscaled_takes/448, or pass another --size"
        )
    infos, broken = prober.probe(options.root, here.values())
    return {p: (f, {"kind": "video", **infos[f].columns()}) for p, f in here.items() if f in infos}, broken


def _features(options: Options, listed: Listed, prober: Prober) -> tuple[Found, tuple[Quarantined, ...]]:
    """The features that are here, packed."""
    name, packed = options.features or "", options.packed or Path()
    here: dict[str, str] = {}
    for path, (_, video) in listed.items():
        either = (f"features/{name}/{video.features}.pt", f"features/{video.features}.pt")
        if file := next((file for file in either if exists(options.root / file)), None):
            here[path] = file
    if not here:
        first = next((video.features for _, video in listed.values()), "TAKE_CAMERA_STREAM")
        raise UserError(
            f"{options.root / 'features' / name}: no file of features is here, such as {first}.pt; download --parts "
            f"features/{name}"
        )
    files = {file: ArrayFile(options.root / file) for file in here.values()}
    shapes, broken = shapes_of(files, packed)
    places, unpacked = pack_files(files, shapes, packed, prober.tick)
    found = {p: (places[f], feature_columns(shapes[f], FEATURES[name][0])) for p, f in here.items() if f in places}
    return found, tuple(Quarantined(file, reason) for file, reason in (broken | unpacked).items())


def _offsets(options: Options, takes: Sequence[Take]) -> dict[tuple[str, str], float]:
    """Seconds to add, by take_name and view."""
    if options.offsets is None:
        return {}
    known = {(take.name, video.view) for take in takes for video in take.videos}
    problems = Problems()
    found = {}
    for row in table(options.offsets, ("take_name", "view", "start_offset_s"), (), problems):
        key = (row.values["take_name"], row.values["view"])
        try:
            found[key] = seconds(row.values["start_offset_s"])
        except UserError as error:
            problems.add(f"{options.offsets}, line {row.number}, column 'start_offset_s': {error}")
        if key not in known:
            problems.add(f"{options.offsets}, line {row.number}: takes.json has no view {key[1]!r} of take {key[0]!r}")
    problems.refuse()
    return found


def read_takes(root: Path, streams: Sequence[str] = ()) -> tuple[list[Take], int]:
    """The takes in takes.json with their cameras, and how many videos have no path in it.

    Raises UserError that names what is wrong.
    """
    file = root / "takes.json"
    if not file.is_file():
        near = next((path.parent for path in (*root.glob("*/takes.json"), *root.parent.glob("takes.json"))), None)
        said = f"there is one in {near}" if near else "neither is one a folder above or below"
        raise UserError(
            f"{root}: takes.json is missing, {said}; pass the folder that Ego-Exo4D was downloaded to as --root"
        )
    takes: dict[str, Take] = {}
    names: set[str] = set()
    problems, nulls = Problems(), 0
    for number, entry in enumerate(json_file(file, list)):
        where = f"{file}, entry {number}"
        try:
            take, without = _take(an_object(entry, where), where, streams)
        except UserError as error:
            problems.add(error)
            continue
        if take.uid in takes or take.name in names:
            problems.add(f"{where}: take {take.name} ({take.uid}) is there twice; {AGAIN}")
        takes[take.uid] = take
        names.add(take.name)
        nulls += without
    problems.refuse()
    if not takes:
        raise UserError(f"{file}: it lists no take; {AGAIN}")
    return list(takes.values()), nulls


def _take(facts: dict[str, Any], where: str, streams: Sequence[str]) -> tuple[Take, int]:
    name, uid = value(facts, "take_name", str, where), value(facts, "take_uid", str, where)
    place = PurePosixPath(optional(facts, "root_dir", str, where) or f"takes/{name}")
    cameras = optional(optional(facts, "capture", dict, where) or {}, "cameras", list, where) or []
    worn = {}
    for camera in cameras:
        of = an_object(camera, f"{where}, cameras")
        worn[value(of, "cam_id", str, f"{where}, cameras")] = str(of.get("is_ego")).lower() in ("true", "1")
    aligned = optional(facts, "frame_aligned_videos", dict, where) or {}
    paths: dict[tuple[str, str], str] = {}
    nulls = 0
    for camera in aligned:
        if camera in NO_CAMERAS:
            continue
        of = optional(aligned, camera, dict, f"{where}, {camera}") or {}
        for key in of:
            video = optional(of, key, dict, f"{where}, {camera}") or {}
            stream = str(video.get("readable_stream_id") or key)
            path = optional(video, "relative_path", str, f"{where}, {camera}, {key}")
            if path is None:
                nulls += 1
            elif stream in ("rgb", "0", *streams):
                paths[camera, stream] = (place / path).as_posix()
    outside = [path for path in paths.values() if leads_out(path) or "\0" in path]
    if outside or "/" in name:
        raise UserError(f"{where}: {(outside or [name])[0]!r} leads out of the root; {AGAIN}")
    egos = [c for c in dict.fromkeys(c for c, _ in paths) if worn.get(c, "aria" in c.lower())]
    egos.sort(key=lambda camera: "aria" not in camera.lower())  # an ego GoPro is not the primary one
    videos = []
    rank = {camera: place for place, camera in enumerate(egos)}
    for (camera, stream), path in sorted(
        paths.items(), key=lambda e: (rank.get(e[0][0], len(rank)), e[0][0], ("rgb", "0", *streams).index(e[0][1]))
    ):
        view = camera if camera not in egos else "ego" if camera == egos[0] else f"ego-{camera}"
        view += "" if stream in ("rgb", "0") else f"-{stream}"
        videos.append(Video(view, "ego" if camera in egos else "exo", path, f"{uid}_{camera}_{stream}"))
    action = optional(facts, "parent_task_name", str, where) or optional(facts, "task_name", str, where) or ""
    subject = facts.get("participant_uid")
    return Take(uid, name, action, "" if subject is None else str(subject), videos), nulls
