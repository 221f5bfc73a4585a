"""Assembly101: videos by recording and camera, both headsets, coarse and fine annotations, and features in LMDBs.

Its quirks: a recording without headset, a truncated headset file, gray headset pictures, 60 frames per second against
30 of annotations, double tabs, CRLF, labels of three and four fields, withheld labels, files that are not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np
from PIL import Image

from crossview.datasets.assembly101 import EXO, FPS, HEADSETS, WIDTH, Options
from crossview.datasets.catalog import Catalog, Segment

from . import files

EGO_VIEWS = ("head", "chest", "temple_left", "temple_right")
WITH_FEATURES = 2
"""Scenes per split."""
VERBS = ("begin", "finish")
"""Of fine actions, the halves of a coarse one."""


class Scene(NamedTuple):
    """A take of the world: its recording's name, its films by camera, and its phases."""

    name: str
    split: str
    toy: str
    films: dict[str, int]
    phases: list[Segment]


def export(world: Catalog, out: Path) -> Options:
    """Takes are recordings, actions toys, phases coarse actions; features are small gray pictures."""
    scenes = list(_scenes(world))
    for number, scene in enumerate(scenes):
        for camera, i in scene.films.items():
            recording, target = world.recordings[i], out / "recordings" / scene.name / f"{camera}.mp4"
            if number:
                files.link(world, recording, target)
                continue
            shown = _pictures(world, scenes, scene, camera)
            if camera.startswith("HMC"):
                shown = np.repeat(shown.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
            files.encode(np.repeat(shown, round(2 * FPS / recording.fps), axis=0), target, 2 * FPS)
    _write_features(world, scenes, out / "TSM_features")
    _write_coarse(scenes, out / "annotations" / "coarse-annotations")
    _write_fine(scenes, out / "annotations" / "fine-grained-annotations")
    return Options(root=out, annotations=out / "annotations")


def _pictures(world: Catalog, scenes: list[Scene], scene: Scene, camera: str) -> np.ndarray:
    """Of one film: uint8 (T, H, W, 3); one of the headset's cameras stopped half way in the first scene."""
    shown = files.pictures(world, world.recordings[scene.films[camera]])
    stopped = scene is scenes[0] and camera == f"HMC_{HEADSETS[0][2]}_mono10bit"
    return shown[: len(shown) // 2] if stopped else shown


def _scenes(world: Catalog) -> Iterator[Scene]:
    by_scene: dict[str, list[int]] = {}
    for i, recording in enumerate(world.recordings):
        by_scene.setdefault(recording.scene, []).append(i)
    phases: dict[str, list[Segment]] = {}
    for segment in world.segments:
        if segment.name == "phase":
            phases.setdefault(segment.recording, []).append(segment)
    actions = sorted({r.action for r in world.recordings})
    splits = [world.split_of(world.recordings[of[0]]) or "train" for of in by_scene.values()]
    bare = max((k for k, split in enumerate(splits) if split == "train"), default=0)
    for number, (split, of) in enumerate(zip(splits, by_scene.values(), strict=True)):
        first = world.recordings[of[0]]
        toy, person = f"{'abc'[number % 3]}{1 + actions.index(first.action):02d}", 9011 + number % 30
        name = f"nusar-2021_action_both_{person}-{toy}_{person}_user_id_2021-02-01_{100000 + number}"
        films: dict[str, int] = {}
        exo = (f"{camera}_rgb" for camera in EXO)
        for i in of:
            recording = world.recordings[i]
            if recording.perspective == "exo":
                films[next(exo)] = i
            elif number != bare or number == 0:
                films[f"HMC_{HEADSETS[number % 2][EGO_VIEWS.index(recording.view)]}_mono10bit"] = i
        yield Scene(name, split, toy, films, phases.get(first.id, []))


def _frame(time_s: float) -> int:
    """Counted from 1."""
    return round(time_s * FPS) + 1


def _write(file: Path, lines: list[str], end: str = "\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(end.join(lines) + end, encoding="utf-8", newline="")


def _words(phase: str) -> tuple[str, str, str]:
    """Verb, noun and action."""
    verb, _, noun = phase.partition("_")
    return verb, noun or "toy", phase.replace("_", " ")


def _write_coarse(scenes: list[Scene], folder: Path) -> None:
    phases = sorted({segment.label for scene in scenes for segment in scene.phases})
    verbs, nouns = (sorted({_words(phase)[k] for phase in phases}) for k in (0, 1))
    rows = ["action_id,verb_id,noun_id,action_cls,verb_cls,noun_cls"]
    for k, (verb, noun, action) in enumerate(map(_words, phases)):
        rows.append(f"{k},{verbs.index(verb)},{nouns.index(noun)},{action},{verb},{noun}")
    _write(folder / "actions.csv", rows, "\r\n")
    views: list[str] = []
    absent = "nusar-2021_action_both_9099-c09a_9098_user_id_2021-02-23_130000"
    for part, which in (("assembly", slice(0, 2)), ("disassembly", slice(2, None))):
        for split in ("train", "val", "test"):
            lines = []
            for number, scene in enumerate(scenes):
                if scene.split != split or (part == "assembly" and number == 1):
                    continue  # a recording may have one of the sequences
                name, fields = f"{part}_{scene.name}", ["-", scene.toy, "-"]
                lines.append("\t".join([f"{name}.txt", "", *(fields if split == "train" else ["shared", scene.toy])]))
                views += [f"{name}/{camera}.mp4" for camera in scene.films]
                spans = [
                    f"{_frame(s.start_s):09d}\t{_frame(s.end_s):09d}\t{_words(s.label)[2]}" + "\tcorrect" * (number % 2)
                    for s in scene.phases[which]
                ]
                if split == "test":  # labels are withheld
                    spans = [span.rsplit("\t", 1 + number % 2)[0] for span in spans]
                _write(folder / "coarse_labels" / f"{name}.txt", spans)
            if split == "train":
                lines.append(f"{part}_{absent}.txt\t\t-\tc09a\t-")
                views += [f"{part}_{absent}/{EXO[0]}_rgb.mp4"]
            _write(folder / "coarse_splits" / f"{split}_coarse_{part}.txt", ["\n".join(lines)], end="")
    _write(folder / "coarse_seq_views.txt", views)


def _write_fine(scenes: list[Scene], folder: Path) -> None:
    phases = sorted({segment.label for scene in scenes for segment in scene.phases})
    names = [(f"{verb} {phase.replace('_', ' ')}", verb, phase.replace("_", " ")) for phase in phases for verb in VERBS]
    ids = [f"{k},{VERBS.index(verb)},{k // len(VERBS)},{a},{verb},{noun}" for k, (a, verb, noun) in enumerate(names)]
    header = "action_id,verb_id,noun_id,action_cls,verb_cls,noun_cls"
    _write(folder / "actions.csv", [f"id,{header}", *(f"{k},{row}" for k, row in enumerate(ids))])
    for split, stem in (("train", "train"), ("val", "validation"), ("test", "test")):
        labels = "" if split == "test" else f"{header},"
        rows = [f"id,video,start_frame,end_frame,{labels}toy_id,toy_name,is_shared,is_RGB"]
        for scene in scenes:
            if scene.split != split:
                continue
            for segment in scene.phases:
                middle = (segment.start_s + segment.end_s) / 2
                for k, (start_s, end_s) in enumerate(((segment.start_s, middle), (middle, segment.end_s))):
                    label = "" if split == "test" else f"{ids[phases.index(segment.label) * len(VERBS) + k]},"
                    for camera in scene.films:
                        rows.append(
                            f"{len(rows) - 1},{scene.name}/{camera}.mp4,{_frame(start_s)},{_frame(end_s)},"
                            f"{label}{scene.toy},toy,0,{int(camera.endswith('rgb'))}"
                        )
        _write(folder / f"{stem}.csv", rows)


def _write_features(world: Catalog, scenes: list[Scene], folder: Path) -> None:
    """Gray pictures of 64 x 32 values, repeated to 30 per second, of the first scenes of each split."""
    chosen: list[Scene] = []
    for scene in scenes:
        if sum(other.split == scene.split for other in chosen) < WITH_FEATURES:
            chosen.append(scene)
    for camera in sorted({camera for scene in chosen for camera in scene.films}):
        (folder / camera).mkdir(parents=True, exist_ok=True)
        with lmdb.open(str(folder / camera), map_size=2**34) as env, env.begin(write=True) as writing:
            for scene in chosen:
                if camera not in scene.films:
                    continue
                recording = world.recordings[scene.films[camera]]
                for k, picture in enumerate(_pictures(world, scenes, scene, camera)):
                    small = Image.fromarray(picture).convert("L").resize((64, WIDTH // 64))
                    value = (np.asarray(small, "<f4") / 255).tobytes()
                    repeats = round(FPS / recording.fps)
                    for frame in range(k * repeats + 1, (k + 1) * repeats + 1):
                        writing.put(f"{scene.name}/{camera}/{camera}_{frame:010d}.jpg".encode(), value)
