"""Kinetics-400: its four forms on disk, names and replacements, numbers of classes, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import videos

from crossview.datasets import kinetics
from crossview.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split\n"
A, B, C, D = "-aaaaaaaaa_", "bbbbbbbbbbb", "c_c-ccccccc", "ddddddddddd"
HURLING = "hurling (sport)"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, newline="")


def found(root: Path, **options: Path) -> dict[str, list[tuple[str, str, str]]]:
    """(scene, path, label) by split."""
    clips = kinetics.found_under(kinetics.Options(root=root, **options)).clips
    return {split: [(c.scene, c.path, c.label) for c in of] for split, of in clips.items()}


def test_as_it_is_downloaded(tmp_path: Path) -> None:
    root = tmp_path / "train"  # a root's name is no split
    for name in (f"train/{A}_000003_000013", f"train/{B}", f"val/{C}_000100_000110", f"test/{D}_000001_000011"):
        videos.write(root / f"{name}.mp4", frames=6)
    touch(root, "train/zzzzzzzzzzz_000001_000011.mp4", "train/not_listed1_000001_000011.mp4")
    videos.write(root / "replacement" / "replacement_for_corrupted_k400" / "zzzzzzzzzzz.mp4", frames=4)
    write(
        root / "annotations" / "train.csv",
        f'\ufeff{HEADER}"{HURLING}",{A},3,13,train\r\nair drumming,{B},7,17,train\r\n"air drumming",zzzzzzzzzzz,1,11\r'
        "\nzumba,nowhere-yet,000001,000011,train",
    )
    write(root / "annotations" / "val.csv", f"{HEADER}massaging person's head,{C},100,110,val\n")
    write(root / "annotations" / "test.csv", f"youtube_id,time_start,time_end,split\n{D},1,11,test\n")
    made = kinetics.catalog(kinetics.Options(root=root))
    assert {r.id: (r.path, r.action, r.num_frames) for r in made.recordings} == {
        f"kinetics/{A}_000003/exo": (f"train/{A}_000003_000013.mp4", HURLING, 6),
        f"kinetics/{B}_000007/exo": (f"train/{B}.mp4", "air drumming", 6),
        "kinetics/zzzzzzzzzzz_000001/exo": (
            "replacement/replacement_for_corrupted_k400/zzzzzzzzzzz.mp4", "air drumming", 4,
        ),
        f"kinetics/{C}_000100/exo": (f"val/{C}_000100_000110.mp4", "massaging person's head", 6),
        f"kinetics/{D}_000001/exo": (f"test/{D}_000001_000011.mp4", "", 6),
    }  # fmt: skip
    assert list(made.protocols["default"].values()) == ["train"] * 3 + ["val", "test"]
    assert made.classes["action"] == ("air drumming", HURLING, "massaging person's head", "zumba")
    assert made.notes[0] == (
        "train, clips of train.csv: 3 of 4 listed are here; missing: 1 (nowhere-yet_000001); not listed: 1"
    )
    assert "train: 3 clips, val: 1 clips, test: 1 clips; of 3 of 4 classes, without a label: 1" in made.notes
    assert any("classes: 4 are named and numbered by what is here, not 400" in note for note in made.notes)
    assert not made.quarantined


def test_an_empty_file_without_replacement_is_set_aside(tmp_path: Path) -> None:
    videos.write(tmp_path / "train" / "zumba" / f"{A}.mp4", frames=4)
    touch(tmp_path, f"train/zumba/{B}.mp4")
    made = kinetics.catalog(kinetics.Options(root=tmp_path))
    assert [r.scene for r in made.recordings] == [A]
    assert [q.path for q in made.quarantined] == [f"train/zumba/{B}.mp4"]


def test_folders_of_classes(tmp_path: Path) -> None:
    touch(
        tmp_path,
        f"videos/train/{HURLING}/{A}_000003_000013.mp4",
        f"videos/train/air drumming/{B}.MKV",
        f"videos/val/air_drumming/{C}_000100_000110.webm",
        "videos/val/hurling_(sport)/my own.mp4",
        "videos/val/hurling_(sport)/notes.txt",
    )
    assert found(tmp_path) == {
        "train": [
            (B, f"videos/train/air drumming/{B}.MKV", "air drumming"),
            (f"{A}_000003", f"videos/train/{HURLING}/{A}_000003_000013.mp4", HURLING),
        ],
        "val": [
            (f"{C}_000100", f"videos/val/air_drumming/{C}_000100_000110.webm", "air drumming"),
            ("videos_val_hurling_(sport)_my own", "videos/val/hurling_(sport)/my own.mp4", HURLING),
        ],
    }


def test_numbers_of_classes_do_not_depend_on_what_is_here(tmp_path: Path) -> None:
    touch(tmp_path, f"train/hurling_sport/{A}.mp4", f"train/zumba/{B}.mp4")
    write(tmp_path / kinetics.LABEL_MAP, f"air drumming\n{HURLING}\nyoga\nzumba\n")
    of = kinetics.found_under(kinetics.Options(root=tmp_path))
    assert of.classes == ("air drumming", HURLING, "yoga", "zumba")
    assert [clip.label for clip in of.clips["train"]] == [HURLING, "zumba"]  # brackets are lost in some copies
    write(tmp_path / "mine.txt", "\n".join(f"class {k}" for k in range(399)) + f"\n{HURLING}\n")
    with pytest.raises(
        UserError, match=r"train/zumba/b+\.mp4: the class 'zumba' is none of the 400 \(class 0, class 1"
    ):
        found(tmp_path, classes=tmp_path / "mine.txt")


def test_lists_of_paths_and_numbers(tmp_path: Path) -> None:
    touch(tmp_path, f"videos_train/air_drumming/{A}_000003_000013.mp4", f"videos_train/zumba/{B}.mp4", "k/my clip.mp4")
    touch(tmp_path, f"replacement/{B}.mp4")
    write(
        tmp_path / "kinetics400_train_list_videos.txt",
        f"air_drumming/{A}_000003_000013.mp4 0\nzumba/{B}.mp4 399\nyoga/{C}_000001_000011.mp4 398\n",
    )
    write(tmp_path / "val.csv", f'"k/my clip.mp4", 7\r\nk/gone.mp4\t8\r\n{tmp_path}/k/gone,too.mp4,9')
    of = kinetics.found_under(kinetics.Options(root=tmp_path))
    assert [(c.path, c.label) for c in of.clips["train"]] == [
        (f"videos_train/air_drumming/{A}_000003_000013.mp4", "0"),
        (f"replacement/{B}.mp4", "399"),
    ]
    assert [(c.scene, c.path, c.label) for c in of.clips["val"]] == [("k_my clip", "k/my clip.mp4", "7")]
    assert of.classes == tuple(map(str, range(400)))
    assert "val, clips of val.csv: 1 of 3 listed are here; missing: 2 (k/gone.mp4, k/gone,too.mp4)" in of.notes
    write(tmp_path / "classes.txt", "\n".join(f"class {k}" for k in range(400)))
    assert found(tmp_path, classes=tmp_path / "classes.txt")["train"][1][2] == "class 399"


def test_lists_elsewhere_and_a_clip_in_two_splits(tmp_path: Path) -> None:
    touch(tmp_path, f"k400/train/{A}_000003_000013.mp4", f"k400/val/{A}_000003_000013.mp4")
    for split in ("train", "val"):
        write(tmp_path / "lists" / f"{split}.csv", f"zumba,{A},3,13,{split}\n")  # no header
    of = kinetics.found_under(kinetics.Options(root=tmp_path, lists=tmp_path / "lists"))
    assert list(of.clips) == ["train"]
    assert f"left out: 1 clips that are there already (k400/val/{A}_000003_000013.mp4)" in of.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{HEADER}zumba,short,3,13,train\n",
            r"train\.csv, line 2: 'zumba,short,3,13,train' is broken; a line is label",
        ),
        (f"{HEADER}\nzumba,{A},x,13,train\n", r"train\.csv, line 3: .* is broken"),
        (f'{HEADER}"zumba,{A},3,13,train\n', r'train\.csv, line 2: a quote \("\) is not closed'),
        (f"label,youtube_id\nzumba,{A}\n", r"train\.csv, line 1: column 'time_start' is missing"),
        ("a/b.mp4\n", r"train\.csv, line 1: 'a/b\.mp4' is broken; a line is a path and a label from 0 to 399"),
        ("a/b.mp4 400\n", r"train\.csv, line 1: 'a/b\.mp4 400' is broken"),
        ("../b.mp4 1\n", r"train\.csv, line 1: '\.\./b\.mp4' leads out of"),
        ("/data/b.mp4 1\n", r"train\.csv, line 1: '/data/b\.mp4' leads out of .*; write paths relative to it"),
        ("a/gone.mp4 1\n", r"no video that .*train\.csv lists is here; it holds train/-aaa.*: pass the folder"),
    ],
)
def test_broken_lists(tmp_path: Path, text: str, said: str) -> None:
    touch(tmp_path, f"train/{A}_000003_000013.mp4")
    write(tmp_path / "train.csv", text)
    with pytest.raises(UserError, match=said):
        kinetics.catalog(kinetics.Options(root=tmp_path))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            (),
            r"neither a folder train, val or test .* nor a list of them such as annotations/train.*; it holds no video",
        ),
        ((f"k/{A}.mp4",), r"it holds k/-a+_\.mp4: pass the folder that holds them as --root"),
        ((f"train/{A}.mp4",), r"train/-a+_\.mp4: it is in no folder of a class, .*put annotations/train\.csv there"),
    ],
)
def test_what_is_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(UserError, match=said):
        kinetics.catalog(kinetics.Options(root=tmp_path))


def test_classes_are_listed_once(tmp_path: Path) -> None:
    touch(tmp_path, f"train/zumba/{A}.mp4")
    write(tmp_path / "classes.txt", "zumba\nzumba\n")
    with pytest.raises(UserError, match=r"classes\.txt: it has 1 different names in 2 lines; write each class once"):
        found(tmp_path, classes=tmp_path / "classes.txt")


def test_a_long_list_is_read_at_50_000_lines_in_5_s(tmp_path: Path) -> None:
    touch(tmp_path, f"train/{A}_000003_000013.mp4")
    rows = "".join(f"class {k % 400},{k:011d},3,13,train\n" for k in range(49_999))
    write(tmp_path / "annotations" / "train.csv", f"{HEADER}class 7,{A},3,13,train\n{rows}")
    began = time.process_time()
    of = kinetics.found_under(kinetics.Options(root=tmp_path))
    assert time.process_time() - began < 5
    assert len(of.classes) == 400
    assert of.notes[0].startswith("train, clips of train.csv: 1 of 50,000 listed are here; missing: 49,999 (")
