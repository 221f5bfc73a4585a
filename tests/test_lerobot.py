"""LeRobot v2.1 and v3.0: which frames an episode is, which camera is ego, which episodes validate, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fuzzed_json
import layout_world
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import videos
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets import lerobot
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.lerobot import Options
from crossview.datasets.synthetic.layouts import files
from crossview.datasets.synthetic.layouts import lerobot as layout
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted
from crossview.errors import UserError

LENGTHS = (7, 5, 9)
STARTS = (0, 7, 12)
TASKS = ("pick up the cube", "open the drawer")
WRIST, FRONT, DEPTH = (f"observation.images.{name}" for name in ("wrist", "front", "wrist_depth"))
FPS = 30


def film(path: Path, first: int, count: int) -> None:
    """Frames that show their number among those of all episodes."""
    files.encode((videos.picture(k, 48, 64) for k in range(first, first + count)), path, FPS)


def info(root: Path, version: str, **other: Any) -> None:
    packed = version == "v3.0"
    facts = {
        "codebase_version": version, "robot_type": "so100", "total_episodes": 50, "total_frames": 14983,
        "chunks_size": 2, "fps": FPS, "splits": {"train": "0:50"},
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if packed
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [6], "names": {"motors": []}},
            FRONT: {"dtype": "video", "shape": [3, 48, 64], "names": None, "info": {"video.is_depth_map": False}},
            WRIST: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]},
            DEPTH: {"dtype": "video", "shape": [48, 64, 1], "names": None, "video_info": {"is_depth_map": True}},
        },
    } | other  # fmt: skip
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(facts))


def write_2(root: Path) -> Path:
    info(root, "v2.1")
    rows = [{"episode_index": k, "tasks": [TASKS[k % 2]], "length": length} for k, length in enumerate(LENGTHS)]
    (root / "meta" / "episodes.jsonl").write_text("".join(json.dumps(row) + "\r\n" for row in rows))
    tasks = [json.dumps({"task_index": k, "task": task}) for k, task in enumerate(TASKS)]
    (root / "meta" / "tasks.jsonl").write_text("\ufeff" + "\n".join(tasks), encoding="utf-8")
    for key in (WRIST, FRONT):
        for k, length in enumerate(LENGTHS):
            film(root / f"videos/chunk-{k // 2:03d}/{key}/episode_{k:06d}.mp4", STARTS[k], length)
    return root


def rows_3() -> list[dict[str, Any]]:
    """As in a v3.0 table: the wrist's third episode begins its second file."""
    rows = []
    for k, length in enumerate(LENGTHS):
        row: dict[str, Any] = {"episode_index": k, "tasks": [TASKS[k % 2]], "length": length,
                               "data/chunk_index": 7, "data/file_index": 7, "stats/action/mean": [0.5]}  # fmt: skip
        for key, file, start in ((FRONT, 0, STARTS[k]), (WRIST, k // 2, STARTS[k] % 12)):
            row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": file,
                    f"videos/{key}/from_timestamp": start / FPS,
                    f"videos/{key}/to_timestamp": (start + length + 1) / FPS}  # fmt: skip
        rows.append(row)
    return rows


def tables_3(root: Path, rows: Sequence[dict[str, Any]], text: str = "task") -> None:
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    pq.write_table(pa.table({"task_index": [0, 1], text: list(TASKS)}), root / "meta/tasks.parquet")


def write_3(root: Path) -> Path:
    info(root, "v3.0")
    tables_3(root, rows_3())
    film(root / f"videos/{FRONT}/chunk-000/file-000.mp4", 0, 21)
    film(root / f"videos/{WRIST}/chunk-000/file-000.mp4", 0, 12)
    film(root / f"videos/{WRIST}/chunk-000/file-001.mp4", 12, 9)
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {"v2.1": write_2, "v3.0": write_3}


def made(root: Path, indices: Path | None = None, **options: Any) -> Catalog:
    return lerobot.catalog(Options(root=root, **options), prober=Prober(indices or root / "frame_index"))


@pytest.mark.parametrize("version", WRITERS)
def test_a_recording_is_the_frames_of_its_episode(tmp_path: Path, version: str) -> None:
    catalog = made(WRITERS[version](tmp_path))
    assert [(r.scene, r.view, r.perspective) for r in catalog.recordings] == [
        (f"episode_{k:06d}", view, perspective)
        for k in range(3)
        for view, perspective in (("wrist", "ego"), ("front", "exo"))
    ]
    for recording in catalog.recordings:
        k = int(recording.scene[-1])
        assert recording.num_frames == LENGTHS[k]
        assert (recording.start_s, recording.fps, recording.subject) == (0.0, FPS, recording.scene)
        assert recording.action == TASKS[k % 2]
        source = replace(catalog, folder=Path()).source(recording)
        (pixels,) = read_clips(source, [Wanted(np.arange(recording.num_frames))])
        shown = [videos.barcode(picture) for picture in pixels]
        assert shown == list(range(STARTS[k], STARTS[k] + LENGTHS[k])), (recording.view, k)
    assert catalog.classes["action"] == TASKS
    assert any("stale" in note and "total_episodes 50" in note for note in catalog.notes)
    assert any(DEPTH in note for note in catalog.notes)


def test_a_table_of_tasks_without_a_name_for_its_index(tmp_path: Path) -> None:
    root = write_3(tmp_path)
    tables_3(root, rows_3(), "__index_level_0__")
    assert made(root).classes["action"] == TASKS


def test_swapped_files_are_set_aside_with_episode_and_row(tmp_path: Path) -> None:
    root = write_3(tmp_path)
    rows = rows_3()
    for row in rows:
        row[f"videos/{WRIST}/file_index"] = 1 - row[f"videos/{WRIST}/file_index"]
    tables_3(root, rows)
    (broken,) = made(root).quarantined
    assert broken.path == f"videos/{WRIST}/chunk-000/file-001.mp4"
    assert "row 2: episode 1 is frames 7 to 11" in broken.reason
    assert "has 9" in broken.reason


@pytest.mark.parametrize("begins", [9, 10])  # 11 is rounding
def test_overlapping_episodes_are_refused(tmp_path: Path, begins: int) -> None:
    root = write_3(tmp_path)
    rows = rows_3()
    rows[2][f"videos/{FRONT}/from_timestamp"] = begins / FPS
    tables_3(root, rows)
    with pytest.raises(UserError, match=rf"row 2: episode 1 is frames 7 to 11 of .*front.*another begins at {begins}"):
        made(root)


def test_a_frame_that_rounding_gives_to_two_episodes_is_the_later_ones(tmp_path: Path) -> None:
    root = write_3(tmp_path)
    rows = rows_3()
    rows[1][f"videos/{FRONT}/from_timestamp"] = 6 / FPS
    tables_3(root, rows)
    spans = {(r.scene[-1], r.view): (r.first_frame, r.num_frames) for r in made(root).recordings}
    assert spans["0", "front"] == (0, 6)
    assert spans["1", "front"] == (6, 5)


def test_times_of_the_tables_are_rounded(tmp_path: Path) -> None:
    root = write_3(tmp_path)
    rows = rows_3()
    rows[1][f"videos/{FRONT}/from_timestamp"] = 0.233
    rows[2][f"videos/{FRONT}/from_timestamp"] = 0.401
    tables_3(root, rows)
    spans = {(r.scene[-1], r.view): (r.first_frame, r.num_frames) for r in made(root).recordings}
    assert [spans[k, "front"] for k in "012"] == list(zip(STARTS, LENGTHS, strict=True))


@pytest.mark.parametrize("frames", [4, 6])
def test_a_video_of_another_length_is_set_aside(tmp_path: Path, frames: int) -> None:
    root = write_2(tmp_path)
    film(root / f"videos/chunk-000/{WRIST}/episode_000001.mp4", 7, frames)
    catalog = made(root)
    (broken,) = catalog.quarantined
    assert "episodes.jsonl, line 2: episode 1 is frames 0 to 4" in broken.reason
    assert [r.view for r in catalog.recordings if r.scene == "episode_000001"] == ["front"]


def test_frames_of_no_episode_are_told(tmp_path: Path) -> None:
    root = write_3(tmp_path)
    tables_3(root, rows_3()[:2])
    assert any("in no episode: 9 frames of 1 videos" in note for note in made(root).notes)


def test_missing_videos_are_counted(tmp_path: Path) -> None:
    root = write_3(tmp_path)
    (root / f"videos/{FRONT}/chunk-000/file-000.mp4").unlink()
    catalog = made(root)
    assert {r.view for r in catalog.recordings} == {"wrist"}
    assert any(note.startswith("videos: 2 of 3 listed are here; missing: 1") for note in catalog.notes)
    for file in root.rglob("*.mp4"):
        file.unlink()
    with pytest.raises(UserError, match=r"no video is here; looked for videos/observation\.images\.wrist"):
        made(root)


def test_images_in_folders(tmp_path: Path) -> None:
    root = write_2(tmp_path)
    features = {
        WRIST: {"dtype": "image", "shape": [48, 64, 3]},
        FRONT: {"dtype": "image", "shape": [48, 64, 3]},
    }
    info(root, "v2.1", features=features, video_path=None)
    for k, length in enumerate(LENGTHS):
        pictures = [videos.picture(STARTS[k] + frame, 48, 64) for frame in range(length)]
        names = [f"frame_{frame:06d}.png" for frame in range(length)]
        files.images(pictures, root / f"images/{WRIST}/episode_{k:06d}", names)
    catalog = made(root)
    assert [(r.view, r.kind, r.num_frames, r.fps) for r in catalog.recordings] == [
        ("wrist", "frames", length, FPS) for length in LENGTHS
    ]
    assert any("inside Parquet" in note and FRONT in note for note in catalog.notes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"wrist": "ego", "front": "exo"}),
        ({"ego": ("front",)}, {"front": "ego", "wrist": "exo"}),
        ({"ego": (FRONT, "*wris?")}, {"front": "ego", "wrist": "ego"}),
        ({"exo": ("front",)}, {"wrist": "ego", "front": "exo"}),
    ],
)
def test_cameras_as_chosen(tmp_path: Path, options: dict[str, Any], expected: dict[str, str]) -> None:
    catalog = made(write_2(tmp_path), **options)
    views = [(r.view, r.perspective) for r in catalog.recordings if r.scene == "episode_000000"]
    assert views == list(expected.items())


