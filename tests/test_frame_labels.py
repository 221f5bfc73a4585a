"""Labels of frames in every form that users save them in: read exactly, or refused before a video is opened."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from datasets_on_disk import make_ae2, make_folder

from crossview.datasets import ae2, folder
from crossview.datasets.catalog.frame_labels import read_labels, whole_numbers
from crossview.errors import UserError


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No video may be opened."""

    def opened(path: Path, *_: object) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("crossview.datasets.catalog.probing.index_of", opened)


@pytest.mark.parametrize(
    "values",
    [[0, 1, 2], (0.0, 1.0, 2.0), np.array([0, 1, 2], np.uint64), np.array([0, 1, 2], object), np.arange(3.0)],
)
def test_whole_numbers_in_any_type_are_exact(values: object) -> None:
    found = whole_numbers(values, "l")
    assert found.dtype == np.int32
    assert found.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([-1] * 10 + [0] * 10, r"l, frame 0: the label -1 is negative \(so are 10 of 20\); phases count from 0: give"),
        ([0, 2**40 + 1], r"l, frame 1: the label 1099511627777 is above 2147483647"),
        ([0, 2**70], r"l, frame 1: the label 1180591620717411303424 is above 2147483647"),
        ([0, 1.5], r"l, frame 1: the label 1.5 is not a whole number"),
        ([0, float("nan")], r"l, frame 1: the label nan is not a whole number"),
        ([0, 3], r"l, frame 1: the label 3 is above 2; the classes are a, b, c, counted from 0"),
        ([[0, 1], [2]], r"l: it is not a flat row of whole numbers"),
        ([0, None], r"l: it is not a flat row of whole numbers"),
        ([0, [1]], r"l: it is not a flat row of whole numbers"),
        ([[0, 1]], r"l: the labels have the shape \(1, 2\); save a flat row"),
        (7, r"l: the labels have the shape \(\); save a flat row"),
        ([], r"l: it holds no labels"),
        (["0", "1"], r"l: the labels are of type <U1"),
        ([True, False], r"l: the labels are of type bool"),
        ("012", r"l: the labels have the shape \(\)"),
        ({0: 1}, r"l: .*flat row"),
    ],
)
def test_other_labels_are_refused_by_frame(values: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        whole_numbers(values, "l", classes=("a", "b", "c") if 3 in np.ravel(np.array(values, object)) else ())
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("l.txt", b"0\n1\n-1\n", r"l\.txt, line 3: the label -1 is negative"),
        ("l.txt", b"0 1\r\n\r\n1 two", r"l\.txt, line 3: 'two' is not a whole number; give .* and no header"),
        ("l.csv", b"label\n0\n", r"l\.csv, line 1: 'label' is not a whole number"),
        ("l.csv", b"0,1,2\n", r"l\.csv, line 1: '0,1,2' is not a whole number"),
        ("l.txt", b"0\n0.5\n", r"l\.txt, line 2: '0\.5' is not a whole number"),
        ("l.txt", b"9" * 5000, r"l\.txt, line 1: '9{30}\.\.\.' is not a whole number"),
        ("l.txt", b"caf\xe9", r"l\.txt, line 1: the bytes e9 are not UTF-8"),
        ("l.npy", b"0 1", r"l\.npy: not an array of numbers as numpy\.save writes it"),
        ("l.mat", b"", r"l\.mat: its name ends in '\.mat'; give a \.txt, \.csv or \.npy file"),
    ],
)
def test_label_files_are_refused_by_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"\x93NUMPY", b"PK\x03\x04"),  # taken for a damaged zip file
        (b"}", b" "),  # the header ends within its brackets
        (b"(20,)", b"(2" + b"0" * 14 + b",)"),  # more labels than any memory holds
        (b"<i8", b"|O8"),
    ],
)
def test_damaged_arrays_are_refused_in_plain_words(tmp_path: Path, old: bytes, new: bytes) -> None:
    file = tmp_path / "l.npy"
    np.save(file, np.arange(20))
    data = file.read_bytes()
    file.write_bytes(data.replace(old, new, 1) if old else b"")
    with pytest.raises(UserError, match=r"l\.npy: not an array of numbers as numpy\.save writes it; give a \.txt"):
        read_labels(file)


