"""Ego-Exo4D: takes of one glasses' three streams and four exo cameras, of which some are missing, short or 448 px."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.egoexo4d import Options

from . import files

STREAMS = {"head": ("rgb", "214-1"), "temple_left": ("slam-left", "1201-1"), "temple_right": ("slam-right", "1201-2")}
EXO = ("exo1", "exo2", "exo3", "exo4")
SCENARIO = "Cooking"


def export(world: Catalog, out: Path) -> Options:
    """Takes of the world; its actions are tasks, its phases keysteps, the last of which is not in the benchmark."""
    takes: dict[str, dict[str, Recording]] = {}
    for recording in world.recordings:
        takes.setdefault(recording.scene, {})[recording.view] = recording
    phases = world.all_classes()["phase"]
    facts, splits = [], {"not-in-takes-json": "train"}
    for number, (scene, views) in enumerate(takes.items()):
        first = next(iter(views.values()))
        take = _take(number, scene, views, first)
        splits[take["take_uid"]] = world.split_of(first) or "train"
        _videos(world, out, number, take, views)
        facts.append(take)
    _write(out / "takes.json", facts)
    notes = out / "annotations"
    _write(notes / "splits.json", {
        "take_uid_to_split": splits,
        "split_to_take_uids": {split: [u for u in splits if splits[u] == split] for split in ("train", "val", "test")},
    })  # fmt: skip
    bench = notes / "keystep_benchmark"
    bench.mkdir(parents=True, exist_ok=True)
    with (bench / "label_mapping.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\r\n")
        rows.writerow(("label_id", "step_unique_id", "step_name", "scenario_name"))
        rows.writerows((k, 800 + k, phase, SCENARIO) for k, phase in enumerate(phases[:-1]))
    of_world = {name: [s for s in world.segments if s.name == "phase" and s.recording == next(iter(views.values())).id]
                for name, views in takes.items()}  # fmt: skip
    for split in ("train", "val", "test"):
        its = [take for take in facts if splits[take["take_uid"]] == split]
        spans = {take["take_uid"]: of_world[take["world_scene"]] for take in its}
        names = {take["take_uid"]: take["take_name"] for take in its}
        _labels(notes, split, names, spans, phases)
    return Options(root=out)


def _take(number: int, scene: str, views: dict[str, Recording], first: Recording) -> dict[str, Any]:
    """An entry of takes.json. Every third take has a GoPro on the body too, whose flag is a text."""
    glasses = f"aria{1 + number % 3:02d}"
    worn = {"chest": "cam05"} if number % 3 == 2 and "chest" in views else {}
    aligned: dict[str, Any] = {glasses: {}}
    for view, (stream, code) in STREAMS.items():
        if view in views:
            aligned[glasses][stream] = _video(glasses, code, stream, f"{glasses}_{code}")
    gopros = {**{view: f"cam{k:02d}" for k, view in enumerate(EXO, 1) if view in views}, **worn}
    aligned |= {camera: {"0": _video(camera, "0", "0", camera)} for camera in gopros.values()}
    aligned["collage"] = {"0": _video("collage", "0", "0", None) | {"relative_path": "ego_preview.mp4"}}
    aligned["best_exo"] = {"0": _video("best_exo", "0", "0", None)}
    cameras = [{"cam_id": glasses, "is_ego": True, "device_type": "aria"}]
    cameras += [
        {"cam_id": camera, "is_ego": "true" if camera in worn.values() else False, "device_type": "hero10"}
        for camera in gopros.values()
    ]
    name = f"synthetic_{first.action}_{number // 2:02d}_{1 + number % 2}"
    return {
        "take_uid": f"{number:08x}-0000-4000-8000-000000000000", "take_name": name, "root_dir": f"takes/{name}",
        "capture": {"capture_name": f"synthetic_{number // 2:02d}", "cameras": cameras},
        "frame_aligned_videos": aligned, "task_id": None if number == 1 else 1001, "task_name": first.action,
        "parent_task_name": None, "participant_uid": None if number == 1 else first.subject,
        "duration_sec": first.num_frames / first.fps, "best_exo": "cam04" if number % 2 else None,
        "is_dropped": False, "vrs_relative_path": None, "world_scene": scene,
    }  # fmt: skip


def _video(camera: str, code: str, stream: str, name: str | None) -> dict[str, Any]:
    return {"cam_id": camera, "stream_id": code, "readable_stream_id": stream, "clip_uid": None,
            "relative_path": name and f"frame_aligned_videos/{name}.mp4"}  # fmt: skip


def _videos(world: Catalog, out: Path, number: int, take: dict[str, Any], views: dict[str, Recording]) -> None:
    """Full videos of even takes, 448 px ones of all but the first; the first's ego video is two frames shorter."""
    folder = out / take["root_dir"] / "frame_aligned_videos"
    for camera, of in take["frame_aligned_videos"].items():
        for stream, video in of.items():
            view = _view(camera, stream)
            if view is None or (number, camera) == (1, "cam03"):
                continue  # made from others, or not there
            name = Path(video["relative_path"]).name
            if number == 0 and view == "head":
                files.encode(files.pictures(world, views[view])[:-2], folder / name, views[view].fps)
            elif number % 2 == 0:
                files.link(world, views[view], folder / name)
            if number:
                files.link(world, views[view], folder / "downscaled" / "448" / name)
    (out / take["root_dir"] / "ego_preview.mp4").write_bytes(b"")