@pytest.mark.parametrize(
    ("key", "ego"),
    [
        ("wrist_left", True), ("cam_right_wrist", True), ("hand_right", True), ("robot0_eye_in_hand", True),
        ("gripper", True), ("cam_high", False), ("overhead", False), ("behind", False), ("handle", False),
        ("image2", False), ("head", False), ("front", False),
    ],
)  # fmt: skip
def test_names_of_wrist_cameras(key: str, ego: bool) -> None:
    assert bool(lerobot.WRIST.search(key)) == ego


def test_views_are_named_without_what_all_keys_begin_with() -> None:
    assert lerobot.Camera("observation.image", "exo").view == "image"
    assert lerobot.Camera("observation.images.cam_high", "exo").view == "cam_high"
    assert lerobot.Camera("top", "exo").view == "top"


def splits(catalog: Catalog) -> list[str | None]:
    of = {r.scene: catalog.split_of(r) for r in catalog.recordings}
    return [of[scene] for scene in sorted(of)]


def test_which_episodes_validate(tmp_path: Path) -> None:
    root = write_2(tmp_path)
    kept = tmp_path / "kept"
    assert splits(made(root, kept)) == ["train", "train", "val"]
    assert splits(made(root, kept, val_share=0.67)) == ["train", "val", "val"]
    assert splits(made(root, kept, val_share=0.0)) == ["train"] * 3
    assert splits(made(root, kept, val_tasks=(TASKS[0],))) == ["val", "train", "val"]
    info(root, "v2.1", splits={"train": "0:1", "test": "1:2"})
    assert splits(made(root, kept)) == ["train", "test", None]
    for text in (("1", "as '0:50'"), ("0:2", "episode 1 is in splits train and test")):
        info(root, "v2.1", splits={"train": text[0], "test": "1:2"})
        with pytest.raises(UserError, match=text[1]):
            made(root, kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ego": ("elbow",)}, r"--ego elbow: no camera is named so; .*info\.json has .*front, .*wrist"),
        ({"ego": ("wrist",), "exo": ("*",)}, r"is both --ego and --exo"),
        ({"exo": ("wrist", "front")}, r"no camera is ego; its cameras are .*front, .*wrist; .*_depth: name those"),
        ({"val_tasks": ("dance",)}, r"--val-tasks 'dance': no episode has this task; tasks: open the drawer; pick"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    root = write_2(tmp_path)
    with pytest.raises(UserError, match=message):
        made(root, **options)


def test_the_robot_as_the_subject(tmp_path: Path) -> None:
    assert {r.subject for r in made(write_2(tmp_path), subjects="robot").recordings} == {"so100"}


def test_a_share_outside_its_range(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val_share is 1; it is a share"):
        Options(root=tmp_path, val_share=1.0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"codebase_version": "v1.6"}, r"codebase_version is 'v1\.6'; v2\.0, v2\.1 and v3\.0"),
        ({"codebase_version": None}, r"info\.json: codebase_version is None; it must be a text"),
        ({"fps": "30"}, r"fps is '30'; it must be a number"),
        ({"fps": 0}, r"fps is 0; it must be above 0"),
        ({"features": []}, r"features is \[\]; it must be an object"),
        ({"video_path": "../{video_key}.mp4"}, r"video_path is '\.\./\{video_key\}\.mp4'; it must be a path below"),
        ({"video_path": "/{video_key}.mp4"}, r"must be a path below"),
        ({"video_path": "{video_key.__class__}"}, r"must be a path below"),
        ({"video_path": "{file_index:03d}"}, r"must be a path below"),
    ],
)
def test_broken_facts(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    root = write_2(tmp_path)
    info(root, "v2.1", **other)
    with pytest.raises(UserError, match=message):
        made(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"episodes\.jsonl, line 4: not JSON"),
        ("7", r"line 4: it is a int; it must be an object"),
        ("[" * 100_000, r"line 4: not JSON"),
        ('{"episode_index": 2, "tasks": [], "length": 9}', r"line 4: episode 2 is there twice, first in .*line 3"),
        ('{"episode_index": 3, "tasks": ["dance"], "length": 9}', r"line 4: task 'dance' is not among the 2"),
        ('{"episode_index": 3, "tasks": [{}], "length": 9}', r"line 4: task \{\} is not among the 2"),
        ('{"episode_index": 3, "tasks": [], "length": 0}', r"line 4: episode 3 has 0 frames"),
        ('{"episode_index": 3, "tasks": []}', r"line 4: length is missing; it must be a whole number"),
        ('{"episode_index": true, "tasks": [], "length": 2}', r"line 4: episode_index is True"),
    ],
)
def test_broken_lines(tmp_path: Path, line: str, message: str) -> None:
    root = write_2(tmp_path)
    with (root / "meta" / "episodes.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        made(root)


def test_broken_tables(tmp_path: Path) -> None:
    root = write_3(tmp_path)
    tables_3(root, [{k: v for k, v in row.items() if k != f"videos/{WRIST}/file_index"} for row in rows_3()])
    with pytest.raises(UserError, match=r"file-000\.parquet: the column 'videos/.*wrist/file_index' is missing"):
        made(root)
    file = root / "meta/tasks.parquet"
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"tasks\.parquet: not a readable Parquet file"):
        made(root)
    file.unlink()
    with pytest.raises(UserError, match=r"tasks\.parquet: the file is missing"):
        made(root)


