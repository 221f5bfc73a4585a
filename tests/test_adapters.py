"""AE2's two layouts, a folder with a CSV, and what is said about broken ones."""

from __future__ import annotations

import pickle
import re
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import videos
from datasets_on_disk import make_ae2, make_folder

from crossview.datasets import ae2, folder
from crossview.datasets.catalog import safe_pickle
from crossview.datasets.catalog.probing import check_share


@pytest.mark.parametrize("kind", ["lists", "folders"])
def test_ae2_layouts(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "ego" / "my_ego_data"  # the view must come from the layout, not from the root's name
    make_ae2(root, kind)
    catalog = ae2.catalog(ae2.Options(root=root, set="chop"))
    assert [r.perspective for r in catalog.recordings] == ["ego", "ego", "exo", "exo"] * 3
    assert [catalog.split_of(r) for r in catalog.recordings] == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    files = [str(catalog.file(r)) for r in catalog.select("val").recordings]
    assert files == sorted(files)
    assert {r.action for r in catalog.recordings} == {"chop"}
    assert catalog.recordings[0].subject == "S0"
    for recording in catalog.recordings:
        assert len(catalog.frame_labels["phase"][recording.id]) == recording.num_frames
    assert sorted(r.num_frames for r in catalog.select("test").recordings) == [14, 15, 16, 17]


def test_ae2_label_of_wrong_length(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "folders")
    labels = pickle.loads((base / "label.pickle").read_bytes())
    labels["S1_exo_2"] = labels["S1_exo_2"][:-1]
    (base / "label.pickle").write_bytes(pickle.dumps(labels))
    catalog = ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    (set_aside,) = catalog.quarantined
    assert set_aside.path == "chop/val/exo/S1_exo_2.mp4"
    assert re.search(r"label\.pickle, key 'S1_exo_2', holds 11 labels, .* 12 frames.*correct", set_aside.reason)
    assert "ae2-chop/S1_exo_2/exo" not in {r.id for r in catalog.recordings} | catalog.frame_labels["phase"].keys()
    with pytest.raises(ValueError, match=r"1 of 12 videos cannot be used"):
        check_share(catalog, 0.05)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("a.mp4,b.mp4", "one file name"),
        ("S0_ego_2", r"\.mp4"),
        ("../none.mp4", "leads out of"),
        ("S0_ego_1.mp4", "once"),
    ],
)
def test_ae2_broken_csv_row(tmp_path: Path, line: str, rule: str) -> None:
    base = make_ae2(tmp_path, "lists")
    (base / "ego" / "train.csv").write_text(f"S0_ego_1.mp4\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"ego/train\.csv, line 3: '{line}' is broken: .*{rule}.*correct or remove"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))


def test_ae2_videos_that_lists_name_and_that_are_missing_are_counted(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "lists")
    assert ae2.catalog(ae2.Options(root=tmp_path, set="chop")).notes == ("videos: 12 of 12 listed are here",)
    for name in ("ego/S0_ego_1", "ego/S1_ego_2", "exo/S2_exo_1", "exo/S2_exo_2"):
        (base / f"{name}.mp4").unlink()
    (base / "ego" / "test.csv").unlink()  # whose two videos are in no list now
    catalog = ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    assert [r.path for r in catalog.recordings] == [
        f"chop/{path}.mp4"
        for path in ("ego/S0_ego_2", "exo/S0_exo_1", "exo/S0_exo_2", "ego/S1_ego_1", "exo/S1_exo_1", "exo/S1_exo_2")
    ]
    assert catalog.frame_labels["phase"].keys() == {r.id for r in catalog.recordings}
    assert catalog.notes == (
        "ego/test.csv is not there, so split 'test' has no ego video",
        "videos: 6 of 10 listed are here; missing: 4 (chop/ego/S0_ego_1.mp4, chop/ego/S1_ego_2.mp4, "
        "chop/exo/S2_exo_1.mp4, ...); not listed: 2",
    )
    assert not catalog.quarantined


def test_ae2_videos_that_have_labels_and_are_in_no_folder_are_counted(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "folders")
    everything = ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    assert everything.notes == ("videos with labels: 12 of 12 listed are here",)
    shutil.rmtree(base / "test")
    shutil.rmtree(base / "train" / "ego")
    for path in (base / "val" / "exo").iterdir():
        path.unlink()
    catalog = ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    assert [r.scene for r in catalog.recordings] == ["S0_exo_1", "S0_exo_2", "S1_ego_1", "S1_ego_2"]
    assert [catalog.split_of(r) for r in catalog.recordings] == ["train", "train", "val", "val"]
    assert catalog.notes == (
        "train/ego is not there, so split 'train' has no ego video",
        "val/exo holds no .mp4 file, so split 'val' has no exo video",
        "test/ego is not there, so split 'test' has no ego video",
        "test/exo is not there, so split 'test' has no exo video",
        "videos with labels: 4 of 12 listed are here; missing: 8 (S0_ego_1, S0_ego_2, S1_exo_1, ...)",
    )


@pytest.mark.parametrize(
    ("kind", "looked"),
    [
        ("lists", r"looked for chop/ego/S0_ego_1\.mp4, .*, \.\.\.; it holds ego, exo, label"),
        ("folders", "train/ego/NAME"),
    ],
)
def test_ae2_a_set_without_any_video_is_refused(tmp_path: Path, kind: str, looked: str) -> None:
    base = make_ae2(tmp_path, kind)
    for path in base.rglob("*.mp4"):
        path.unlink()
    with pytest.raises(ValueError, match=rf"chop: no video of the set is there; .*{looked}.*--root"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))


