"""The tables of a LeRobot dataset: what its info.json, tasks and episodes say, whichever version wrote them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crossview.datasets.catalog import Perspective
from crossview.datasets.catalog.listing import Problems, leads_out
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
from crossview.errors import UserError


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
        if re.search(r"[{}]", bare) or leads_out(bare):
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


def read_tasks(info: Info) -> tuple[str, ...]:
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


def read_episodes(info: Info, cameras: Sequence[Camera], tasks: Sequence[str]) -> list[Episode]:
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
