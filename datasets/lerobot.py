"""LeRobot v2.0, v2.1 and v3.0: robot demonstrations, episodes that several synchronous cameras film.

ROOT holds meta/info.json and the files that it names, as `lerobot` and the Hugging Face hub write them. Cameras on a
wrist are ego and the others exo, unless --ego and --exo say otherwise; depth is left out. The action of an episode is
its task. Videos are read, and images in folders, but no images inside Parquet files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from crossview.datasets.catalog import Catalog, Perspective, Quarantined, Recording, one_protocol
from crossview.datasets.catalog.found import coverage, named
from crossview.datasets.catalog.listing import Problems, exists
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.catalog.records import (
    AGAIN,
    Rows,
    an_object,
    json_file,
    json_lines,
    optional,
    parquet_rows,
    value,
)
from crossview.datasets.video.frame_index import cached_index
from crossview.datasets.video.image_folder import Images
from crossview.datasets.video.indexing import VideoInfo
from crossview.errors import UserError

PROTOCOLS = (DEFAULT,)
PAIRINGS = ("single", "synchronized", "paired", "unpaired", "group")
WRIST = re.compile(r"wrist|gripper|egocentric|(?<![a-z])hand(?![a-z])", re.IGNORECASE)
"""Keys of cameras that are ego by default: no field says it, and their names are free."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the dataset is, what its cameras are, and which episodes validate."""

    root: Path
    """Folder that holds meta/info.json."""
    ego: tuple[str, ...] = ()
    """Ego cameras, the primary one first: keys of info.json, with or without "observation.images.", or patterns such as
    cam_*_wrist. None: those with wrist, hand, gripper or egocentric in their names."""
    exo: tuple[str, ...] = ()
    """Exo cameras, likewise; cameras that are neither are then left out. None: all that are not ego."""
    val_share: float = 0.1
    """Share of the episodes, the last ones, that become split "val" if info.json names no split but one. 0: none."""
    val_tasks: tuple[str, ...] = ()
    """Tasks whose episodes become split "val", in place of a share."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise UserError(f"val_share is {self.val_share:g}; it is a share of the episodes and must be in [0, 1)")


class Camera(NamedTuple):
    """A camera that is in the catalog."""

    key: str
    perspective: Perspective

    @property
    def view(self) -> str:
        """The key without what all keys of pictures begin with."""
        return self.key.removeprefix("observation.").removeprefix("images.")


class Place(NamedTuple):
    """Where a camera's frames of an episode are."""

    path: str
    """A video or a folder of images, relative to the root."""
    from_s: float | None
    """When the episode begins in a file of several; None is a file of its own."""


class Episode(NamedTuple):
    """One demonstration."""

    number: int
    length: int
    """Frames of each camera."""
    tasks: list[str]
    places: dict[str, Place]
    """By a camera's key; a camera may be missing."""
    where: str
    """File and line or row, for errors."""

    @property
    def scene(self) -> str:
        """Name of the scene."""
        return f"episode_{self.number:06d}"

    @property
    def task(self) -> str:
        """The first of its tasks; empty where it has none."""
        return self.tasks[0] if self.tasks else ""