def _view(camera: str, stream: str) -> str | None:
    """The world's camera."""
    if camera == "cam05":
        return "chest"
    if camera.startswith("cam"):
        return EXO[int(camera[3:]) - 1]
    return next((view for view, (name, _) in STREAMS.items() if name == stream and camera.startswith("aria")), None)


def _labels(
    folder: Path, split: str, names: dict[str, str], spans: Mapping[str, Sequence[Any]], phases: Sequence[str]
) -> None:
    """Keysteps, the benchmark's segments and proficiency of one split; the test split has no label."""
    benchmark: list[dict[str, Any]] = []
    annotations: dict[str, Any] = {}
    for uid, its in spans.items():
        segments = [_segment(s.start_s, s.end_s, phases.index(s.label), s.label) for s in its]
        benchmark += [s | {"take_uid": uid, "label_id": s["step_unique_id"] - 800} for s in segments
                      if s["step_name"] != phases[-1]]  # fmt: skip
        empty = _segment(0.5, 0.5, 0, phases[0])
        annotations[uid] = {"take_uid": uid, "take_name": names[uid], "segments": [*segments, empty]}
    if split == "test":
        hidden = ("label_id", "step_unique_id", "step_name")
        benchmark = [{key: value for key, value in segment.items() if key not in hidden} for segment in benchmark]
    part = "test_unannotated" if split == "test" else split
    _write(folder / "keystep_benchmark" / f"keystep_segment_{part}.json", {"date": "240901", "segments": benchmark})
    if split == "test":
        return
    words = {str(800 + k): phase for k, phase in enumerate(phases)}
    _write(folder / f"keystep_{split}.json", {"annotations": annotations, "taxonomy": {}, "vocabulary": words})
    scores = [{"take_uid": uid, "proficiency_score": _score(k)} for k, uid in enumerate(spans)]
    _write(folder / f"proficiency_demonstrator_{split}.json", {"annotations": scores})


def _segment(start_s: float, end_s: float, number: int, name: str) -> dict[str, Any]:
    return {"start_time": start_s, "end_time": end_s, "step_unique_id": 800 + number, "step_name": name}


def _score(number: int) -> str:
    return ("Novice", "Early Expert", "Intermediate Expert", "Late Expert")[number % 4]


def _write(file: Path, facts: dict[str, Any] | Iterable[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts))
