"""EPIC-KITCHENS-100 and -55: upper-case .MP4 at several rates, frames, overlapping segments, a missing video."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog, Recording, Segment
from crossview.datasets.epic_kitchens import CHALLENGES, RELEASES, Options
from crossview.datasets.synthetic.config import PHASES
from crossview.errors import UserError

from . import files

PARTICIPANTS = {"train": ("P01", "P02"), "val": ("P01", "P18"), "test": ("P01", "P33")}
RATES = {"P01_01": 60000 / 1001, "P01_101": 50.0, "P02_02": 30000 / 1001}
"""Videos that are encoded at the rates of the real ones; the others are the films."""
FRAMES = "P02_01"
"""The video that is there as frames alone."""
_COLUMNS = (
    "narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp",
    "start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class", "all_nouns",
    "all_noun_classes",
)  # fmt: skip
_COLUMNS_55 = (
    "uid", "participant_id", "video_id", "narration", "start_timestamp", "stop_timestamp", "start_frame", "stop_frame",
    "verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes",
)  # fmt: skip
_PAIRS = {
    phase: (phase.split("_")[0], (phase.split("_") + action.split("_"))[-1 if "_" not in phase else 1])
    for action, phases in PHASES.items()
    for phase in phases
}
"""Verb and noun of each phase."""
_VERBS = sorted({verb for verb, _ in _PAIRS.values()})
_NOUNS = sorted({noun for _, noun in _PAIRS.values()})


def export(world: Catalog, out: Path) -> Options:
    """The first ego film of each take, in EPIC-KITCHENS; both annotations and epic_100_splits.csv beside it."""
    takes: dict[str, Recording] = {}
    for recording in world.recordings:
        if recording.perspective == "ego":
            takes.setdefault(recording.scene, recording)
    rows: dict[str, list[list[object]]] = {split: [] for split in PARTICIPANTS}
    splits: list[tuple[str, str]] = []
    used: dict[str, int] = {}
    for number, recording in enumerate(takes.values()):
        split = world.split_of(recording) or "train"
        video = _name(split, number, used)
        splits.append((video, split))
        _film(world, recording, out / "EPIC-KITCHENS", video)
        phases = [s for s in world.segments if s.recording == recording.id and s.name == "phase"]
        rows[split] += _rows(video, phases, recording.num_frames / recording.fps)
    rows["train"] += _rows("P04_01", phases, recording.num_frames / recording.fps)  # listed, and not there
    folder = out / "epic-kitchens-100-annotations"
    folder.mkdir(exist_ok=True)
    for split, name in RELEASES["100"].splits.items():
        columns = 8 if split == "test" else len(_COLUMNS)
        _write(folder / name, [_COLUMNS[:columns], *(row[:columns] for row in rows[split])])
    for kind, names in _classes("100").items():
        listed = [[k, name, str([name, f"{name}:more"]), "any"] for k, name in enumerate(names)]
        _write(folder / f"EPIC_100_{kind}_classes.csv", [["id", "key", "instances", "category"], *listed])
    _annotate_55(rows, out / "epic-kitchens-55-annotations")
    flags = ["ar_train", "ar_val", "ar_test", *(column for of in CHALLENGES.values() for column in of)]
    listed = [[video, *(str(flag in _flags(video, split)).upper() for flag in flags)] for video, split in splits]
    _write(out / "epic_100_splits.csv", [["video_id", *flags], *listed])
    return Options(root=out, splits=out / "epic_100_splits.csv")


def _classes(release: str) -> dict[str, list[str]]:
    """The world's verbs and nouns, and as many others as the release has."""
    named = zip(("verb", "noun"), (_VERBS, _NOUNS), RELEASES[release].counts, strict=True)
    return {kind: [*known, *(f"{kind}-{k}" for k in range(len(known), count))] for kind, known, count in named}


