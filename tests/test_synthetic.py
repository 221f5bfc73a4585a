"""The synthetic world: same seed same bytes, truth that fits the pixels, splits that share nobody, AE2's layouts."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from crossview.datasets.catalog import Catalog
from crossview.datasets.synthetic.ae2_layout import export_ae2
from crossview.datasets.synthetic.cameras import view_names
from crossview.datasets.synthetic.config import PHASES, SPLITS, WorldConfig
from crossview.datasets.synthetic.film import Rig
from crossview.datasets.synthetic.take import Take, TakeName
from crossview.datasets.synthetic.world import take_names, write

SMALL = WorldConfig(
    actions=("crack_egg", "strike_peg"), train_takes=1, val_takes=0, test_takes=1, exo_cameras=4, size_px=64,
    min_frames=10, max_frames=14,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return write(SMALL, tmp_path_factory.mktemp("world"))


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_the_same_seed_gives_the_same_pixels_and_truth(world: Catalog, tmp_path: Path) -> None:
    other = write(SMALL, tmp_path)
    assert [r.id for r in other.recordings] == [r.id for r in world.recordings]
    for a, b in zip(world.recordings, other.recordings, strict=True):
        assert world.file(a).read_bytes() == other.file(b).read_bytes()
    for table in ("boxes", "cameras", "classes", "frame_labels", "protocols", "segments", "subjects"):
        assert pq.read_table(world.root / f"{table}.parquet").equals(pq.read_table(tmp_path / f"{table}.parquet"))


def test_another_seed_gives_other_pixels() -> None:
    name = TakeName("train", "pour_milk", 0)
    shots = [Rig(Take(replace(SMALL, seed=s), name), ["exo1"]).frame(0)[1]["exo1"][1] for s in (0, 1)]
    assert (shots[0] != shots[1]).mean() > 0.5


def test_every_view_of_a_take_is_filmed_and_labelled(world: Catalog) -> None:
    assert len(world.recordings) == 4 * 5
    assert {r.perspective for r in world.recordings if r.view == "head"} == {"ego"}
    for recording in world.recordings:
        pixels = decoded(world.file(recording))
        assert pixels.shape == (recording.num_frames, 64, 64, 3)
        labels = world.frame_labels["phase"][recording.id]
        assert len(labels) == recording.num_frames
        assert 10 <= recording.num_frames <= 14
        assert (np.diff(labels) >= 0).all()
        assert labels.max() < len(PHASES[recording.action])
        phases = [s for s in world.segments if s.recording == recording.id and s.name == "phase"]
        spans = [round((s.end_s - s.start_s) * recording.fps) for s in phases]
        names = [PHASES[recording.action][k] for k in labels]
        assert [s.label for s in phases for _ in range(spans[phases.index(s)])] == names


def test_views_of_a_take_share_their_instants(world: Catalog) -> None:
    by_scene: dict[str, list[np.ndarray]] = {}
    middles: dict[tuple[str, int, str], set[tuple[float, float, float]]] = {}
    for recording in world.recordings:
        by_scene.setdefault(recording.scene, []).append(world.frame_labels["phase"][recording.id])
    for labels in by_scene.values():
        assert all(np.array_equal(labels[0], other) for other in labels[1:])
    for row in pq.read_table(world.root / "boxes.parquet").to_pylist():
        scene = row["recording"].split("/")[1]
        middles.setdefault((scene, row["frame"], row["name"]), set()).add((row["x_m"], row["y_m"], row["z_m"]))
    assert all(len(seen) == 1 for seen in middles.values())


def test_calibration_projects_a_thing_into_its_box(world: Catalog) -> None:
    cameras = {(c["recording"], c["frame"]): c for c in pq.read_table(world.root / "cameras.parquet").to_pylist()}
    inside = []
    for box in pq.read_table(world.root / "boxes.parquet").to_pylist():
        camera = cameras[box["recording"], box["frame"]]
        local = np.reshape(camera["rotation"], (3, 3)) @ (
            np.array([box["x_m"], box["y_m"], box["z_m"]]) - camera["position_m"]
        )
        u, v = camera["focal_px"] * local[:2] / local[2] + camera["centre_px"]
        whole = min(box["left_px"], box["top_px"]) > 0 and max(box["right_px"], box["bottom_px"]) < 64
        if box["name"] in ("bowl", "block", "left_hand", "right_hand") and whole and box["visible_px"] > 60:
            inside.append(
                box["left_px"] - 1 <= u <= box["right_px"] + 1 and box["top_px"] - 1 <= v <= box["bottom_px"] + 1
            )
    assert len(inside) > 200
    assert np.mean(inside) > 0.95


def test_boxes_are_those_of_the_rendered_ids(world: Catalog) -> None:
    take = Take(SMALL, TakeName("train", "crack_egg", 0))
    rows = {
        (r["recording"].split("/")[2], r["frame"], r["name"]): r
        for r in pq.read_table(world.root / "boxes.parquet").to_pylist()
        if r["recording"].startswith("synthetic/crack_egg_train0000/")
    }  # fmt: skip
    rig = Rig(take, view_names(1, 4))
    compared = 0
    for k in range(4):
        for view, (_, _, groups) in rig.frame(k)[1].items():
            for g, name in enumerate(take.groups):
                v, u = np.nonzero(groups == g)
                row = rows.get((view, k, name))
                assert (row is None) == (len(v) == 0)
                if row:
                    box = [row[f"{side}_px"] for side in ("left", "top", "right", "bottom")]
                    assert box == [u.min(), v.min(), u.max() + 1, v.max() + 1]
                    assert row["visible_px"] == len(v)
                    compared += 1
    assert compared > 60


def test_hands_and_objects_are_seen_in_ego_and_exo(world: Catalog) -> None:
    seen = {(r["recording"].split("/")[2], r["name"]) for r in pq.read_table(world.root / "boxes.parquet").to_pylist()}
    for view in view_names(1, 4):
        assert {(view, n) for n in ("left_hand", "right_hand", "bowl", "egg", "mallet", "peg")} <= seen


def test_the_head_camera_moves_and_exo_cameras_do_not(world: Catalog) -> None:
    positions: dict[str, set[tuple[float, ...]]] = {}
    for row in pq.read_table(world.root / "cameras.parquet").to_pylist():
        positions.setdefault(row["recording"], set()).add((*row["position_m"], *row["rotation"]))
    for recording, poses in positions.items():
        assert (len(poses) == 1) == ("/exo" in recording)


def test_splits_share_no_subject() -> None:
    config = replace(WorldConfig(), train_takes=12, val_takes=8, test_takes=8)
    subjects = {s: {n.subject_number(config) for n in take_names(config) if n.split == s} for s in SPLITS}
    assert all(subjects.values())
    assert not subjects["train"] & subjects["val"]
    assert not subjects["train"] & subjects["test"]
    assert not subjects["val"] & subjects["test"]


def test_held_out_cameras_stand_elsewhere() -> None:
    def azimuths(split: str) -> list[float]:
        rigs = [Rig(Take(SMALL, TakeName(split, "crack_egg", n)), ["exo2"]).frame(0)[1]["exo2"][0] for n in range(3)]
        return [float(np.degrees(np.arctan2(c.position[0], c.position[1]))) for c in rigs]

    train, test = azimuths("train"), azimuths("test")
    assert min(abs(a - b) for a in train for b in test) > 5


def test_a_finished_take_is_kept_and_a_missing_file_made_again(world: Catalog) -> None:
    kept, lost = world.file(world.recordings[0]), world.file(world.recordings[-1])
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    again = write(SMALL, world.root)
    assert again.recordings == world.recordings
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content
    assert not list(world.root.rglob("*.part*"))


def test_a_folder_holds_one_world(world: Catalog) -> None:
    with pytest.raises(ValueError, match=r"world\.json: this folder holds a world with seed=0, asked for is seed=7"):
        write(replace(SMALL, seed=7), world.root)


@pytest.mark.parametrize("layout", ["csv", "folders"])
def test_ae2_layout(layout: str, tmp_path: Path) -> None:
    config = replace(SMALL, train_takes=2, actions=("pour_milk",))
    root = export_ae2(config, tmp_path, "pour_milk", layout) / "pour_milk"  # type: ignore[arg-type]
    labels = pickle.loads((root / "label.pickle").read_bytes())
    names: dict[str, list[str]] = {"ego": [], "exo": []}
    for split, count in (("train", 2), ("val", 0), ("test", 1)):
        for view, seen in names.items():
            if layout == "csv":
                files = [root / view / line for line in (root / view / f"{split}.csv").read_text().splitlines()]
            else:
                files = sorted((root / split / view).glob("*.mp4"))
            assert len(files) == count
            for file in files:
                assert len(labels[file.stem]) == len(decoded(file))
                assert all(isinstance(x, int) for x in labels[file.stem])
                seen.append(file.stem)
    assert sorted(labels) == sorted(names["ego"] + names["exo"])
    takes = {view: {n.rsplit("_", 1)[0] for n in here} for view, here in names.items()}
    assert not takes["ego"] & takes["exo"], "ego and exo videos must come from different takes"
    assert json.loads((tmp_path / "world.json").read_text())["seed"] == 0


def test_two_processes_give_the_same_world(world: Catalog, tmp_path: Path) -> None:
    other = write(replace(SMALL, workers=2), tmp_path)
    for a, b in zip(world.recordings, other.recordings, strict=True):
        assert world.file(a).read_bytes() == other.file(b).read_bytes()


@pytest.mark.parametrize("cut", ["window", "cycle", "whole"])
def test_cuts(cut: str) -> None:
    config = WorldConfig(cut=cut)  # type: ignore[arg-type]
    for number in range(6):
        labels = Take(config, TakeName("train", "stir_and_serve", number)).labels
        assert config.min_frames <= len(labels) <= config.max_frames
        changes = np.diff(labels)[np.diff(labels) != 0]
        assert set(changes.tolist()) <= ({1, -3} if cut == "cycle" else {1})
        assert len(set(labels.tolist())) in ({2, 3} if cut == "window" else {4})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": ("juggle",)}, "crack_egg"),
        ({"size_px": 100}, "multiple of 16"),
        ({"exo_cameras": 9}, r"exo_cameras is 9; it must be in \[1, 8\]"),
        ({"min_frames": 200}, "min_frames is 200"),
    ],
)
def test_wrong_options_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldConfig(**change)  # type: ignore[arg-type]