def test_a_root_above_the_dataset_is_told_where_it_is(tmp_path: Path) -> None:
    write_2(tmp_path / "lerobot" / "pusht")
    with pytest.raises(UserError, match=r"meta/info\.json is missing, and a dataset is in .*lerobot/pusht;"):
        made(tmp_path)


def test_the_world_as_version_2(tmp_path: Path, films: Path) -> None:
    world = layout_world.world(films / "world")
    catalog = lerobot.catalog(layout.export(world, tmp_path, "v2.1"), prober=Prober(tmp_path / "frame_index"))
    assert not catalog.quarantined
    of_world = {r.num_frames for r in world.recordings}
    assert {r.num_frames for r in catalog.recordings} == of_world
    assert any("missing: 1" in note for note in catalog.notes)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_json_is_refused_by_name_or_read(tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path
    info(root, "v2.1")
    rows: list[Any] = [{"episode_index": k, "tasks": [TASKS[k % 2]], "length": n} for k, n in enumerate(LENGTHS)]
    tasks: list[Any] = [{"task_index": k, "task": task} for k, task in enumerate(TASKS)]
    facts = json.loads((root / "meta/info.json").read_text())
    whole = {"info": facts, "episodes": rows, "tasks": tasks}
    name = data.draw(st.sampled_from(sorted(whole)))
    whole[name] = fuzzed_json.changed(data, whole[name])
    (root / "meta/info.json").write_text(json.dumps(whole["info"]))
    for table in ("episodes", "tasks"):
        lines = whole[table] if isinstance(whole[table], list) else [whole[table]]
        (root / "meta" / f"{table}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(UserError, match=r"no video is here|info\.json|episodes\.jsonl|tasks\.jsonl|lists? no episode"):
        made(root)
