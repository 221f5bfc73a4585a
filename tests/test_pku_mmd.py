"""PKU-MMD: official sizes, split files as they are spelt, labels with lines to leave out, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import videos

from crossview.datasets import pku_mmd
from crossview.datasets.catalog import Segment
from crossview.errors import UserError

CAPTIONS = ("Training videos:", "Validataion videos:")


def split_text(train: list[str], test: list[str]) -> str:
    return f"{CAPTIONS[0]}\n{', '.join(train)}, \n{CAPTIONS[1]}\n{', '.join(test)}, ,"


def phase_2(root: Path, *, frames: int = 60) -> Path:
    """Two sequences of subject 1, of which one lacks camera M, and one of subject 2."""
    for name in ("A01N01-L", "A01N01-M", "A01N01-R", "A05N04-L", "A05N04-R", "A01N02-L"):
        videos.write(root / "RGB" / f"{name}.mp4", frames=frames)
    (root / "Label").mkdir()
    (root / "Label" / "A01N01-L.txt").write_bytes(b"\xef\xbb\xbf6,0,15,2\r\n51,20,20,1\r\n6, 30, 61, 2\r\n")
    (root / "Label" / "A01N02-L.txt").write_text("1,10,70,1\n2,60,80,1\n3,9,8,1")
    (root / "Skeleton").mkdir()
    (root / "Skeleton" / "A01N01-L.txt").write_text("0.1 0.2\n")
    return root


def test_official_sizes_of_phase_2(tmp_path: Path) -> None:
    assert Counter(name[-1] for name in pku_mmd.NAMES_2) == {"L": 338, "M": 333, "R": 338}
    for name in pku_mmd.NAMES_2:
        (tmp_path / f"{name}.avi").touch()
    found = pku_mmd.found(pku_mmd.Options(root=tmp_path))
    notes = found.notes
    assert len(found.videos) == 1009
    assert Counter(found.splits["xsub"].values()) == {"train": 775, "test": 234}
    assert "videos: 1,009 of 1,009 listed are here" in notes
    assert any("cross_subject_v2.txt is not here; subjects 02, 03 and 07 are tested" in note for note in notes)
    assert any("protocol xview is left out: its split file cross_view_v2.txt is not here" in note for note in notes)


def test_splits_of_phase_1_come_from_its_files_alone(tmp_path: Path) -> None:
    every = [f"{number:04d}-{view}" for number in range(2, 360) for view in "LMR"]
    (tmp_path / "Split").mkdir()
    (tmp_path / "Split" / "cross-subject.txt").write_text(split_text(every[:944], every[944:1074]))
    left = [name for name in every if name.endswith("L")]
    others = [name for name in every if not name.endswith("L")]
    (tmp_path / "Split" / "cross_view.txt").write_text(split_text(others, left))
    for name in every[:3]:
        (tmp_path / f"{name}.avi").touch()
    found = pku_mmd.found(pku_mmd.Options(root=tmp_path, phase=1))
    assert list(found.videos) == ["0002-L", "0002-M", "0002-R"]
    assert {name: Counter(of.values()) for name, of in found.splits.items()} == {
        "xsub": {"train": 944, "test": 130},
        "xview": {"train": 716, "test": 358},
    }
    assert found.notes == ("videos: 3 of 1,074 listed are here; missing: 1,071 (0003-L, 0003-M, 0003-R, ...)",)


def test_labels_become_segments_of_their_own_view(tmp_path: Path) -> None:
    made = pku_mmd.catalog(pku_mmd.Options(root=phase_2(tmp_path)))
    assert [r.id for r in made.recordings] == [
        f"pku_mmd2/{name}" for name in ("A01N01/L", "A01N01/M", "A01N01/R", "A01N02/L", "A05N04/L", "A05N04/R")
    ]
    assert [r.subject for r in made.recordings] == ["N01"] * 3 + ["N02"] + ["N04"] * 2
    assert list(made.protocols) == ["xsub"]
    assert [made.split_of(r) for r in made.recordings] == ["train"] * 3 + ["test"] + ["train"] * 2
    assert made.segments == (
        Segment("pku_mmd2/A01N01/L", 0.0, 0.5, "action", "6"),
        Segment("pku_mmd2/A01N01/L", 1.0, 2.0, "action", "6"),
        Segment("pku_mmd2/A01N02/L", 10 / 30, 2.0, "action", "1"),
    )
    assert made.classes["action"][5] == "6"
    assert len(made.classes["action"]) == 51
    for note in (
        "label files of these videos: 2 of 6 listed are here; missing: 4 (A01N01-M, A01N01-R, A05N04-L, ...)",
        "instances: 3 of 2 of the 51 actions",
        "left out: 2 intervals that end where they start or earlier (A01N01-L.txt, line 2, A01N02-L.txt, line 3)",
        "left out: 1 spans outside their video (RGB/A01N02-L.mp4: 2,60,80)",
        "spans shortened to the end of their video: 1 (RGB/A01N02-L.mp4: 1,10,70)",
    ):
        assert note in made.notes


def test_both_split_files_names_and_the_rate_of_labels(tmp_path: Path) -> None:
    phase_2(tmp_path)
    (tmp_path / "Split").mkdir()
    every = ["A01N01-L", "A01N01-M", "A01N01-R", "A05N04-L", "A05N04-R", "A01N02-L"]
    (tmp_path / "Split" / "cross_subject_v2.txt").write_text(split_text(every[:3], every[5:]))
    (tmp_path / "Split" / "cross_view_v2.txt").write_text(split_text(every[1:3], ["A01N01-L", "A01N02-L"]))
    (tmp_path / "names.txt").write_text("\n".join(f"action {k}" for k in range(51)))
    options = pku_mmd.Options(root=tmp_path, names=tmp_path / "names.txt", label_fps=15)
    made = pku_mmd.catalog(options)
    by_protocol = {name: [of.get(r.id) for r in made.recordings] for name, of in made.protocols.items()}
    assert by_protocol == {
        "xsub": ["train", "train", "train", "test", None, None],
        "xview": ["test", "train", "train", "test", None, None],
    }
    assert made.segments[0] == Segment("pku_mmd2/A01N01/L", 0.0, 1.0, "action", "action 5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3\n", r"A01N01-L\.txt, line 1: '1,2,3' is broken; a line is label,start,end,confidence"),
        ("1,2,9,1\n\n1,2.5,9,1", r"A01N01-L\.txt, line 3: '1,2\.5,9,1' is broken"),
        ("1,-2,9,1", r"line 1: '1,-2,9,1' is broken"),
        ("52,2,9,1", r"A01N01-L\.txt, line 1: the action 52 is unknown; actions are 1 to 51"),
        ("0,2,9,1", r"the action 0 is unknown"),
        ("\0", r"A01N01-L\.txt, line 1: it holds a NUL"),
    ],
)
def test_broken_labels(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "A01N01-L.avi").touch()
    (tmp_path / "Label").mkdir()
    (tmp_path / "Label" / "A01N01-L.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        pku_mmd.catalog(pku_mmd.Options(root=tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Training videos:\nA01N01-L\n", r"cross_subject_v2\.txt: it has 2 lines with text; a split file has four"),
        (split_text(["A01N01-L"], ["A1N01-L"]), r"v2\.txt, line 4: 'A1N01-L' is no video of phase 2, such as A01N01-L"),
        (split_text(["A01N01-L"], ["A01N01-L"]), r"line 4: A01N01-L is among the training videos too; remove it"),
        (split_text(["A02N01-L"], ["A02N02-L"]), r"no split file lists A01N01-L or another video that is here"),
    ],
)
def test_broken_split_files(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "A01N01-L.avi").touch()
    (tmp_path / "cross_subject_v2.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        pku_mmd.catalog(pku_mmd.Options(root=tmp_path))


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ((), {}, r"no file is named as PKU-MMD's videos of phase 2 are, such as A01N01-L\.avi; it holds no file"),
        (("a/b.avi",), {"phase": 1}, r"videos of phase 1 are, such as 0002-L\.avi; it holds a/b\.avi: pass the folder"),
        (("0002-L.avi",), {}, r"it holds phase 1, and no video of phase 2; pass --phase 1"),
        (("0002-L.avi",), {"phase": 1}, r"no split file of phase 1 is here \(cross-subject\.txt, cross-view\.txt\)"),
        (("a/A01N01-L.avi", "b/A01N01-L.mp4"), {}, r"b/A01N01-L\.mp4: a/A01N01-L\.avi is the same video; remove"),
        (
            ("A01N01-L.avi", "Label/A01N01-L.txt", "label_v2/A01N01-L.txt"),
            {},
            r"label_v2.* is the same video's label",
        ),
        (("A01N01-L.avi",), {"label_fps": 0}, r"--label-fps is 0; frames are counted at a rate above 0"),
        (("A01N01-L.avi",), {"label_fps": float("inf")}, r"--label-fps is inf; frames are counted at a rate above 0"),
    ],
)
def test_what_is_refused(tmp_path: Path, files: tuple[str, ...], options: dict[str, object], said: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=said):
        pku_mmd.catalog(pku_mmd.Options(root=tmp_path, **options))  # type: ignore[arg-type]


def test_a_list_of_names_has_51(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("bow\nbow\nclap\n")
    with pytest.raises(UserError, match=r"names\.txt: it has 2 different names in 3 lines; write one for each"):
        pku_mmd.catalog(pku_mmd.Options(root=tmp_path, names=tmp_path / "names.txt"))