def test_ae2_a_missing_video_is_still_in_one_split(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "lists")
    (base / "exo" / "S0_exo_1.mp4").unlink()
    with (base / "exo" / "test.csv").open("a") as lines:
        lines.write("S0_exo_1.mp4\n")
    with pytest.raises(ValueError, match=r"exo/S0_exo_1\.mp4 is in split 'test' and in split 'train'"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))


def test_ae2_one_file_in_two_splits(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "lists")
    with (base / "exo" / "test.csv").open("a") as lines:
        lines.write("S0_exo_1.mp4\n")
    with pytest.raises(ValueError, match=r"exo/S0_exo_1\.mp4 is in split 'test' and in split 'train'; .*remove"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))


def test_ae2_a_link_into_another_split(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "folders")
    (base / "val" / "ego" / "S1_ego_1.mp4").unlink()
    (base / "val" / "ego" / "S1_ego_1.mp4").symlink_to(base / "train" / "ego" / "S0_ego_1.mp4")
    with pytest.raises(ValueError, match=r"split 'val' and in split 'train', there as chop/train/ego/S0_ego_1\.mp4"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))


def test_ae2_two_videos_with_one_entry_of_labels(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "folders")
    videos.write(base / "val" / "ego" / "S0_ego_1.mp4", frames=7)
    with pytest.raises(ValueError, match=r"label\.pickle: chop/train/ego/S0_ego_1\.mp4 and chop/val/ego/S0_ego_1\.mp4"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))


def test_ae2_ids_name_the_set_and_no_split_and_its_phases_have_names(tmp_path: Path) -> None:
    make_ae2(tmp_path, "lists")
    chop = ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    assert chop.recordings[0].id == "ae2-chop/S0_ego_1/ego"
    assert not chop.classes
    (tmp_path / "chop").rename(tmp_path / "pour_milk")
    milk = ae2.catalog(ae2.Options(root=tmp_path, set="pour_milk"))
    assert milk.classes == {"phase/pour_milk": ("before the liquid exits", "pouring", "pouring complete")}
    assert {r.id for r in milk.recordings} == {r.id.replace("chop", "pour_milk") for r in chop.recordings}
    (tmp_path / "pour_milk").rename(tmp_path / "tennis_forehand")  # which has two phases, while the labels have three
    with pytest.raises(ValueError, match=r"label\.pickle, key 'S0_ego_1', frame 5: the label 2 is above 1"):
        ae2.catalog(ae2.Options(root=tmp_path, set="tennis_forehand"))


def test_ae2_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere/chop: the folder is missing.*pass the folder"):
        ae2.catalog(ae2.Options(root=tmp_path / "nowhere", set="chop"))
    base = make_ae2(tmp_path, "lists")
    (base / "exo" / "val.csv").write_text("")
    with pytest.raises(ValueError, match=r"exo/val\.csv: the split is empty"):
        ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"other: neither ego/train\.csv nor train/ego"):
        ae2.catalog(ae2.Options(root=tmp_path, set="other"))


def test_ae2_unreadable_video_is_quarantined(tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "folders")
    videos.truncate(base / "val" / "exo" / "S1_exo_1.mp4")
    catalog = ae2.catalog(ae2.Options(root=tmp_path, set="chop"))
    check_share(catalog, 0.1)
    assert len(catalog.recordings) == 11
    assert [q.path for q in catalog.quarantined] == ["chop/val/exo/S1_exo_1.mp4"]
    with pytest.raises(ValueError, match=r"1 of 12 videos cannot be used.*max_quarantined = 0\.05(.|\n)*S1_exo_1\.mp4"):
        check_share(catalog, 0.05)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_restricted_pickle_reads_plain_data(tmp_path: Path, protocol: int) -> None:
    data = {
        "a": np.arange(4), "b": [1, 2.5, "x", None, True], "c": (np.int64(3), np.float32(0.5)),
        "d": OrderedDict(e={1, 2}), "f": np.asfortranarray(np.ones((2, 3), np.float16)), "g": b"\xff\x00",
    }  # fmt: skip
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(data, protocol))
    found = safe_pickle.load(tmp_path / "x.pickle")
    np.testing.assert_equal(found, data)
    assert found["f"].dtype == np.float16


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("__import__('pathlib').Path('pwned').touch()",)


@pytest.mark.parametrize("data", [_Evil(), Path("x"), {"a": [np.random.default_rng]}, np.array([_Evil()], object)])
def test_restricted_pickle_refuses_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: object) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(data))
    with pytest.raises(
        ValueError,
        match=r"x\.pickle: (it names (builtins\.eval|pathlib|numpy\.random)|it holds an array of type object)",
    ):
        safe_pickle.load(tmp_path / "x.pickle")
    assert not (tmp_path / "pwned").exists()