class Info:
    """meta/info.json: what it says of the files. Its counters are often stale and decide nothing."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root / "meta" / "info.json"
        if not self.file.is_file():
            below = sorted(file.parents[1] for deep in ("*", "*/*") for file in root.glob(f"{deep}/meta/info.json"))
            near = f"a dataset is in {below[0]}" if below else "no folder in it has one"
            raise UserError(f"{root}: meta/info.json is missing, and {near}; pass a LeRobot dataset's folder as --root")
        self.facts = json_file(self.file, dict)
        self.where = str(self.file)
        version = value(self.facts, "codebase_version", str, self.where)
        if not re.fullmatch(r"v[23]\.\d+", version):
            raise UserError(f"{self.file}: codebase_version is {version!r}; v2.0, v2.1 and v3.0 are read: convert it")
        self.packed = version.startswith("v3")
        self.fps = value(self.facts, "fps", float, self.where)
        self.robot = optional(self.facts, "robot_type", str, self.where) or ""
        self.features = value(self.facts, "features", dict, self.where)
        self._video = optional(self.facts, "video_path", str, self.where) or ""
        self._chunk = max(1, optional(self.facts, "chunks_size", int, self.where) or 1000)
        if self.fps <= 0:
            raise UserError(f"{self.file}: fps is {self.fps:g}; it must be above 0: correct it")
        known = {"chunk_index", "file_index"} if self.packed else {"episode_chunk", "episode_index"}
        bare = re.sub(rf"\{{(video_key|({'|'.join(sorted(known))})(:0?\d{{1,2}}d)?)\}}", "", self._video)
        if re.search(r"[{}]", bare) or PurePosixPath(bare).is_absolute() or ".." in PurePosixPath(bare).parts:
            raise UserError(
                f"{self.file}: video_path is {self._video!r}; it must be a path below the root with {{video_key}} and "
                f"the numbers {' and '.join(sorted(known))}, such as {{{min(known)}:03d}}: correct it"
            )

    def pictures(self) -> tuple[list[str], list[str]]:
        """Keys of cameras, and of what has pictures and is none: depth, and images that are in no folder."""
        cameras: list[str] = []
        left_out: list[str] = []
        for key, found in self.features.items():
            of = an_object(found, f"{self.file}, feature {key!r}")
            if (kind := of.get("dtype")) not in ("video", "image"):
                continue
            said = [block for name in ("info", "video_info") if isinstance(block := of.get(name), dict)]
            depth = any(block.get("is_depth_map") or block.get("video.is_depth_map") for block in said)
            plain = "/" not in key and key != ".." and len(key) < 200
            seen = plain and (bool(self._video) if kind == "video" else (self.root / "images" / key).is_dir())
            (cameras if seen and not depth else left_out).append(key)
        return cameras, left_out

    def place(self, key: str, episode: int, row: dict[str, Any], where: str) -> Place | None:
        """Where a camera's frames of an episode are: as its number says, or its row in v3.0; None for nowhere."""
        if self.features[key]["dtype"] == "image":
            return Place(f"images/{key}/episode{'-' if self.packed else '_'}{episode:06d}", None)
        if not self.packed:
            numbers = {"episode_chunk": episode // self._chunk, "episode_index": episode}
            return Place(self._video.format(video_key=key, **numbers), None)
        names = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        if any(row[name] is None for name in names):
            return None
        chunk, file = (value(row, name, int, where) for name in names[:2])
        path = self._video.format(video_key=key, chunk_index=chunk, file_index=file)
        return Place(path, value(row, names[2], float, where))

    def splits(self) -> dict[str, range]:
        """Half-open ranges of episodes by split, which may reach beyond the last episode."""
        stated = optional(self.facts, "splits", dict, self.where) or {"train": "0:"}
        ranges = {}
        for split, text in stated.items():
            match = re.fullmatch(r"\s*(\d{0,9})\s*:\s*(\d{0,9})\s*", str(text))
            if match is None:
                raise UserError(
                    f"{self.file}: split {split!r} is {text!r}; write its episodes as '0:50', the end excluded"
                )
            ranges[split] = range(int(match[1] or 0), int(match[2] or 10**9))
        return ranges


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per camera and episode, ego cameras first: scenes episode_000000 and so on, views as the keys say.

    Raises UserError, before any video is opened, for a root without meta/info.json, broken tables, a dataset of which
    no camera is ego, and a task outside the dataset's list. Episodes that end after their video, or whose own video has
    another number of frames, are in `Catalog.quarantined`; raises UserError where two of them overlap in a video.
    """
    info = Info(options.root)
    cameras, said = _cameras(info, options)
    tasks = _tasks(info)
    episodes = _episodes(info, cameras, tasks)
    splits, rule = _splits(info, options, episodes)
    asked = [(e, camera, place) for e in episodes for camera in cameras if (place := e.places.get(camera.key))]
    folders = {p.path: Images(info.fps, 0) for _, c, p in asked if info.features[c.key]["dtype"] == "image"}
    listed = dict.fromkeys(place.path for *_, place in asked)
    here = [p for p in listed if ((info.root / p).is_dir() if p in folders else exists(info.root / p))]
    if not here:
        raise UserError(
            f"{info.root}: no video is here; looked for {named(listed)}: download the videos, or pass the folder that "
            "holds them beside meta/info.json as --root"
        )
    infos, unreadable = (prober or Prober()).probe(info.root, here, {p: folders[p] for p in here if p in folders})
    spans, quarantined = _spans(asked, infos)
    recordings = [
        _recording(info, episode, camera, place.path, infos[place.path], spans[episode.number, camera.key])
        for episode, camera, place in asked
        if (episode.number, camera.key) in spans
    ]
    members = [(r, splits[r.scene]) for r in recordings if r.scene in splits]
    return Catalog(
        info.root,
        tuple(recordings),
        quarantined=(*unreadable, *quarantined),
        protocols=one_protocol(members),
        classes={"action": tasks} if tasks else {},
        notes=(*said, *rule, *_counts(info, episodes), coverage("videos", listed, here), *_unclaimed(asked, infos)),
    )


def _cameras(info: Info, options: Options) -> tuple[list[Camera], list[str]]:
    """The cameras in the order that a scene has them, and sentences on the choice."""
    keys, left_out = info.pictures()
    ego = _chosen(keys, options.ego, "--ego", info) or [
        key for key in keys if not options.ego and WRIST.search(Camera(key, "ego").view)
    ]
    exo = _chosen(keys, options.exo, "--exo", info)
    if both := [key for key in ego if key in exo] if options.ego else []:
        raise UserError(f"{info.file}: {both[0]} is both --ego and --exo; a camera is one of them")
    ego = [key for key in ego if key not in exo]
    exo = exo or [key for key in keys if key not in ego]
    if not ego:
        inside = f"; without pictures that are read: {named(left_out)}" if left_out else ""
        raise UserError(
            f"{info.file}: no camera is ego; its cameras are {', '.join(keys) or 'none'}{inside}: name those on the "
            "robot's wrist or head with --ego KEY, and convert images inside Parquet files to videos"
        )
    said = [f"ego: {', '.join(ego)}; exo: {', '.join(exo) or 'none'}; --ego and --exo say otherwise"]
    left_out += [key for key in keys if key not in ego + exo]
    if left_out:
        said.append(f"left out: {len(left_out)} features with pictures that are depth, not chosen, or inside Parquet "
                    f"files ({named(left_out)})")  # fmt: skip
    return [*(Camera(key, "ego") for key in ego), *(Camera(key, "exo") for key in exo)], said


def _chosen(keys: Sequence[str], patterns: Iterable[str], option: str, info: Info) -> list[str]:
    """The keys that match, in the order of the patterns; raises UserError for one that none matches."""
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = [k for k in keys if fnmatchcase(k, pattern) or fnmatchcase(Camera(k, "ego").view, pattern)]
        if not matching:
            raise UserError(f"{option} {pattern}: no camera is named so; {info.file} has {', '.join(keys) or 'none'}")
        found.update(dict.fromkeys(matching))
    return list(found)


def _rows(info: Info, name: str, pattern: str, wanted: Callable[[list[str]], list[str]]) -> Rows:
    """Of meta/NAME.jsonl, or the columns that are wanted of the Parquet files in meta that v3.0 has in its place."""
    meta = info.root / "meta"
    if not info.packed:
        yield from json_lines(meta / f"{name}.jsonl")
        return
    files = sorted(meta.glob(pattern))
    if not files:
        raise UserError(f"{meta / pattern}: the file is missing; download it with the rest of meta")
    for file in files:
        yield from parquet_rows(file, wanted)


def _tasks(info: Info) -> tuple[str, ...]:
    """The dataset's tasks by their numbers; of two with one text the later has its number in its name."""

    def text(names: Iterable[str]) -> str:  # the index of a table of pandas, which may have no name
        return "__index_level_0__" if "__index_level_0__" in names else "task"

    found: dict[int, str] = {}
    for row, where in _rows(info, "tasks", "tasks.parquet", lambda names: ["task_index", text(names)]):
        number = value(row, "task_index", int, where)
        task = value(row, text(row), str, where)
        if number in found:
            raise UserError(f"{where}: task_index {number} is there twice; a task has a number of its own: correct it")
        found[number] = task if task not in found.values() else f"{task} (task {number})"
    return tuple(found[number] for number in sorted(found))


def _episodes(info: Info, cameras: Sequence[Camera], tasks: Sequence[str]) -> list[Episode]:
    """In order of their numbers, from the tables alone; raises UserError with all that is wrong in them."""
    videos = [camera.key for camera in cameras if info.features[camera.key]["dtype"] == "video"]
    wanted = ["episode_index", "length", "tasks"]
    wanted += [f"videos/{key}/{name}" for key in videos for name in ("chunk_index", "file_index", "from_timestamp")]
    found: dict[int, Episode] = {}
    problems, known = Problems(), frozenset(tasks)
    for row, where in _rows(info, "episodes", "episodes/**/*.parquet", lambda _: wanted):
        try:
            number, length = value(row, "episode_index", int, where), value(row, "length", int, where)
            its = value(row, "tasks", list, where)
            if not (0 <= number < 10**9 and 1 <= length < 10**9):
                raise UserError(
                    f"{where}: episode {number} has {length} frames; counts are from 0 and 1 on: correct it"
                )
            if number in found:
                raise UserError(f"{where}: episode {number} is there twice, first in {found[number].where}; remove one")
            if outside := [task for task in its if not isinstance(task, str) or task not in known]:
                raise UserError(
                    f"{where}: task {outside[0]!r} is not among the {len(tasks)} of the dataset's tasks; {AGAIN}"
                )
            places = {c.key: place for c in cameras if (place := info.place(c.key, number, row, where))}
            found[number] = Episode(number, length, its, places, where)
        except UserError as error:
            problems.add(error)
    problems.refuse()
    if not found:
        raise UserError(f"{info.root / 'meta'}: its tables list no episode; {AGAIN}")
    return [found[number] for number in sorted(found)]


def _splits(info: Info, options: Options, episodes: Sequence[Episode]) -> tuple[dict[str, str], list[str]]:
    """Split by scene, and a sentence on the rule."""
    ranges = info.splits()
    found: dict[str, str] = {}
    for episode in episodes:
        its = [split for split, of in ranges.items() if episode.number in of]
        if len(its) > 1:
            raise UserError(
                f"{info.file}: episode {episode.number} is in splits {its[0]} and {its[1]}; it has one: correct them"
            )
        found.update(dict.fromkeys([episode.scene], its[0]) if its else {})
    if options.val_tasks:
        tasks = {episode.task for episode in episodes}
        if unknown := [task for task in options.val_tasks if task not in tasks]:
            raise UserError(
                f"--val-tasks {unknown[0]!r}: no episode has this task; tasks: {'; '.join(sorted(tasks)[:20])}"
            )
        found |= {episode.scene: "val" for episode in episodes if episode.task in options.val_tasks}
        return found, [f"split val: the episodes of {len(options.val_tasks)} tasks (--val-tasks)"]
    count = max(round(len(found) * options.val_share), 1 if options.val_share else 0)
    if len(set(found.values())) == 1 and 0 < count < len(found):
        found |= dict.fromkeys(list(found)[-count:], "val")
        rule = f"split val: the last {count:,} of {len(found):,} episodes (--val-share, --val-tasks)"
        return found, [f"{rule}, since info.json names one split alone"]
    return found, [f"splits as info.json says: {', '.join(ranges)}"]


Asked = list[tuple[Episode, Camera, Place]]


def _spans(
    asked: Asked, infos: dict[str, VideoInfo]
) -> tuple[dict[tuple[int, str], tuple[int, int]], list[Quarantined]]:
    """The first frame and the one after the last, by episode and camera, of what is in its file; and what is not.

    Raises UserError where episodes overlap in a file by more than a frame, which is then the earlier one's no more:
    times in the tables are sums of rounded lengths.
    """
    spans: dict[tuple[int, str], tuple[int, int]] = {}
    broken = []
    in_file: dict[str, list[tuple[int, int, Episode, Camera]]] = {}
    for episode, camera, place in asked:
        if (info := infos.get(place.path)) is None:
            continue
        first = 0 if place.from_s is None else _frame_at(info, place.from_s)
        stop = first + episode.length
        if stop > info.num_frames or (place.from_s is None and stop < info.num_frames):
            what = f"episode {episode.number} is frames {first} to {stop - 1} of {place.path}"
            broken.append(
                Quarantined(place.path, f"{episode.where}: {what}, which has {info.num_frames}; {AGAIN}, or the video")
            )
        else:
            in_file.setdefault(place.path, []).append((first, stop, episode, camera))
    problems = Problems()
    for path, listed in in_file.items():
        listed.sort(key=lambda entry: entry[:2])
        nexts = [first for first, *_ in listed[1:]]
        for (first, stop, episode, camera), following in zip(listed, [*nexts, math.inf], strict=True):
            if following < stop - 1:
                problems.add(
                    f"{episode.where}: episode {episode.number} is frames {first} to {stop - 1} of {path}, and another "
                    f"begins at {following}; episodes do not overlap: {AGAIN}"
                )
            spans[episode.number, camera.key] = (first, int(min(stop, following)))
    problems.refuse()
    return spans, broken


def _frame_at(info: VideoInfo, instant_s: float) -> int:
    """The frame of a file that is shown at an instant."""
    if info.constant_rate:
        return round(instant_s * info.fps)
    return int(np.abs(cached_index(Path(info.index)).times_s - instant_s).argmin())


def _recording(
    info: Info, episode: Episode, camera: Camera, path: str, video: VideoInfo, span: tuple[int, int]
) -> Recording:
    first, stop = span
    columns = video.columns() | {"first_frame": first, "num_frames": stop - first}
    if info.packed:
        columns["first_s"] = 0.0  # a span's clock starts with it
    return Recording(
        dataset="lerobot", scene=episode.scene, view=camera.view, perspective=camera.perspective, subject=info.robot,
        action=episode.task, path=path, kind="video" if info.features[camera.key]["dtype"] == "video" else "frames",
        **columns,
    )  # fmt: skip


def _counts(info: Info, episodes: Sequence[Episode]) -> list[str]:
    """What is there, and where info.json says another number."""
    here = {"total_episodes": len(episodes), "total_frames": sum(episode.length for episode in episodes)}
    stale = [f"{name} {info.facts[name]}" for name, count in here.items() if info.facts.get(name) not in (None, count)]
    said = f"episodes: {here['total_episodes']:,} with {here['total_frames']:,} frames"
    return [said + (f"; info.json is stale ({', '.join(stale)})" if stale else "")]


def _unclaimed(asked: Asked, infos: dict[str, VideoInfo]) -> list[str]:
    """A sentence on videos that hold frames of no episode, as after an interrupted recording."""
    claimed: dict[str, int] = {}
    for episode, _, place in asked:
        claimed[place.path] = claimed.get(place.path, 0) + episode.length
    more = [path for path, info in infos.items() if info.num_frames > claimed[path]]
    frames = sum(infos[path].num_frames - claimed[path] for path in more)
    return [f"in no episode: {frames:,} frames of {len(more)} videos ({named(more)})"] if more else []
