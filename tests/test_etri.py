"""ETRI-Activity3D: names, groups, the list of test subjects, and what is refused."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import videos

from crossview.datasets import etri
from crossview.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def name(action: int, subject: int, group: int, camera: int) -> str:
    return f"A{action:03d}_P{subject:03d}_G{group:03d}_C{camera:03d}.mp4"


def test_names_make_groups_and_splits() -> None:
    found = [etri.NAME.fullmatch(name(*numbers)) for numbers in product(range(1, 56), range(1, 101), (1, 2), (1, 8))]
    samples = [etri.Sample(*map(int, match.groups())) for match in found if match]
    assert len(samples) == 55 * 100 * 4
    assert Counter(sample.scene for sample in samples) == Counter({sample.scene: 2 for sample in samples})
    by_subject = {sample.subject: etri.split_of(sample, "xsub") for sample in samples}
    assert Counter(by_subject.values()) == {"train": 67, "test": 33}
    assert [subject for subject, split in by_subject.items() if split == "test"][:3] == [3, 6, 9]
    views = {sample.camera: etri.split_of(sample, "xview", cameras=(2, 5, 8)) for sample in samples}
    assert views == {1: "train", 8: "test"}


def test_a_root_with_a_whole_and_a_partial_group(tmp_path: Path) -> None:
    root = tmp_path / "ego"  # the root's name says nothing of the views
    for group, cameras in ((1, range(1, 9)), (2, range(1, 6))):
        for camera in cameras:
            videos.write(root / "P001-P010" / "P001" / name(1, 1, group, camera), frames=4, fps=20)
    videos.write(root / "P051-P060" / "P053" / name(55, 53, 1, 3), frames=4)
    touch(root, "readme.txt", "A001_P001_G003_C009.mp4")
    (tmp_path / "subjects.txt").write_bytes(b"\xef\xbb\xbfP053, 7\r\n9\r\n")
    options = etri.Options(root=root, test_subjects=tmp_path / "subjects.txt", test_cameras=(3,))
    made = etri.catalog(options)
    assert [r.id for r in made.recordings][:2] == ["etri/A001_P001_G001/C001", "etri/A001_P001_G001/C002"]
    assert Counter(r.scene for r in made.recordings) == {
        "A001_P001_G001": 8,
        "A001_P001_G002": 5,
        "A055_P053_G001": 1,
    }
    assert {r.perspective for r in made.recordings} == {"exo"}
    assert made.recordings[0].fps == 20
    last = made.recordings[-1]
    assert (last.subject, last.action, made.classes["action"].index(last.action)) == ("P053", "A055", 54)
    assert list(made.protocols) == ["xsub", "xview"]
    assert [r.id for r in made.select("test", "xsub").recordings] == [last.id]
    assert [r.view for r in made.select("test", "xview").recordings] == ["C003"] * 3
    assert made.notes == (
        "videos: 14 of 112,620 are here; groups with all eight cameras: 1 of 3",
        "left out: 1 videos of other actions, subjects or cameras than the dataset's (A001_P001_G003_C009.mp4)",
    )


def test_it_says_that_the_default_list_may_not_be_the_official_one(tmp_path: Path) -> None:
    videos.write(tmp_path / name(1, 3, 1, 1), frames=4)
    made = etri.catalog(etri.Options(root=tmp_path))
    assert list(made.protocols) == ["xsub"]
    assert any("divisible by 3, which may not be the official list" in note for note in made.notes)


@pytest.mark.parametrize(
    ("names", "cameras", "said"),
    [
        (
            (),
            (),
            r"no file is named as ETRI-Activity3D's videos are, such as A001.*; it holds no file",
        ),
        (("a.mp4",), (), r"it holds a\.mp4, \.\.\.: pass the folder"),
        ((name(56, 1, 1, 1),), (), r"other actions, subjects or cameras than 1 to 55, 1 to 100 and 1 to 8"),
        (("a/" + name(1, 1, 1, 1), "b/" + name(1, 1, 1, 1)), (), r"b/A001.*: a/A001.* is the same sample; remove one"),
        ((name(1, 1, 1, 1),), (0,), r"--test-cameras has 0; cameras are 1 to 8"),
    ],
)
def test_what_is_refused(tmp_path: Path, names: tuple[str, ...], cameras: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        etri.catalog(etri.Options(root=touch(tmp_path, *names), test_cameras=cameras))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3\n101\n", r"subjects\.txt, line 2: '101' is no subject; write a number from 1 to 100"),
        ("3, six", r"line 1: 'six' is no subject"),
        ("", r"subjects\.txt: it has 0 subjects; list those to test on"),
        (" ".join(map(str, range(1, 101))), r"it has 100 subjects; .*leave some for training"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "subjects.txt").write_text(text)
    touch(tmp_path, name(1, 1, 1, 1))
    with pytest.raises(UserError, match=said):
        etri.catalog(etri.Options(root=tmp_path, test_subjects=tmp_path / "subjects.txt"))
