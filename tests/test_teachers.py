"""The teacher store: what is written comes back, and what cannot be right is refused."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import egoexo_tiny
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_run

from crossview.datasets.teachers.store import (
    DETECTIONS_FILE,
    SCORES,
    SCORES_FILE,
    Detections,
    Teachers,
    as_logits,
    check_store,
    write_detections,
    write_scores,
)
from crossview.errors import UserError
from crossview.methods.egoexo.config import ACTIONS_ALONE
from crossview.methods.recipe import Optim
from crossview.platform.config import Compute, Data, Experiment
from crossview.platform.train.launcher import start

RNG = np.random.default_rng(0)


def boxes(*rows: tuple[int, int, float, float, float, float, float]) -> Detections:
    """(frame, kind, corners, score) each."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    return Detections(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:6], table[:, 6])


def test_scores_come_back_by_recording_and_task(tmp_path: Path) -> None:
    ego = {f"train/s{i}/exo1": RNG.normal(size=2) for i in range(20)}
    objects = {name: RNG.normal(size=1000) for name in list(ego)[:7]}
    write_scores(tmp_path, "ego", ego)
    write_scores(tmp_path, "object", objects)
    teachers = Teachers.load(tmp_path)
    for name in ego:
        found = teachers.scores(name, "ego")
        assert found is not None
        np.testing.assert_allclose(found, ego[name], rtol=1e-6)
        assert found.dtype == np.float32
        again = teachers.scores(name, "object")
        assert (again is not None) == (name in objects)
        if again is not None:
            np.testing.assert_allclose(again, objects[name], rtol=1e-6)
    assert (teachers.classes("ego"), teachers.classes("object"), teachers.classes("smell")) == (2, 1000, None)


def test_writing_again_replaces_those_rows_alone(tmp_path: Path) -> None:
    write_scores(tmp_path, "ego", {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])})
    write_scores(tmp_path, "object", {"a": np.array([9.0, 8.0, 7.0])})
    write_scores(tmp_path, "ego", {"b": np.array([-1.0, 5.0]), "c": np.array([0.0, 6.0])})
    teachers = Teachers.load(tmp_path)
    found = {name: teachers.scores(name, "ego") for name in "abc"}
    assert {n: v.tolist() for n, v in found.items() if v is not None} == {"a": [1, 2], "b": [-1, 5], "c": [0, 6]}
    assert teachers.scores("a", "object") is not None
    assert list(tmp_path.glob(".*")) == []


def test_scores_lie_in_small_groups_and_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    names = [f"v{i:05}" for i in range(1_000)]
    values = RNG.normal(size=(1_000, 1_000)).astype(np.float32)
    write_scores(tmp_path, "object", dict(zip(names, values, strict=True)))
    teachers = Teachers.load(tmp_path)
    assert pq.ParquetFile(tmp_path / SCORES_FILE).num_row_groups == 8
    start = time.perf_counter()
    for i in RNG.integers(0, 1_000, 300):
        found = teachers.scores(names[i], "object")
        assert found is not None
        assert np.array_equal(found, values[i])
    assert time.perf_counter() - start < 2


def test_what_a_reader_gets_is_its_own(tmp_path: Path) -> None:
    write_scores(tmp_path, "ego", {"a": np.array([1.0, 2.0])})
    teachers = Teachers.load(tmp_path)
    first = teachers.scores("a", "ego")
    assert first is not None
    first += 5
    again = teachers.scores("a", "ego")
    assert again is not None
    assert again.tolist() == [1, 2]


def test_a_task_that_nobody_scored_names_file_and_fix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scores.parquet: no scores of task 'ego' \(tasks here: none\).*prepare"):
        Teachers.load(tmp_path).scores("a", "ego")
    write_scores(tmp_path, "object", {"a": np.array([1.0, 2.0, 0.0])})
    with pytest.raises(ValueError, match=r"tasks here: object"):
        Teachers.load(tmp_path).scores("a", "ego")
    with pytest.raises(ValueError, match=r"detections.parquet: no detections here.*weights of the interaction map"):
        Teachers.load(tmp_path).boxes("a", np.arange(3), 2)


def test_probabilities_are_refused_as_logits_and_converted_on_request(tmp_path: Path) -> None:
    raw = RNG.normal(size=(5, 1000)) * 3
    probs = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    rows = {f"v{i}": p for i, p in enumerate(probs)}
    with pytest.raises(ValueError, match=r"these are probabilities.*pass kind probs"):
        write_scores(tmp_path, "object", rows)
    write_scores(tmp_path, "object", rows, kind="probs")
    found = Teachers.load(tmp_path).scores("v3", "object")
    assert found is not None
    softmax = np.exp(found) / np.exp(found).sum()
    np.testing.assert_allclose(softmax, probs[3], atol=1e-4)
    assert np.array_equal(as_logits(np.log(probs), "log_probs", "x"), np.log(probs).astype(np.float32))


