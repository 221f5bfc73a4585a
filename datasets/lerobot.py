"""LeRobot v2.0, v2.1 and v3.0: robot demonstrations, episodes that several synchronous cameras film.

ROOT holds meta/info.json and the files that it names, as `lerobot` and the Hugging Face hub write them. Cameras on a
wrist are ego and the others exo, unless --ego and --exo say otherwise; depth is left out. The action of an episode is
its task. Videos are read, and images in folders, but no images inside Parquet files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crossview.datasets._lerobot_meta import Camera, Episode, Info, Place, read_episodes, read_tasks
from crossview.datasets.catalog import Catalog, Quarantined, Recording, one_protocol
from crossview.datasets.catalog.found import coverage, named
from crossview.datasets.catalog.listing import Problems, exists
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import DEFAULT
from crossview.datasets.catalog.records import AGAIN
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
    subjects: Literal["episode", "robot"] = "episode"
    """What counts as a subject, of whom evaluation holds some out: every episode by itself, or the robot's type."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise UserError(f"val_share is {self.val_share:g}; it is a share of the episodes and must be in [0, 1)")


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per camera and episode, ego cameras first: scenes episode_000000 and so on, views as the keys say.

    Raises UserError, before any video is opened, for a root without meta/info.json, broken tables, a dataset of which
    no camera is ego, and a task outside the dataset's list. Episodes that end after their video, or whose own video has
    another number of frames, are in `Catalog.quarantined`; raises UserError where two of them overlap in a video.
    """
    info = Info(options.root)
    cameras, said = _cameras(info, options)
    tasks = read_tasks(info)
    episodes = read_episodes(info, cameras, tasks)
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
        Recording(
            dataset="lerobot", scene=episode.scene, view=camera.view, perspective=camera.perspective,
            subject=episode.scene if options.subjects == "episode" else info.robot, action=episode.task,
            path=place.path, kind="frames" if place.path in folders else "video",
            **_columns(infos[place.path], spans[episode.number, camera.key], of_file=place.from_s is None),
        )
        for episode, camera, place in asked
        if (episode.number, camera.key) in spans
    ]  # fmt: skip
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


def _columns(video: VideoInfo, span: tuple[int, int], *, of_file: bool) -> dict[str, Any]:
    """Fields of a recording that is a span of a file; the clock of one that is not the file starts with it."""
    first, stop = span
    columns = video.columns() | {"first_frame": first, "num_frames": stop - first}
    return columns if of_file else columns | {"first_s": 0.0}


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
