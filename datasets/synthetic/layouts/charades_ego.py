"""Charades-Ego: pairs of videos without a common clock, CRLF in the lists, dirty intervals, a missing file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.charades_ego import CLASSES, Options
from crossview.datasets.synthetic.config import PHASES

from . import files

COLUMNS = (
    "id", "subject", "scene", "quality", "relevance", "verified", "script", "objects", "descriptions", "actions",
    "length", "egocentric", "charades_video",
)  # fmt: skip
_NAMED = [phase for phases in PHASES.values() for phase in phases]
LATE = 3
"""Frames by which a third-person video starts later than its partner."""


def export(world: Catalog, out: Path) -> Options:
    """Per take, its first ego film, and its first exo film at another rate; val takes are in test as well.

    The first pair is there as frames too, in CharadesEgo_v1_rgb.
    """
    scenes: dict[str, dict[str, Recording]] = {}
    for recording in world.recordings:
        scenes.setdefault(recording.scene, {}).setdefault(recording.perspective, recording)
    rows: dict[str, list[list[str]]] = {"train": [], "test": []}
    videos = out / "CharadesEgo_v1_480"
    for number, views in enumerate(scenes.values()):
        ego, exo, pair = views["ego"], views["exo"], f"S{number:04d}"
        split = "train" if world.split_of(ego) == "train" else "test"
        files.link(world, ego, videos / f"{pair}EGO.mp4")
        files.encode(files.pictures(world, exo)[LATE:], videos / f"{pair}.mp4", 25)
        length_s = (ego.num_frames - 1) / ego.fps  # the lists' lengths are not those of the files
        actions = _actions(world, ego, ego.fps, 0)
        if number == 1:
            actions = []
        elif number % 2:
            actions += [f"c{CLASSES - 1:03d} {length_s:.2f} {length_s - 0.5:.2f}", f"c000 0.10 {length_s + 9:.2f}"]
        rows[split].append(_row(f"{pair}EGO", ego, actions, length_s))
        rows[split].append(_row(pair, exo, _actions(world, exo, 25, LATE), (exo.num_frames - LATE) / 25))
        if number == 0:
            _frames(world, ego, out, f"{pair}EGO", ego.fps, 0)
            _frames(world, exo, out, pair, 25, LATE)
    rows["test"].append(_row("ZZZZZ", ego, ["c001 0.00 1.00"], 2.0))  # listed, and not there
    folder = out / "CharadesEgo"
    folder.mkdir(exist_ok=True)
    for split, listed in rows.items():
        parts = {"": listed, "_only1st": [r for r in listed if r[-2] == "Yes"],
                 "_only3rd": [r for r in listed if r[-2] == "No"]}  # fmt: skip
        for part, members in parts.items():
            with (folder / f"CharadesEgo_v1_{split}{part}.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\r\n").writerows([COLUMNS, *members])
    (folder / "Charades_v1_classes.txt").write_text("".join(f"{name}\n" for name in _class_names()))
    return Options(root=out)


def _class_names() -> list[str]:
    described = [*(name.replace("_", " ").capitalize() for name in _NAMED), *["Nothing of this world"] * CLASSES]
    return [f"c{k:03d} {described[k]}" for k in range(CLASSES)]


def _actions(world: Catalog, recording: Recording, fps: float, late: int) -> list[str]:
    """Its phases as they are shown at a rate, from frame `late` on."""
    shown = []
    for segment in world.segments:
        if segment.recording == recording.id and segment.name == "phase":
            start, end = (max(0.0, s * recording.fps - late) / fps for s in (segment.start_s, segment.end_s))
            if end > start:
                shown.append(f"c{_NAMED.index(segment.label):03d} {start:.2f} {end:.2f}")
    return shown


def _row(name: str, recording: Recording, actions: Iterable[str], length_s: float) -> list[str]:
    return [
        name, recording.subject, "Kitchen", "6", "7", "Yes", f"Someone does {recording.action}, at a table.",
        "cup;table", "", ";".join(actions), f"{length_s:.2f}", "Yes" if name.endswith("EGO") else "No", "",
    ]  # fmt: skip


def _frames(world: Catalog, recording: Recording, out: Path, name: str, fps: float, late: int) -> None:
    """A video, from frame `late` on, as its images at 24 per second, numbered from 1."""
    count = int((recording.num_frames - late) / fps * 24)
    wanted = late + np.arange(count) * fps / 24
    shown = files.pictures(world, recording)[wanted.astype(int)]
    names = [f"{name}-{number:06d}.jpg" for number in range(1, count + 1)]
    files.images(shown, out / "CharadesEgo_v1_rgb" / name, names)