def test_restricted_pickle_refuses_what_is_outside(tmp_path: Path) -> None:
    (tmp_path / "x.pickle").write_bytes(b"Psome object\n.")
    with pytest.raises(ValueError, match=r"x\.pickle: it refers to an object outside the file \('some object'\)"):
        safe_pickle.load(tmp_path / "x.pickle")


def test_restricted_pickle_names_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "x.pickle").write_bytes(pickle.dumps([1, 2, 3])[:-3])
    with pytest.raises(ValueError, match=r"x\.pickle: not a readable pickle"):
        safe_pickle.load(tmp_path / "x.pickle")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("\n".join(make_folder(tmp_path)))
    catalog = folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv"))
    first, second, third = catalog.recordings
    assert (first.id, first.perspective, first.start_offset_s, first.num_frames) == ("list/take1/head", "ego", 0.5, 5)
    assert (second.start_offset_s, catalog.split_of(third)) == (0.0, "val")
    assert catalog.frame_labels["phase"][first.id].tolist() == [0, 0, 1, 1, 2]
    assert catalog.frame_labels["phase"][second.id].tolist() == [0, 1, 1, 1, 2]
    assert third.id not in catalog.frame_labels["phase"]


def test_a_camera_may_start_before_the_clock(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("\n".join(make_folder(tmp_path)).replace(",0.5,", ",-0.5,"))
    first = folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv")).recordings[0]
    assert (first.start_offset_s, first.start_s) == (-0.5, -0.5)


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (0, "scene", "scenes", "line 1: column 'scene' is missing"),
        (0, "labels", "label", "line 1: column 'label' is unknown"),
        (1, "ego", "egocentric", "line 2, column 'perspective': 'egocentric'"),
        (2, "b.mp4", "z.mp4", "line 3, column 'path': .*z.mp4 is missing"),
        (2, "take1,cam", "take1,head", "line 3: scene and view take1/head are in line 2 already"),
        (2, "take1", "take/1", "line 3, column 'scene': 'take/1' holds a '/'"),
        (3, "take2", "take1", "line 4: scene and view take1/cam are in line 3 already.*in whatever split"),
        (3, ",0,", ",soon,", "line 4, column 'start_offset_s': 'soon'"),
        (3, "val", "", "line 4, column 'split': it is empty"),
        (3, ",0,", "", "line 4: .* does not fit the header"),
        (3, ",0,", ",0,a.txt,x", "line 4: .* does not fit the header"),
        (1, "a.txt", "list.csv", "line 2, column 'labels': .*one whole number per frame"),
        (1, "a.txt", "gone.txt", "line 2, column 'labels': .*gone.txt"),
    ],
)
def test_folder_broken_csv(tmp_path: Path, line: int, old: str, new: str, message: str) -> None:
    lines = make_folder(tmp_path)
    lines[line] = lines[line].replace(old, new)
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"list\.csv, {message}"):
        folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv"))


def test_folder_one_file_in_two_splits(tmp_path: Path) -> None:
    lines = make_folder(tmp_path)
    (tmp_path / "list.csv").write_text("\n".join([*lines, "./a.mp4,test,take9,head,ego,,"]))
    with pytest.raises(ValueError, match=r"list\.csv, line 5: \./a\.mp4 is in split 'test' and in split 'train'"):
        folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv"))


def test_folder_label_of_wrong_length(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("\n".join(make_folder(tmp_path)))
    (tmp_path / "a.txt").write_text("0 0 1 1")
    catalog = folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv"))
    assert [r.path for r in catalog.recordings] == ["b.mp4", "c.mp4"]
    (set_aside,) = catalog.quarantined
    wrong = r"list\.csv, line 2, column 'labels': .*a\.txt holds 4 labels, but a\.mp4 decodes to 5 frames"
    assert set_aside.path == "a.mp4"
    assert re.match(rf".*{wrong}", set_aside.reason)


def test_folder_empty_csv(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(make_folder(tmp_path)[0] + "\n")
    with pytest.raises(ValueError, match=r"list\.csv: it lists no recording"):
        folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "list.csv"))


def test_a_set_may_name_its_own_phases(tmp_path: Path) -> None:
    """The world's pour_milk has four phases, AE2's three."""
    base = make_ae2(tmp_path, "folders").rename(tmp_path / "pour_milk")
    labels = pickle.loads((base / "label.pickle").read_bytes())
    (base / "label.pickle").write_bytes(pickle.dumps({k: np.full_like(v, 3) for k, v in labels.items()}))
    with pytest.raises(ValueError, match=r"key 'S0_ego_1', frame 0: the label 3 is above 2 .*pouring complete"):
        ae2.catalog(ae2.Options(root=tmp_path, set="pour_milk"))
    (base / "phases.txt").write_text("fetch\npour\nreturn\nserve\n")
    made = ae2.catalog(ae2.Options(root=tmp_path, set="pour_milk"))
    assert made.all_classes()["phase/pour_milk"] == ("fetch", "pour", "return", "serve")
