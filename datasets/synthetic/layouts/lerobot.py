"""LeRobot v3.0, or v2.1: videos packed at each camera's own pace, stale counters, a depth camera, a missing file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.lerobot import Options

from . import files

PER_FILE = {"wrist": 3, "front": 5, "top": 8}
"""Episodes in a video of each camera: videos are filled to a size in bytes, which views reach at another pace."""
KEY = "observation.images."


def export(world: Catalog, out: Path, version: str = "v3.0") -> Options:
    """Takes as episodes, train first: the head camera as wrist, two exo cameras as front and top; actions as tasks."""
    takes: dict[str, dict[str, Recording]] = {}
    for recording in world.recordings:
        views = takes.setdefault(recording.scene, {})
        name = {"head": "wrist", "exo1": "front", "exo2": "top"}.get(recording.view)
        if name:
            views[name] = recording
    episodes = list(takes.values())
    splits = [world.split_of(views["wrist"]) for views in episodes]
    tasks = sorted({views["wrist"].action for views in episodes})
    first = episodes[0]["wrist"]
    packed = version.startswith("v3")
    _info(out, version, [*episodes[0]], first, len(tasks))
    (_write_3 if packed else _write_2)(world, out, episodes, tasks)
    return Options(root=out, val_share=sum(split != "train" for split in splits) / len(splits))


def _info(out: Path, version: str, views: Sequence[str], like: Recording, tasks: int) -> None:
    """meta/info.json: the counters are those of a larger dataset, and a depth camera is only told by a flag."""
    info = {"video.fps": like.fps, "video.codec": "h264", "video.pix_fmt": "yuv420p", "has_audio": False}
    height, width = like.height_px, like.width_px
    features: dict[str, Any] = {
        "action": {"dtype": "float32", "shape": [6], "names": None},
        **{
            KEY + view: {
                "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                "info": info | {"video.is_depth_map": False},
            }
            for view in views
        },
        f"{KEY}wrist_depth": {
            "dtype": "video", "shape": [1, height, width], "names": ["channel", "height", "width"],
            "video_info": info | {"video.is_depth_map": True},
        },
    }  # fmt: skip
    packed = version.startswith("v3")
    facts: dict[str, Any] = {
        "codebase_version": version, "robot_type": None, "total_episodes": 50, "total_frames": 14983,
        "total_tasks": tasks, "chunks_size": 1000 if packed else 4, "fps": int(like.fps), "splits": {"train": "0:50"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet" if packed
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if packed
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }  # fmt: skip
    meta = out / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "info.json").write_text(json.dumps(facts, indent=4))


def _write_2(world: Catalog, out: Path, episodes: Sequence[dict[str, Recording]], tasks: Sequence[str]) -> None:
    """A video per episode and camera, four episodes to a chunk; tables are lines of JSON."""
    rows = []
    for number, views in enumerate(episodes):
        for view, recording in views.items():
            if (number, view) != (1, "top"):
                folder = out / "videos" / f"chunk-{number // 4:03d}" / (KEY + view)
                files.link(world, recording, folder / f"episode_{number:06d}.mp4")
        rows.append({"episode_index": number, "tasks": [views["wrist"].action], "length": views["wrist"].num_frames})
    numbered = [{"task_index": number, "task": task} for number, task in enumerate(tasks)]
    for name, lines in (("episodes", rows), ("tasks", numbered)):
        (out / "meta" / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))


def _write_3(world: Catalog, out: Path, episodes: Sequence[dict[str, Recording]], tasks: Sequence[str]) -> None:
    """Episodes one after the other in videos, whose packets are copied; tables are Parquet."""
    rows: list[dict[str, Any]] = []
    for number, views in enumerate(episodes):
        length = views["wrist"].num_frames
        index = {"data/chunk_index": 0, "data/file_index": 0, "meta/episodes/chunk_index": 0}
        rows.append({"episode_index": number, "tasks": [views["wrist"].action], "length": length, **index,
                     "stats/action/mean": [0.0] * 6})  # fmt: skip
    for view, most in PER_FILE.items():
        if view not in episodes[0]:
            continue
        for file, start in enumerate(range(0, len(episodes), most)):
            films = [views[view] for views in episodes[start : start + most]]
            target = out / "videos" / (KEY + view) / "chunk-000" / f"file-{file:03d}.mp4"
            if view == "top" and file == 1:
                target.unlink(missing_ok=True)  # not downloaded
            else:
                concatenate([world.file(film) for film in films], target)
            before = 0
            for row, film in zip(rows[start : start + most], films, strict=True):
                place = {"chunk_index": 0, "file_index": file, "from_timestamp": before / film.fps}
                before += film.num_frames
                place["to_timestamp"] = before / film.fps
                row |= {f"videos/{KEY}{view}/{name}": value for name, value in place.items()}
    episodes_file = out / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    episodes_file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), episodes_file)
    numbered = pa.table({"task_index": range(len(tasks)), "__index_level_0__": list(tasks)})
    pq.write_table(numbered, out / "meta" / "tasks.parquet")


def concatenate(films: Sequence[Path], target: Path) -> Path:
    """The packets of equally encoded films of a constant rate, one after the other in one file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w") as container:
        stream, before = None, 0
        for film in films:
            with av.open(str(film)) as source:
                video = source.streams.video[0]
                stream = stream or container.add_stream_from_template(video)
                step = round(1 / (video.average_rate * video.time_base))  # type: ignore[operator]
                frames = 0
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue  # the end of the file
                    packet.pts, packet.dts = packet.pts + before, packet.dts + before
                    packet.stream = stream
                    container.mux(packet)
                    frames += 1
                before += frames * step
    return target