def test_other_kinds_are_checked_too() -> None:
    with pytest.raises(ValueError, match="not probabilities"):
        as_logits(np.array([[2.0, -1.0]]), "probs", "x")
    with pytest.raises(ValueError, match="not log_probs"):
        as_logits(np.array([[2.0, -1.0]]), "log_probs", "x")
    with pytest.raises(ValueError, match="not finite"):
        as_logits(np.array([[np.nan, -1.0]]), "logits", "x")
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        as_logits(np.array([1.0, -1.0]), "logits", "x")


def test_a_wrong_number_of_classes_is_refused(tmp_path: Path) -> None:
    write_scores(tmp_path, "ego", {"a": np.array([1.0, 2.0])})
    with pytest.raises(ValueError, match=r"2 classes, but rows of \[3\]"):
        write_scores(tmp_path, "ego", {"b": np.array([1.0, 2.0, 3.0])})
    with pytest.raises(ValueError, match=r"1000 classes, but rows of \[2, 3\]"):
        write_scores(tmp_path, "object", {"a": np.array([1.0, 2]), "b": np.array([1.0, 2.0, 3.0])}, classes=1000)


def test_a_table_with_other_columns_or_probabilities_is_refused_on_reading(tmp_path: Path) -> None:
    pq.write_table(pa.table({"video": ["a"]}), tmp_path / SCORES_FILE)
    with pytest.raises(ValueError, match=r"columns \['video'\].*prepare teachers"):
        Teachers.load(tmp_path)
    rows = pa.table([["a", "b"], ["ego", "ego"], [[0.2, 0.8], [0.5, 0.5]]], schema=SCORES)
    pq.write_table(rows, tmp_path / SCORES_FILE)
    with pytest.raises(ValueError, match="these are probabilities"):
        Teachers.load(tmp_path).scores("a", "ego")
    (tmp_path / SCORES_FILE).write_bytes(b"no table")
    with pytest.raises(ValueError, match="not a readable table"):
        Teachers.load(tmp_path)


def test_the_most_certain_boxes_of_a_frame_come_first(tmp_path: Path) -> None:
    found = boxes((3, 1, 0.1, 0.1, 0.2, 0.2, 0.5), (3, 2, 0.3, 0.3, 0.4, 0.4, 0.9), (3, 1, 0.5, 0.5, 0.6, 0.6, 0.7))
    write_detections(tmp_path, {"a": found, "b": boxes((0, 1, 0, 0, 1, 1, 1))})
    got = Teachers.load(tmp_path).boxes("a", np.array([2, 3]), 2)
    assert got is not None
    assert got.dtype == np.float32
    assert got.shape == (2, 2, 6)
    assert not got[0].any()
    np.testing.assert_allclose(got[1], [[2, 0.3, 0.3, 0.4, 0.4, 0.9], [1, 0.5, 0.5, 0.6, 0.6, 0.7]], rtol=1e-6)


def test_frames_repeated_by_clamping_keep_their_boxes_in_every_slot(tmp_path: Path) -> None:
    write_detections(tmp_path, {"a": boxes((0, 1, 0, 0, 0.5, 0.5, 0.4), (1, 2, 0.5, 0.5, 1, 1, 0.8))})
    got = Teachers.load(tmp_path).boxes("a", np.array([0, 0, 1, 1]), 3)
    assert got is not None
    assert got[:, 0, 0].tolist() == [1, 1, 2, 2]
    assert np.array_equal(got[0], got[1])
    assert np.array_equal(got[2], got[3])


def test_nothing_found_differs_from_never_looked_at(tmp_path: Path) -> None:
    write_detections(tmp_path, {"a": boxes((0, 1, 0, 0, 1, 1, 1)), "empty": boxes()})
    teachers = Teachers.load(tmp_path)
    empty = teachers.boxes("empty", np.arange(4), 2)
    assert empty is not None
    assert not empty.any()
    assert teachers.boxes("unseen", np.arange(4), 2) is None


def test_detections_of_other_recordings_stay(tmp_path: Path) -> None:
    write_detections(tmp_path, {"a": boxes((0, 1, 0, 0, 1, 1, 0.3)), "b": boxes((0, 1, 0, 0, 1, 1, 0.4))})
    write_detections(tmp_path, {"b": boxes((5, 2, 0, 0, 1, 1, 0.6)), "c": boxes((0, 2, 0, 0, 1, 1, 0.7))})
    teachers = Teachers.load(tmp_path)
    scores = {n: teachers.boxes(n, np.array([0, 5]), 1) for n in "abc"}
    assert {n: v[:, 0, 5].round(3).tolist() for n, v in scores.items() if v is not None} == {
        "a": [pytest.approx(0.3), 0],
        "b": [0, pytest.approx(0.6)],
        "c": [pytest.approx(0.7), 0],
    }


