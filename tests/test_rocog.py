"""RoCoG-v2: sizes of the official lists by protocol, names, partial downloads, and broken lists."""

from __future__ import annotations

from pathlib import Path

import pytest
import videos

from crossview.datasets import rocog
from crossview.errors import UserError

SIZES = {
    "real_ground_train": 204, "real_ground_test": 100, "real_air_train": 87, "real_air_test": 91,
    "syn_ground_train": 44_510, "syn_ground_val": 8_928, "syn_air_train": 44_640, "syn_air_val": 8_918,
}  # fmt: skip
"""Lines of the official lists; the first lines of a training list are those of its tsonly lists here."""
TSONLY = {"real_ground": (162, 42), "real_air": (66, 21)}


def lines(name: str, count: int) -> list[str]:
    kind, view, _ = name.split("_")
    classes = rocog.CLASSES
    return [
        f"{kind}/{view}/{classes[k % 7]}/S01_10m_{name}_label{k % 7 + 1}_start{k}.mp4 {k % 7}" for k in range(count)
    ]


def write_lists(folder: Path, lists: dict[str, list[str]]) -> Path:
    folder.mkdir(parents=True)
    for name, of in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in of))
    return folder.parent


def test_sizes_of_the_official_settings(tmp_path: Path) -> None:
    lists = {name: lines(name, count) for name, count in SIZES.items()}
    for place, (train, val) in TSONLY.items():
        lists[f"{place}_train_tsonly"] = lists[f"{place}_train"][:train]
        lists[f"{place}_val_tsonly"] = lists[f"{place}_train"][train : train + val]
    write_lists(tmp_path / "annotations", lists)
    labels, read, notes = rocog.listed(rocog.Options(root=tmp_path))
    assert len(labels) == sum(SIZES.values())
    assert not notes
    sizes = {name: {split: len(of) for split, of in by.items()} for name, by in rocog.splits(read).items()}
    assert sizes == {
        "gs2gr": {"train": 44_510, "val": 8_928, "target": 204, "test": 100},
        "as2ar": {"train": 44_640, "val": 8_918, "target": 87, "test": 91},
        "gr2ar": {"train": 162, "val": 42, "target": 87, "test": 91},
        "gs2ar": {"train": 44_510, "val": 8_928, "target": 87, "test": 91},
        "gr": {"train": 162, "val": 42, "test": 100},
        "ar": {"train": 66, "val": 21, "test": 91},
        "gr_whole": {"train": 204, "test": 100},
        "ar_whole": {"train": 87, "test": 91},
    }


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("S00_10m_ground_label5_start653", "S00"),
        ("S04b_30m_hover_label3_start3962", "S04b"),
        ("S07_10m_ground_3_label1_start5", "S07"),
        ("Scene1_0_Advance_30_1_2022_17_3_43", None),
        ("Scene12_7_S02_Advance_R03_01_30_1_2022_17_3_43", "S02"),
    ],
)
def test_subjects_in_names(name: str, subject: str | None) -> None:
    match = rocog.SUBJECT.fullmatch(name)
    assert (match["subject"] if match else None) == subject


def test_a_partial_download(tmp_path: Path) -> None:
    ground, air = (
        "real/ground/Halt/S00_10m_ground_label5_start653.mp4",
        "real/air/Rally/S04b_30m_hover_label3_start9.mp4",
    )
    train, syn = (
        "real/ground/Halt/S01_10m_ground_3_label5_start1.mp4",
        "syn/air/Advance/Scene1_0_Advance_3_1_2_3_4_5.mp4",
    )
    for path in (ground, air, train, "real/ground/Halt/not_listed.mp4"):
        videos.write(tmp_path / path, frames=4)
    lists = {"real_ground_train": [f"{train} 4"], "real_ground_test": [f"{ground} 4"], "real_air_test": [f"{air} 2"],
             "syn_air_train": [f"{syn} 0"]}  # fmt: skip
    write_lists(tmp_path / "lists", lists)
    made = rocog.catalog(rocog.Options(root=tmp_path, lists=tmp_path / "lists"))
    assert {(r.scene, r.view, r.subject, r.action) for r in made.recordings} == {
        ("real-ground-S00_10m_ground_label5_start653", "ground", "S00", "Halt"),
        ("real-air-S04b_30m_hover_label3_start9", "air", "S04b", "Rally"),
        ("real-ground-S01_10m_ground_3_label5_start1", "ground", "S01", "Halt"),
    }
    assert made.classes["action"].index("Halt") == 4
    assert list(made.protocols) == list(rocog.PROTOCOLS)
    assert [r.subject for r in made.select("target", "gs2gr").recordings] == ["S01"]
    assert [r.subject for r in made.select("train", "gr_whole").recordings] == ["S01"]
    assert "syn_air_train: 0 of 1 listed are here; missing: 1 (" + syn + ")" in made.notes
    assert any(note.startswith("lists that are not here: syn_ground_train.txt") for note in made.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "\nreal/air/Halt/a.mp4\n",
            r"real_air_test\.txt, line 2: 'real/air/Halt/a\.mp4' is broken; a line is a path, a sp",
        ),
        ("real/air/Halt/a.mp4 7", r"real_air_test\.txt, line 1: the label 7 is unknown; labels are 0 to 6"),
        ("real/air/Halt/a.mp4 2", r"line 1: real/air/Halt/a\.mp4 has the label 2, Rally, and the folder Halt; correct"),
        ("/data/real/air/Halt/a.mp4 4", r"'/data/real/air/Halt/a\.mp4' is no video of the dataset; paths are relative"),
        ("real/air/../a.mp4 4", r"line 1: 'real/air/\.\./a\.mp4' is no video of the dataset"),
        ("", r"annotations: its lists are empty; get them again"),
        ("real/air/Halt/b.mp4 4", r"none of the 1 listed videos is here, such as real/air/Halt/b\.mp4; it holds annot"),
    ],
)
def test_broken_lists(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "real_air_test.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        rocog.catalog(rocog.Options(root=tmp_path))


def test_no_lists(tmp_path: Path) -> None:
    (tmp_path / "RoCoG").mkdir()
    with pytest.raises(UserError, match=r"annotations: none of .* is here, .*is missing; above, it holds RoCoG: pass"):
        rocog.catalog(rocog.Options(root=tmp_path))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "real_air.txt").touch()
    with pytest.raises(UserError, match=r"such as syn_ground_train\.txt; it holds real_air\.txt: pass"):
        rocog.catalog(rocog.Options(root=tmp_path))
