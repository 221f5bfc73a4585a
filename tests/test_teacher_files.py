"""Released teacher files: they are read without running their code and land on the right frames."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.teachers.importers import HAND, OBJECT, epic_pickles, object_arrays, score_pickle
from crossview.datasets.teachers.store import Teachers, write_detections, write_scores
from crossview.errors import UserError


def catalog(root: Path, *paths: str, fps: float = 30.0, num_frames: int = 4) -> Catalog:
    return Catalog(
        root,
        tuple(
            Recording(
                dataset="d", scene=Path(path).stem, view="exo", perspective="exo", subject="", action="",
                path=path, kind="video", fps=fps, num_frames=num_frames, height_px=50, width_px=100,
            )
            for path in paths
        ),
    )  # fmt: skip


def save_objects(file: Path, entries: list[object]) -> None:
    array = np.empty(len(entries), object)
    for i, entry in enumerate(entries):
        array[i] = entry
    np.save(file, array)


def test_score_pickles_are_matched_by_path_without_suffix(tmp_path: Path) -> None:
    scores = {
        "train/a b/x.avi": np.array([-2.0, 3.0], np.float32),
        "train/c/y.mp4": [1.5, 0.5],
        "train/c/z.mp4": [0, 9],
    }
    (tmp_path / "k400_ego_predicts.pkl").write_bytes(pickle.dumps(scores, protocol=2))
    known = catalog(tmp_path, "train/a b/x.mp4", "train/c/y.mp4", "val/w.mp4")
    found = score_pickle(tmp_path / "k400_ego_predicts.pkl", known)
    assert {k: v.tolist() for k, v in found.items()} == {"d/x/exo": [-2, 3], "d/y/exo": [1.5, 0.5]}
    write_scores(tmp_path, "ego", found, classes=2)
    read = Teachers.load(tmp_path).scores("d/x/exo", "ego")
    assert read is not None
    assert read.argmax() == 1, "index 1 is egocentric"


def test_score_pickles_of_other_videos_or_with_code_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.pkl"
    file.write_bytes(pickle.dumps({"other/v.mp4": [0.0, 1.0]}))
    with pytest.raises(ValueError, match=r"none of its 1 paths \(e.g. 'other/v.mp4'\).*'train/x.mp4'"):
        score_pickle(file, catalog(tmp_path, "train/x.mp4"))
    file.write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(ValueError, match="could run code"):
        score_pickle(file, catalog(tmp_path, "train/x.mp4"))


def test_object_arrays_hold_objects_first_and_pixels(tmp_path: Path) -> None:
    objects, hands = (
        np.array([[10, 5, 30, 25, 0.9, 7, 0]]),
        np.array([[0, 0, 50, 50, 0.4, 1, 1], [90, 0, 110, 10, 0.6, 1, 1]]),
    )
    save_objects(tmp_path / "v.npy", [(objects, None), (None, hands.astype(np.float32)), (None, None), (None, None)])
    found = object_arrays(tmp_path, catalog(tmp_path, "train/v.mp4", "train/w.mp4"))
    assert list(found) == ["d/v/exo"]
    write_detections(tmp_path, found)
    boxes = Teachers.load(tmp_path).boxes("d/v/exo", np.arange(4), 2)
    assert boxes is not None
    np.testing.assert_allclose(boxes[0, 0], [OBJECT, 0.1, 0.1, 0.3, 0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(boxes[1], [[HAND, 0.9, 0, 1, 0.2, 0.6], [HAND, 0, 0, 0.5, 1, 0.4]], rtol=1e-6)
    assert not boxes[2:].any()


def test_frame_numbers_size_and_threshold_are_options(tmp_path: Path) -> None:
    """Entry 0 is padding, numbers count at twice the recording's rate, the detector saw half the size."""
    rows = [None, *[(np.array([[5, 5, 10, 10, 0.1 * i, 0]]), None) for i in range(1, 9)]]
    save_objects(tmp_path / "v.npy", list(rows))
    found = object_arrays(tmp_path, catalog(tmp_path, "v.mp4"), first=1, fps=60.0, frame_px=(50, 25), min_score=0.25)[
        "d/v/exo"
    ]
    assert found.frame.tolist() == [1, 2, 3]
    np.testing.assert_allclose(found.score, [0.3, 0.5, 0.7], rtol=1e-6)
    np.testing.assert_allclose(found.box[0], [0.1, 0.2, 0.2, 0.4], rtol=1e-6)