def test_boxes_are_clipped_to_the_frame_and_impossible_ones_refused(tmp_path: Path) -> None:
    write_detections(tmp_path, {"a": boxes((0, 1, -0.1, 0.2, 0.3, 1.1, 0.5), (0, 1, 1.0, 0.2, 1.2, 0.4, 0.9))})
    got = Teachers.load(tmp_path).boxes("a", np.array([0]), 2)
    assert got is not None
    np.testing.assert_allclose(got[0], [[1, 0, 0.2, 0.3, 1, 0.5], [0] * 6], rtol=1e-6)
    with pytest.raises(ValueError, match="are they pixels"):
        write_detections(tmp_path, {"a": boxes((0, 1, 30, 20, 90, 80, 0.5))})
    with pytest.raises(ValueError, match=r"scores from 0.5 to 1.5"):
        write_detections(tmp_path, {"a": boxes((0, 1, 0, 0, 1, 1, 0.5), (0, 1, 0, 0, 1, 1, 1.5))})
    with pytest.raises(ValueError, match="not finite"):
        write_detections(tmp_path, {"a": boxes((0, 1, 0, 0, np.nan, 1, 0.5))})


def test_a_million_boxes_are_indexed_once_and_found_quickly(tmp_path: Path) -> None:
    n, recordings = 1_000_000, 500
    per = n // recordings
    frame = np.repeat(np.arange(per // 4), 4)
    corner = RNG.uniform(0, 0.5, (per, 2))
    found = Detections(frame, np.tile([1, 2, 2, 2], per // 4), np.hstack([corner, corner + 0.2]), RNG.uniform(size=per))
    write_detections(tmp_path, {f"r{i:04}": found for i in range(recordings)})
    assert (tmp_path / DETECTIONS_FILE).is_file()
    start = time.perf_counter()
    teachers = Teachers.load(tmp_path)
    loaded = time.perf_counter()
    for i in range(1_000):
        assert teachers.boxes(f"r{i % recordings:04}", np.arange(i % 300, i % 300 + 64, 2), 4) is not None
    assert loaded - start < 5
    assert time.perf_counter() - loaded < 1


def test_tables_that_name_other_recordings_are_refused(tmp_path: Path) -> None:
    write_scores(tmp_path, "ego", {"train/a/v": np.array([2.0, -1.0])})
    teachers = Teachers.load(tmp_path)
    teachers.check_recordings(["train/a/v", "d/b/v"])
    with pytest.raises(ValueError, match=r"none of the catalog's recordings \(but e\.g\. 'train/a/v'\).*0\.3.*again"):
        teachers.check_recordings(["d/a/v", "d/b/v"])
    Teachers.load(tmp_path / "empty").check_recordings(["d/a/v"])


def test_a_store_is_checked_for_what_is_asked_of_it(tmp_path: Path) -> None:
    check_store(tmp_path, {}, 0)
    write_scores(tmp_path, "ego", {"a": np.array([1.0, 2.0])})
    check_store(tmp_path, {"ego": 2}, 0)
    with pytest.raises(UserError, match=r"scores.parquet: 2 scores of task 'ego' .* configured for 3"):
        check_store(tmp_path, {"ego": 3}, 0)
    with pytest.raises(UserError, match=r"no scores of task 'object' \(tasks here: ego\)"):
        check_store(tmp_path, {"ego": 2, "object": 5}, 0)
    with pytest.raises(UserError, match=r"detections.parquet: no detections here"):
        check_store(tmp_path, {}, 4)
    write_detections(tmp_path, {"a": boxes((0, 1, 0.1, 0.1, 0.5, 0.5, 0.9))})
    check_store(tmp_path, {"ego": 2}, 4)


def test_training_without_its_teacher_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    tiny_run.write_catalog(tmp_path)
    experiment = Experiment(
        data=Data(catalog=tmp_path / "catalog"),
        method=replace(egoexo_tiny.TINY, weights=replace(ACTIONS_ALONE, action=0.0, ego=1.0)),
        optim=Optim(batch=2, steps=1),
        compute=Compute(device="cpu", threads=1),
    )
    with pytest.raises(UserError, match=r"no scores of task 'ego' \(tasks here: none\)"):
        start(tmp_path / "run", "egoexo", experiment, in_process=True)
    assert not (tmp_path / "run").exists()