def test_half_precision_labels_are_read(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    np.save(tmp_path / "l.npy", np.array([0, 1, 2], np.float16))
    assert read_labels(tmp_path / "l.npy").tolist() == [0, 1, 2]
    assert not recwarn


def test_label_files_as_spreadsheets_write_them(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes("0\r\n1.0\r\n2\r\n".encode("utf-16"))
    assert read_labels(tmp_path / "l.csv").tolist() == [0, 1, 2]


@pytest.mark.parametrize("first", [-1, 2**40])
def test_background_and_large_labels_of_a_folder_are_refused_at_once(tmp_path: Path, first: int, closed: None) -> None:
    lines = make_folder(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(str(first + k // 10) for k in range(20)))
    np.save(tmp_path / "b.npy", np.array([first] * 5))
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv"))
    text, array = str(error.value).splitlines()
    assert re.search(rf"list\.csv, line 2, column 'labels': .*a\.txt, line 1: the label {first} is", text)
    assert re.search(rf"list\.csv, line 3, column 'labels': .*b\.npy, frame 0: the label {first} is", array)


def test_label_files_stay_in_the_root(tmp_path: Path, closed: None) -> None:
    (tmp_path / "l.txt").write_text("0\n" * 5)
    (root := tmp_path / "root").mkdir()
    lines = [line.replace("a.txt", "../l.txt").replace("b.npy", "none.npy") for line in make_folder(root)]
    (root / "list.csv").write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        folder.catalog(folder.Options(root=root, csv=root / "list.csv"))
    outside, missing = str(error.value).splitlines()
    assert re.search(r"list\.csv, line 2, column 'labels': '\.\./l\.txt' leads out of", outside)
    assert re.search(r"list\.csv, line 3, column 'labels': .*none\.npy is missing", missing)


def test_all_that_is_wrong_in_a_label_pickle_is_listed_at_once(tmp_path: Path, closed: None) -> None:
    base = make_ae2(tmp_path, "lists")
    labels = pickle.loads((base / "label.pickle").read_bytes())
    labels["S0_ego_1"] = [[0, 1], [2]]
    labels["S1_ego_1"] = np.array(labels["S1_ego_1"]) - 1
    labels["S2_ego_1"] = np.array(labels["S2_ego_1"])[None]
    labels["S0_exo_1.mp4"] = labels.pop("S0_exo_1")
    (base / "label.pickle").write_bytes(pickle.dumps(labels))
    with pytest.raises(UserError) as error:
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    found = str(error.value).splitlines()
    expected = [
        r"label\.pickle: 1 of its 12 keys name no video \('S0_exo_1\.mp4'\); a key is a video's file name without",
        r"label\.pickle, key 'S0_ego_1': it is not a flat row",
        r"label\.pickle: it has no labels for .*S0_exo_1\.mp4; add the key 'S0_exo_1'",
        r"label\.pickle, key 'S1_ego_1', frame 0: the label -1 is negative",
        r"label\.pickle, key 'S2_ego_1': the labels have the shape \(1, 15\)",
    ]
    assert len(found) == len(expected)
    for line, message in zip(found, expected, strict=True):
        assert re.search(message, line), line


def test_keys_of_missing_videos_are_not_taken_for_those_of_others(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "lists")
    labels = pickle.loads((base / "label.pickle").read_bytes())
    labels["S0_exo_1.mp4"] = labels.pop("S0_exo_1")
    (base / "label.pickle").write_bytes(pickle.dumps(labels))
    (base / "exo" / "S1_exo_1.mp4").unlink()
    with pytest.raises(UserError, match=r"1 of its 12 keys name no video \('S0_exo_1\.mp4'\)"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))


def test_labels_of_other_videos_too_do_no_harm(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "lists")
    labels = pickle.loads((base / "label.pickle").read_bytes())
    (base / "label.pickle").write_bytes(pickle.dumps({**labels, "S9_ego_1": [0, 1]}))
    assert len(ae2.catalog(ae2.Options(root=tmp_path, set="chop")).recordings) == 12


def test_a_label_file_of_two_videos_is_refused_once(tmp_path: Path) -> None:
    lines = [line.replace("b.npy", "a.txt") for line in make_folder(tmp_path)]
    (tmp_path / "a.txt").write_text("0 one")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv"))
    (said,) = str(error.value).splitlines()
    assert re.search(r"list\.csv, line 2, column 'labels': .*a\.txt, line 1: 'one' is not a whole number", said)
