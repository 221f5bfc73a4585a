"""Ego-Exo4D: cameras, sizes, splits, three kinds of labels, features, and what is dropped or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fuzzed_json
import numpy as np
import pytest
import torch
import videos
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets import egoexo4d
from crossview.datasets._egoexo4d_labels import Annotations
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.egoexo4d import Options, read_takes
from crossview.errors import UserError

ARIA = {"rgb": "214-1", "slam-left": "1201-1", "et": "211-1"}


def streams(camera: str, ids: dict[str, str] | None = None) -> dict[str, Any]:
    """A camera's entry in frame_aligned_videos."""
    return {
        stream: {
            "cam_id": camera, "stream_id": number, "readable_stream_id": stream,
            "relative_path": f"frame_aligned_videos/{camera}{'' if number == '0' else f'_{number}'}.mp4",
        }
        for stream, number in (ids or {"0": "0"}).items()
    }  # fmt: skip


def take(name: str, worn: dict[str, Any], fixed: list[str], **other: Any) -> dict[str, Any]:
    aligned = {camera: streams(camera, ARIA if "aria" in camera else None) for camera in [*fixed, *worn]}
    made = {"0": {"clip_uid": None, "readable_stream_id": "0", "relative_path": None}}
    cameras = [{"cam_id": c, "is_ego": flag} for c, flag in {**dict.fromkeys(fixed, False), **worn}.items()]
    return {
        "take_uid": f"uid-{name}", "take_name": name, "root_dir": f"takes/{name}",
        "capture": {"capture_name": "shared", "cameras": cameras},
        "frame_aligned_videos": aligned | {"best_exo": made, "collage": {"0": {"relative_path": "ego_preview.mp4"}}},
        "task_name": "Remove a Wheel", "parent_task_name": "Bike Repair", "task_id": 4001, "participant_uid": 657,
    } | other  # fmt: skip


TAKES = [
    take("a", {"aria01": True}, ["cam01", "cam02", "cam03", "cam04"], best_exo="cam04"),
    take("b", {"aria02": True}, ["gp01", "gp02"], parent_task_name=None, participant_uid=None, task_id=None),
    take("c", {"cam05": "true", "aria01": "True"}, ["mobile"]),
]


def write(file: Path, facts: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts))


def annotations(root: Path) -> Path:
    """Labels of the takes: a step of no length, one beyond the ego video, and one of a take that is not listed."""
    notes = root / "annotations"
    write(
        notes / "splits.json",
        {"take_uid_to_split": {"uid-a": "train", "uid-b": "val", "uid-c": "test", "uid-x": "val"}},
    )
    (notes / "keystep_benchmark").mkdir()
    (notes / "keystep_benchmark/label_mapping.csv").write_bytes(
        b"\xef\xbb\xbflabel_id,step_unique_id,step_name,scenario_name\r\n"
        b'2,818,"Wash, then dry",Cooking\r\n0,820,Add oil,Bike Repair\r\n1,819,Add oil,Cooking'
    )
    segments = [
        {"take_uid": "uid-a", "start_time": 0.1, "end_time": 0.4, "label_id": 1, "step_name": "Add oil"},
        {"take_uid": "uid-a", "start_time": 0.2, "end_time": 0.5, "label_id": 2, "step_name": "Wash, then dry"},
        {"take_uid": "uid-a", "start_time": 0.2, "end_time": 0.5, "label_id": 3, "step_name": "?"},
    ]
    write(notes / "keystep_benchmark/keystep_segment_train.json", {"segments": segments})
    write(notes / "keystep_benchmark/keystep_segment_val.json", {"segments": []})
    hidden = [{"take_uid": "uid-c", "start_time": 0.0, "end_time": 0.3}]
    write(notes / "keystep_benchmark/keystep_segment_test_unannotated.json", {"segments": hidden})
    steps = [
        {"start_time": 0.1, "end_time": 0.6, "step_unique_id": 9},
        {"start_time": 0.3, "end_time": 0.3, "step_unique_id": 9},
        {"start_time": 0.62, "end_time": 0.9, "step_unique_id": 10},
        {"start_time": 0, "end_time": 0.2, "step_unique_id": 77},
    ]
    words = {"10": "Tighten bolt", "9": "Remove wheel", "11": "Tighten bolt"}
    labelled = {"uid-a": {"segments": steps}, "uid-x": {"segments": steps}}
    write(notes / "keystep_train.json", {"annotations": labelled, "taxonomy": {}, "vocabulary": words})
    write(notes / "proficiency_demonstrator_train.json",
          {"annotations": [{"take_uid": "uid-a", "proficiency_score": "Late Expert"}]})  # fmt: skip
    write(notes / "proficiency_demonstrator_val.json", [
        {"take_uid": "uid-b", "proficiency_score": "Novice"}, {"take_uid": "uid-c", "proficiency_score": "Master"},
    ])  # fmt: skip
    return root