def test_arrays_of_other_videos_or_shapes_or_with_code_are_refused(tmp_path: Path) -> None:
    known = catalog(tmp_path, "v.mp4")
    with pytest.raises(ValueError, match=r"such as v.npy"):
        object_arrays(tmp_path, known)
    save_objects(tmp_path / "v.npy", [(None, None)] * 9)
    with pytest.raises(ValueError, match="9 frames, but the video of d/v/exo has 4"):
        object_arrays(tmp_path, known)
    save_objects(tmp_path / "v.npy", [(np.ones((1, 3)), None)] * 4)
    with pytest.raises(ValueError, match=r"entry 0: boxes of shape \(1, 3\)"):
        object_arrays(tmp_path, known)
    save_objects(tmp_path / "v.npy", [(np.array([[0, 0, 5, 5, np.nan]]), None)] * 4)
    with pytest.raises(ValueError, match="a box or its score is not finite"):
        object_arrays(tmp_path, known)
    save_objects(tmp_path / "v.npy", [Path("x")] * 4)
    with pytest.raises(ValueError, match="could run code"):
        object_arrays(tmp_path, known)
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY" + bytes(40))
    with pytest.raises(ValueError, match=r"not a .npy file"):
        object_arrays(tmp_path, known)


def test_an_array_that_claims_more_objects_than_it_holds_is_refused(tmp_path: Path) -> None:
    array = np.empty(4, object)
    np.save(tmp_path / "v.npy", array)
    data = (tmp_path / "v.npy").read_bytes()
    assert data.count(b"K\x04\x85") == 1  # the shape (4,) in the pickle
    (tmp_path / "v.npy").write_bytes(data.replace(b"K\x04\x85", b"K\x7f\x85"))
    with pytest.raises(ValueError, match="does not hold as many objects"):
        object_arrays(tmp_path, catalog(tmp_path, "v.mp4"))


def message(*fields: tuple[int, object]) -> bytes:
    """A protocol-buffer message of small numbers, floats and bytes."""
    out = b""
    for tag, value in fields:
        if isinstance(value, int):
            out += bytes([tag << 3]) + bytes([value & 127 | 128, value >> 7] if value > 127 else [value])
        elif isinstance(value, float):
            out += bytes([tag << 3 | 5]) + struct.pack("<f", value)
        elif isinstance(value, bytes):
            out += bytes([tag << 3 | 2, len(value)]) + value
    return out


def test_epic_messages_are_read_without_a_schema_compiler(tmp_path: Path) -> None:
    box = message((1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0))
    hand = message((1, box), (2, 0.9), (3, 3), (4, message((1, 0.1), (2, -0.1))), (5, 1))
    thing = message((1, message((3, 0.5), (4, 0.25))), (2, 0.6))
    unsure = message((1, box), (2, 0.2))
    frames = [message((1, b"P01_01"), (2, number)) for number in range(1, 300)]
    frames[200] += message((3, hand), (4, thing), (4, unsure))
    (tmp_path / "P01_01.pkl").write_bytes(pickle.dumps(frames))
    known = catalog(tmp_path, "P01/P01_01.MP4", fps=30.0, num_frames=150)
    found = epic_pickles(tmp_path, known)["d/P01_01/exo"]
    assert (found.frame.tolist(), found.kind.tolist()) == ([100, 100], [HAND, OBJECT])
    np.testing.assert_allclose(found.box, [[0.25, 0.5, 0.75, 1], [0, 0, 0.5, 0.25]])
    np.testing.assert_allclose(found.score, [0.9, 0.6], rtol=1e-6)
    assert len(epic_pickles(tmp_path, known, min_score=0.1)["d/P01_01/exo"].frame) == 3


def test_damaged_epic_messages_are_named(tmp_path: Path) -> None:
    known = catalog(tmp_path, "P01_01.MP4")
    for broken in (b"\x1a\x7f", b"\xff" * 12, b"\x0b", b"\x15\x00"):
        (tmp_path / "P01_01.pkl").write_bytes(pickle.dumps([broken]))
        with pytest.raises(ValueError, match=r"P01_01.pkl: a message is damaged"):
            epic_pickles(tmp_path, known)


@pytest.mark.parametrize("scores", ["high", [[1.0], [2.0, 3.0]], {"a": 1}])
def test_scores_that_are_no_numbers_are_named(tmp_path: Path, scores: object) -> None:
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps({"x.mp4": scores}))
    with pytest.raises(UserError, match=r"scores\.pkl: the scores of x\.mp4: not an array of numbers"):
        score_pickle(tmp_path / "scores.pkl", catalog(tmp_path, "x.mp4"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (7, "it must be \\(objects, hands\\)"),
        (("near", None), "not an array of numbers"),
        ((3.5, None), "boxes of shape"),
        (([[1, 2], [3]], None), "not an array of numbers"),
    ],
)
def test_boxes_that_are_no_numbers_are_named(tmp_path: Path, entry: object, message: str) -> None:
    save_objects(tmp_path / "x.npy", [None, entry, None, None])
    with pytest.raises(UserError, match=rf"x\.npy: entry 1.*{message}"):
        object_arrays(tmp_path, catalog(tmp_path, "x.mp4"))