def _annotate_55(rows: dict[str, list[list[object]]], folder: Path) -> None:
    """The original videos: val's are the tests, of kitchens that train has and that it has not."""
    parts: dict[str, list[dict[str, object]]] = {split: [] for split in RELEASES["55"].splits}
    for split in ("train", "val"):
        for values in (dict(zip(_COLUMNS, row, strict=True)) for row in rows[split]):
            seen = "test_s1" if values["participant_id"] in PARTICIPANTS["train"] else "test_s2"
            if len(str(values["video_id"])) == len("P01_01"):
                parts["train" if split == "train" else seen].append(values)
    folder.mkdir(exist_ok=True)
    uid = 0
    for split, name in RELEASES["55"].splits.items():
        columns = [c for c in _COLUMNS_55[:8] if c != "narration"] if split != "train" else _COLUMNS_55
        listed = [[uid + k, *(values[c] for c in columns[1:])] for k, values in enumerate(parts[split])]
        uid += len(listed)
        _write(folder / name, [columns, *listed])
    for kind, names in _classes("55").items():
        listed = [[k, name, str([name, f"{name}-more"])] for k, name in enumerate(names)]
        _write(folder / f"EPIC_{kind}_classes.csv", [[f"{kind}_id", "class_key", f"{kind}s"], *listed])


def _name(split: str, number: int, used: dict[str, int]) -> str:
    """Of original videos and, for every third take of train and all of test, of the extension."""
    person = PARTICIPANTS[split][number % 2]
    extension = split == "test" or (split == "train" and number % 3 == 2)
    used[f"{person}{extension}"] = count = used.get(f"{person}{extension}", 0) + 1
    if count > 99:
        raise UserError(
            "layout epic_kitchens: a participant has 100 videos, and their numbers have two digits; ask for fewer takes"
        )
    return f"{person}_{100 + count}" if extension else f"{person}_{count:02d}"


def _film(world: Catalog, recording: Recording, root: Path, video: str) -> None:
    rate = 60.0 if video == FRAMES else RATES.get(video)
    folder = root / video[:3]
    if rate is None:
        files.link(world, recording, folder / "videos" / f"{video}.MP4")
        return
    count = int(recording.num_frames / recording.fps * rate)
    shown = files.pictures(world, recording)[(np.arange(count) * recording.fps / rate).astype(int)]
    if video == FRAMES:
        names = (f"frame_{number:010d}.jpg" for number in range(1, count + 1))
        files.images(shown, folder / "rgb_frames" / video, names)
    else:
        target = files.encode(shown, folder / "videos" / f"{video}.mp4", rate)
        target.replace(target.with_suffix(".MP4"))


def _rows(video: str, phases: Iterable[Segment], length_s: float) -> Iterable[list[object]]:
    """A row per phase, which reaches 0.1 s into the next one."""
    rate = 60 if len(video) == 6 else 50
    for k, phase in enumerate(phases):
        verb, noun = _PAIRS[phase.label]
        start_s, stop_s = phase.start_s, min(phase.end_s + 0.1, length_s)
        frames = (max(1, int(start_s * rate)), max(1, int(stop_s * rate)))
        times = [_time(s) for s in (start_s, start_s, stop_s)]
        number = _NOUNS.index(noun)
        yield [
            f"{video}_{k}", video[:3], video, *times, *frames, f"{verb} {noun}, then wait",
            verb, _VERBS.index(verb), noun, number, str([noun, noun]), str([number, number]),
        ]  # fmt: skip


def _time(seconds: float) -> str:
    hundredths = int(seconds * 100)
    return f"00:{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def _flags(video: str, split: str) -> set[str]:
    """Columns of the splits' table that are true; the source is original videos, and the target the extension."""
    extension = len(video) > 6
    mine = {f"ar_{split}"}
    if split != "test":
        mine.add("cmr_train" if split == "train" else "cmr_test")
    if extension:
        mine.add(f"da_target_{'train' if split == 'train' else 'test'}")
    else:
        mine.add(f"da_source_{'train' if split == 'train' else 'test'}")
    return mine


def _write(file: Path, rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", newline="") as stored:
        csv.writer(stored, lineterminator="\n").writerows(rows)