def path(name: str, camera: str, small: bool = False) -> str:
    return f"takes/{name}/frame_aligned_videos/{'downscaled/448/' if small else ''}{camera}.mp4"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Take a in full and partly in 448 px, b without a camera, c in 448 px alone."""
    write(tmp_path / "takes.json", TAKES)
    for camera in ("cam01", "cam02", "cam03", "cam04", "aria01_1201-1"):
        videos.write(tmp_path / path("a", camera), frames=21, height=32, width=32)
    videos.write(tmp_path / path("a", "aria01_214-1"), frames=19, height=32, width=32)
    videos.write(tmp_path / path("a", "cam01", small=True), frames=21, height=16, width=32)
    for camera in ("aria02_214-1", "gp01"):
        videos.write(tmp_path / path("b", camera), frames=10, height=32, width=32)
    for camera in ("aria01_214-1", "cam05", "mobile"):
        videos.write(tmp_path / path("c", camera, small=True), frames=10, height=32, width=32)
    (tmp_path / "takes/a/ego_preview.mp4").write_bytes(b"")
    return annotations(tmp_path)


def made(root: Path, **options: Any) -> Catalog:
    return egoexo4d.catalog(Options(root=root, **options), prober=Prober(root / "frame_index"))


def views(catalog: Catalog, scene: str) -> list[tuple[str, str]]:
    return [(r.view, r.perspective) for r in catalog.recordings if r.scene == scene]


def test_cameras_of_takes(root: Path) -> None:
    catalog = made(root)
    assert views(catalog, "a") == [("ego", "ego"), *((f"cam{k:02d}", "exo") for k in range(1, 5))]
    assert views(catalog, "b") == [("ego", "ego"), ("gp01", "exo")]
    assert views(catalog, "c") == [("ego", "ego"), ("ego-cam05", "ego"), ("mobile", "exo")]
    by_scene = {r.scene: r for r in catalog.recordings}
    assert (by_scene["a"].action, by_scene["a"].subject) == ("Bike Repair", "657")
    assert (by_scene["b"].action, by_scene["b"].subject) == ("Remove a Wheel", "")
    assert {r.num_frames for r in catalog.recordings if r.scene == "a"} == {19, 21}
    assert any(note.startswith("videos: 10 of 11 listed are here; missing: 1 (takes/b/") for note in catalog.notes)
    assert "takes with several ego cameras: 1 (c)" in catalog.notes
    assert catalog.classes["action"] == ("Bike Repair", "Remove a Wheel")


def test_a_video_without_a_path_is_counted(root: Path) -> None:
    lost = take("d", {"aria01": True}, ["cam01"])
    lost["frame_aligned_videos"]["cam01"]["0"]["relative_path"] = None
    write(root / "takes.json", [*TAKES, lost])
    assert "videos without a path in takes.json: 1" in made(root).notes


def test_further_streams_follow_their_camera(root: Path) -> None:
    catalog = made(root, streams=("et", "slam-left"))
    assert views(catalog, "a")[:3] == [("ego", "ego"), ("ego-slam-left", "ego"), ("cam01", "exo")]


def test_sizes(root: Path) -> None:
    def heights(size: str) -> dict[str, int]:
        return {r.path: r.height_px for r in made(root, size=size).recordings}

    either, small, full = heights("any"), heights("448"), heights("full")
    assert either[path("a", "cam01", small=True)] == 16
    assert path("a", "cam01") not in either
    assert path("a", "cam02") in either
    assert all("/448/" in file for file in small)
    assert len(small) == 4
    assert not any("/448/" in file for file in full)
    assert len(full) == 7


def test_protocols(root: Path) -> None:
    catalog = made(root)

    def splits(protocol: str) -> dict[str, str]:
        return {name.split("/")[1]: split for name, split in catalog.protocols[protocol].items()}

    assert list(catalog.protocols) == ["takes", "keystep", "proficiency"]
    assert splits("takes") == {"a": "train", "b": "val", "c": "test"}
    assert splits("keystep") == {"a": "train", "c": "test"}
    assert splits("proficiency") == {"a": "train", "b": "val"}


def test_labels(root: Path) -> None:
    catalog = made(root)
    assert catalog.classes["keystep"] == ("Add oil (Bike Repair)", "Add oil (Cooking)", "Wash, then dry")
    assert catalog.classes["step"] == ("Remove wheel", "Tighten bolt (step 10)", "Tighten bolt (step 11)")
    assert catalog.classes["proficiency"] == ("Novice", "Early Expert", "Intermediate Expert", "Late Expert")
    of = {view: [(s.name, s.label, s.start_s, round(s.end_s, 4)) for s in catalog.segments
                 if s.recording == f"egoexo4d/a/{view}"] for view in ("ego", "cam01")}  # fmt: skip
    both = [
        ("keystep", "Add oil (Cooking)", 0.1, 0.4), ("keystep", "Wash, then dry", 0.2, 0.5),
        ("step", "Remove wheel", 0.1, 0.6),
    ]  # fmt: skip
    assert of["ego"] == [
        *both,
        ("step", "Tighten bolt (step 10)", 0.62, 0.6333),
        ("proficiency", "Late Expert", 0, 0.6333),
    ]
    assert of["cam01"] == [*both, ("step", "Tighten bolt (step 10)", 0.62, 0.7), ("proficiency", "Late Expert", 0, 0.7)]
    assert not [s for s in catalog.segments if s.recording.startswith("egoexo4d/c/")]
    said = "\n".join(catalog.notes)
    for reason in (
        "left out: 1 takes of splits.json that takes.json lacks (uid-x)",
        "left out: 1 segments with a label_id that label_mapping.csv lacks",
        "left out: 1 annotations of takes that takes.json lacks",
        "left out: 1 segments that end where they start or before",
        "left out: 1 segments with a step that the vocabulary lacks",
        "left out: 1 scores other than Novice, Early Expert, Intermediate Expert, Late Expert",
    ):
        assert reason in said


def test_without_the_list_of_classes_the_benchmark_has_no_labels(root: Path) -> None:
    (root / "annotations/keystep_benchmark/label_mapping.csv").unlink()
    catalog = made(root)
    assert not [s for s in catalog.segments if s.name == "keystep"]
    assert "keystep" not in catalog.classes
    assert "labels of keystep_benchmark, whose label_mapping.csv is missing; download it" in "\n".join(catalog.notes)


def test_segments_after_the_end_of_a_video_are_dropped(root: Path) -> None:
    videos.write(root / path("a", "aria01_214-1"), frames=18, height=32, width=32)
    catalog = made(root)
    assert not [s for s in catalog.segments if s.recording == "egoexo4d/a/ego" and s.start_s > 0.6]
    assert "left out: 1 spans outside their video (egoexo4d/a/ego at 0.62 s)" in catalog.notes


def test_known_offsets_move_a_view_and_its_labels(root: Path) -> None:
    table = root / "offsets.csv"
    table.write_text("take_name,view,start_offset_s\na,ego,-0.1\n")
    catalog = made(root, offsets=table)
    by_id = {r.id: r for r in catalog.recordings}
    assert by_id["egoexo4d/a/ego"].start_s == pytest.approx(-0.1)
    assert by_id["egoexo4d/a/cam01"].start_s == 0
    spans = [s for s in catalog.segments if s.recording == "egoexo4d/a/ego" and s.label == "Wash, then dry"]
    assert [(round(s.start_s, 6), round(s.end_s, 6)) for s in spans] == [(0.3, 0.6)]
    table.write_text("take_name,view,start_offset_s\na,cam9,0.1\nb,ego,x\n")
    with pytest.raises(UserError, match=r"line 2: takes\.json has no view 'cam9' of take 'a'\n.*line 3, column"):
        made(root, offsets=table)


def official(root: Path) -> Path:
    """Names in the numbers of V2."""
    counts = {"train": 3072, "val": 842, "test": 1121}
    names = [f"{split}_{k}" for split, count in counts.items() for k in range(count)]
    write(root / "takes.json", [take(name, {"aria01": True}, ["cam01", "cam02", "cam03", "cam04"]) for name in names])
    write(root / "annotations/splits.json", {"take_uid_to_split": {f"uid-{n}": n.split("_")[0] for n in names}})
    return root


def test_official_counts_from_lists_alone(tmp_path: Path) -> None:
    takes, nulls = read_takes(official(tmp_path))
    assert (len(takes), nulls) == (5035, 0)
    assert sum(len(t.videos) for t in takes) == 5035 * 5
    splits = list(Annotations(tmp_path, {t.uid for t in takes}).splits["takes"].values())
    assert [splits.count(split) for split in ("train", "val", "test")] == [3072, 842, 1121]
    videos.write(tmp_path / path("val_7", "cam01"), frames=4, height=32, width=32)
    notes = made(tmp_path).notes
    assert "takes.json lists 5,035 takes, of 5,035 in V2: 3,072 train, 842 val, 1,121 test" in notes
    assert any(note.startswith("videos: 1 of 25,175 listed are here") for note in notes)


def test_the_benchmarks_classes_are_those_of_its_list(tmp_path: Path) -> None:
    folder = tmp_path / "annotations/keystep_benchmark"
    write(tmp_path / "annotations/splits.json", {"split_to_take_uids": {"train": ["uid-a"]}})
    folder.mkdir()
    rows = [f"{k},{k + 100},Step {k % 270},Scenario {k // 270}" for k in range(278)]
    (folder / "label_mapping.csv").write_text("label_id,step_unique_id,step_name,scenario_name\n" + "\n".join(rows))
    found = Annotations(tmp_path, {"uid-a"})
    assert found.splits["takes"] == {"uid-a": "train"}
    names = found.classes["keystep"]
    assert (len(names), len(set(names))) == (278, 278)
    assert (names[0], names[8], names[277]) == ("Step 0 (Scenario 0)", "Step 8", "Step 7 (Scenario 1)")
    (folder / "label_mapping.csv").write_text("label_id,step_name\n0,Cut\n2,Stir\n")
    with pytest.raises(UserError, match=r"label_mapping\.csv: its 2 label_ids do not count from 0"):
        Annotations(tmp_path, set())
    (folder / "label_mapping.csv").write_text("label_id,step_name\n0,Cut\n0,Stir\nx,Eat\n")
    with pytest.raises(UserError, match=r"line 3, column 'label_id': 0 is there twice[^\n]*\n.*line 4, column"):
        Annotations(tmp_path, set())


@pytest.mark.parametrize("folder", ["features/omnivore_video", "features"])
def test_features(root: Path, tmp_path_factory: pytest.TempPathFactory, folder: str) -> None:
    (root / folder).mkdir(parents=True)
    tensors = {name: torch.rand(6, 5) for name in ("uid-a_aria01_rgb", "uid-a_cam01_0", "uid-b_aria02_rgb")}
    for name, tensor in tensors.items():
        torch.save(tensor, root / folder / f"{name}.pt")
    (root / folder / "uid-c_mobile_0.pt").write_bytes(b"cut")
    out = tmp_path_factory.mktemp("features")
    catalog = made(root, features="omnivore_video", packed=out)
    assert [(r.id, r.kind, r.num_frames) for r in catalog.recordings] == [
        ("egoexo4d/a/ego", "features", 6), ("egoexo4d/a/cam01", "features", 6), ("egoexo4d/b/ego", "features", 6),
    ]  # fmt: skip
    ego = catalog.recordings[0]
    assert (ego.fps, ego.start_s) == (30 / 16, 16 / 30)
    np.testing.assert_array_equal(np.load(catalog.file(ego)), tensors["uid-a_aria01_rgb"].half().numpy())
    (cut,) = catalog.quarantined
    assert cut.path == f"{folder}/uid-c_mobile_0.pt"
    assert "uid-c_mobile_0.pt: it is cut, or was saved before torch 1.6" in cut.reason
    (step,) = (s for s in catalog.segments if s.recording == ego.id and s.label == "Remove wheel")
    assert (step.start_s, step.end_s) == (0, pytest.approx(0.6 - 16 / 30))
    assert any(note.startswith("features: 3 of 11 listed are here") for note in catalog.notes)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.npy")}
    torch.save(torch.rand(6, 4), root / folder / "uid-c_mobile_0.pt")
    with pytest.raises(UserError, match=r"several shapes .*: 1 x 5 in features/.*, 1 x 4 in features/.*mobile_0\.pt"):
        made(root, features="omnivore_video", packed=out)
    torch.save(torch.rand(4, 5), root / folder / "uid-c_mobile_0.pt")
    assert len(made(root, features="omnivore_video", packed=out).recordings) == 4
    after = {file: file.stat().st_mtime_ns for file in out.rglob("*.npy")}
    assert len(after) == 4
    assert before.items() <= after.items()


def test_features_need_a_folder_and_files(root: Path) -> None:
    with pytest.raises(UserError, match="--features and --packed go together"):
        Options(root=root, features="omnivore_video")
    with pytest.raises(UserError, match=r"no file of features is here, such as uid-a_aria01_rgb\.pt; download --parts"):
        made(root, features="maws_clip_2b", packed=root / "out")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"take_uid": None}, r"takes\.json, entry 3: take_uid is None; it must be a text"),
        ({"take_uid": "uid-a"}, r"entry 3: take d \(uid-a\) is there twice"),
        ({"take_name": "a"}, r"entry 3: take a \(uid-d\) is there twice"),
        ({"root_dir": "../d"}, r"entry 3: '\.\./d/frame_aligned_videos/cam01\.mp4' leads out of the root"),
        ({"root_dir": "/d"}, r"leads out of the root"),
        ({"frame_aligned_videos": []}, r"entry 3: frame_aligned_videos is \[\]; it must be an object"),
        ({"frame_aligned_videos": {"cam01": {"0": {"relative_path": 7}}}}, r"entry 3, cam01, 0: relative_path is 7"),
    ],
)
def test_broken_takes(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    write(tmp_path / "takes.json", [*TAKES, take("d", {"aria01": True}, ["cam01"], **other)])
    with pytest.raises(UserError, match=message):
        read_takes(tmp_path)


@pytest.mark.parametrize(
    ("file", "facts", "message"),
    [
        ("takes.json", [], r"takes\.json: it lists no take; download the file again"),
        ("takes.json", {}, r"takes\.json: it holds a dict; it must hold a list"),
        ("annotations/splits.json", {}, r"splits\.json: split_to_take_uids is missing"),
        ("annotations/splits.json", {"take_uid_to_split": {"uid-a": 1}}, r"splits\.json: uid-a is 1; it must be"),
        ("annotations/keystep_train.json", {"annotations": {}, "vocabulary": {"x": "Cut"}}, r"vocabulary: 'x' is"),
        ("annotations/keystep_train.json", {"annotations": {"uid-a": {"segments": [{"step_unique_id": 1}]}},
         "vocabulary": {"1": "Cut"}}, r"keystep_train\.json, take uid-a, segments\[0\]: start_time is missing"),
        ("annotations/proficiency_demonstrator_val.json", [3], r"val\.json, entry 0: it is a int; it must be"),
        ("annotations/keystep_benchmark/keystep_segment_val.json", {"segments": [{"take_uid": "uid-a", "label_id": 0,
         "start_time": "1", "end_time": 2}]}, r"val\.json, segments\[0\]: start_time is '1'; it must be a number"),
    ],
)  # fmt: skip
def test_broken_files(root: Path, file: str, facts: Any, message: str) -> None:
    write(root / file, facts)
    with pytest.raises(UserError, match=message):
        made(root)


def test_roots_without_what_is_needed(root: Path) -> None:
    with pytest.raises(UserError, match=r"takes: takes\.json is missing, there is one in "):
        read_takes(root / "takes")
    for video in root.rglob("*.mp4"):
        video.unlink()
    with pytest.raises(
        UserError, match=r"no frame-aligned video of size any is here; looked for takes/a/frame_aligned"
    ):
        made(root)
    (root / "annotations/splits.json").unlink()
    with pytest.raises(UserError, match=r"splits\.json: the file is missing; download it with --parts annotations"):
        made(root)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_json_is_refused_by_name_or_read(root: Path, data: st.DataObject) -> None:
    files = [root / "takes.json", *sorted((root / "annotations").rglob("*.json"))]
    file = data.draw(st.sampled_from(files))
    whole = file.read_text()
    file.write_text(json.dumps(fuzzed_json.changed(data, json.loads(whole))))
    try:
        takes, _ = read_takes(root, ("et",))
        marks = Annotations(root, {t.uid for t in takes})
        assert set(marks.splits) == set(egoexo4d.PROTOCOLS)
    except UserError as error:
        fuzzed_json.check_names(error, file)
    finally:
        file.write_text(whole)
