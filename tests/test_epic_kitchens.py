"""EPIC-KITCHENS-100 and -55: their lists and classes, both trees of files, frames, and the protocols."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import image_folders
import pytest
import videos
from fuzzed_text import damage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.epic_kitchens import Options, catalog, read_annotations
from crossview.datasets.synthetic.layouts import files
from crossview.errors import DataWarning, UserError

NTSC = 60_000 / 1001
LABELLED = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
TIMED = "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame"
LABELLED_55 = (
    "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,verb,verb_class,noun,"
    "noun_class,all_nouns,all_noun_classes"
)
TIMED_55 = "uid,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame"
SPLITS = (
    "video_id,ar_train,ar_val,ar_test,da_source_train,da_source_test,da_target_train,da_target_test,da_val_source_train,"
    "da_val_source_test,da_val_target_train,da_val_target_test,cmr_train,cmr_test"
)


def labelled(video: str, start_s: float, stop_s: float, verb: int = 0, noun: int = 2) -> str:
    times = f"00:00:00.500,{time(start_s)},{time(stop_s)},{int(start_s * 60)},{int(stop_s * 60)}"
    nouns = f"\"['n{noun}', 'n1']\",\"[{noun}, 1]\""
    return f'{video}_0,{video[:3]},{video},{times},"put {noun}, then ""that""",v{verb},{verb},n{noun},{noun},{nouns}'


def timed(video: str, start_s: float, stop_s: float) -> str:
    return ",".join(labelled(video, start_s, stop_s).split(",")[:8])


def time(seconds: float) -> str:
    return f"{int(seconds // 3600):02d}:{int(seconds // 60 % 60):02d}:{seconds % 60:05.2f}"


def annotate(
    folder: Path, *, train: Sequence[str] = (), val: Sequence[str] = (), test: Sequence[str] = (), nouns: int = 300
) -> Path:
    """Annotations of EPIC-100, with class keys v0, v1, ... and n0, n1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "EPIC_100_train.csv").write_text("\n".join([LABELLED, *train]) + "\n")
    (folder / "EPIC_100_validation.csv").write_text("\n".join([LABELLED, *val]) + "\n")
    (folder / "EPIC_100_test_timestamps.csv").write_text("\n".join([TIMED, *test]) + "\n")
    for kind, count in (("verb", 97), ("noun", nouns)):
        lines = [f"{k},{kind[0]}{k},\"['{kind[0]}{k}', 'more:{k}']\",any" for k in range(count)]
        (folder / f"EPIC_100_{kind}_classes.csv").write_text("\n".join(["id,key,instances,category", *lines]))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Videos of each split, one of the extension, and a listed one that is missing."""
    annotate(
        tmp_path / "epic-kitchens-100-annotations",
        train=[
            labelled("P01_01", 0.0, 0.5),
            labelled("P01_01", 0.4, 0.8, 3, 10),
            labelled("P01_101", 0.1, 0.6),
            labelled("P04_07", 1.0, 2.0),
        ],
        val=[labelled("P18_02", 0.25, 0.5, 96, 299)],
        test=[timed("P33_101", 0.1, 0.4)],
    )
    base = tmp_path / "EPIC-KITCHENS"
    for name, fps in (("P01_01", NTSC), ("P01_101", 50), ("P18_02", NTSC / 2), ("P33_101", 50)):
        film(base / name[:3] / "videos" / f"{name}.MP4", fps)
    return tmp_path


def film(path: Path, fps: float) -> None:
    """One second, in a file with an upper-case ending."""
    shown = (videos.picture(k) for k in range(round(fps)))
    files.encode(shown, path.with_suffix(".mp4"), fps).rename(path)


def read(root: Path, **options: object) -> Catalog:
    return catalog(Options(root=root, **options), prober=Prober(root / "index"))  # type: ignore[arg-type]


def spans(found: Catalog, video: str) -> list[tuple[float, float, str, str]]:
    return [
        (s.start_s, s.end_s, s.name, s.label) for s in found.segments if s.recording == f"epic_kitchens/{video}/ego"
    ]


def test_a_video_is_a_scene_and_its_participant_the_subject(root: Path) -> None:
    found = read(root)
    assert [(r.id, r.perspective, r.subject, r.path.rpartition("/")[2]) for r in found.recordings] == [
        ("epic_kitchens/P01_01/ego", "ego", "P01", "P01_01.MP4"),
        ("epic_kitchens/P01_101/ego", "ego", "P01", "P01_101.MP4"),
        ("epic_kitchens/P18_02/ego", "ego", "P18", "P18_02.MP4"),
        ("epic_kitchens/P33_101/ego", "ego", "P33", "P33_101.MP4"),
    ]
    assert found.protocols == {
        "recognition": {
            "epic_kitchens/P01_01/ego": "train",
            "epic_kitchens/P01_101/ego": "train",
            "epic_kitchens/P18_02/ego": "val",
            "epic_kitchens/P33_101/ego": "test",
        }
    }
    assert found.notes == (
        "EPIC_100_train.csv: 4 segments of 3 videos",
        "EPIC_100_validation.csv: 1 segments of 1 videos",
        "EPIC_100_test_timestamps.csv: 1 segments of 1 videos, without labels",
        "videos: 4 of 5 listed are here; missing: 1 (P04_07)",
    )


def test_segments_overlap_and_have_three_labels_each(root: Path) -> None:
    found = read(root)
    assert spans(found, "P01_01") == [
        (0.0, 0.5, "verb", "v0"), (0.0, 0.5, "noun", "n2"), (0.0, 0.5, "action", "v0 n2"),
        (0.4, 0.8, "verb", "v3"), (0.4, 0.8, "noun", "n10"), (0.4, 0.8, "action", "v3 n10"),
    ]  # fmt: skip
    assert spans(found, "P33_101") == [], "labels of the test are withheld"
    assert found.classes["verb"] == tuple(f"v{k}" for k in range(97))
    assert found.classes["noun"] == tuple(f"n{k}" for k in range(300))
    assert len(found.classes["action"]) == 97 * 300
    assert found.classes["action"].index("v3 n10") == 3 * 300 + 10
    assert found.classes["action"].index("v96 n299") == 96 * 300 + 299


def test_spans_outside_of_their_video_are_counted(root: Path) -> None:
    annotate(
        root / "epic-kitchens-100-annotations",
        train=[
            labelled("P01_01", 0.5, 0.5),
            labelled("P01_01", 0.7, 0.2),
            labelled("P01_01", 0.5, 3.0),
            labelled("P01_01", 61.5, 3661.25),
        ],
    )
    found = read(root)
    assert [(a, b, name) for a, b, name, _ in spans(found, "P01_01")] == [
        (0.5, pytest.approx(60 / NTSC), name) for name in ("verb", "noun", "action")
    ]
    assert found.notes[3:] == (
        "left out: 2 rows of EPIC_100_train.csv that stop when or before they start (EPIC_100_train.csv line 2, "
        "EPIC_100_train.csv line 3)",
        "videos: 1 of 1 listed are here; not listed: 3",
        "left out: 1 spans outside their video (EPIC_100_train.csv line 5)",
        "spans shortened to the end of their video: 1 (EPIC_100_train.csv line 4)",
    )
    listing = read_annotations(Options(root=root))
    assert listing.spans["P01_01"][1].end_s == pytest.approx(3661.25)


def names_100() -> dict[str, list[str]]:
    """As many videos per split as EPIC-100 has, over 37 participants: 201 of train and all of test in the extension."""
    people = [f"P{number:02d}" for number in range(1, 38)]
    original = [f"{person}_{k:02d}" for k in range(1, 13) for person in people][: 495 - 201 + 138]
    extension = [f"{person}_{k}" for k in range(101, 110) for person in people][: 201 + 67]
    return {"train": original[138:] + extension[67:], "val": original[:138], "test": extension[:67]}


def test_lists_of_the_published_size(tmp_path: Path) -> None:
    names = names_100()
    rows = {
        split: [(names[split][k % len(names[split])], 1.5 * k, 1.5 * k + 2) for k in range(count)]
        for split, count in (("train", 1_000), ("val", 9_668), ("test", 13_092))
    }
    annotate(
        tmp_path,
        train=[labelled(*row) for row in rows["train"]],
        val=[labelled(*row, k % 97, k % 300) for k, row in enumerate(rows["val"])],
        test=[timed(*row) for row in rows["test"]],
    )
    listing = read_annotations(Options(root=tmp_path))
    by_split = {split: [v for v, of in listing.splits.items() if of == split] for split in names}
    assert {split: len(found) for split, found in by_split.items()} == {"train": 495, "val": 138, "test": 67}
    assert {len(v) for v in by_split["val"]} == {len("P01_01")}
    assert {len(v) for v in by_split["test"]} == {len("P01_101")}
    assert sum(len(v) == len("P01_101") for v in by_split["train"]) == 201
    assert len({v[:3] for v in listing.splits}) == 37
    validation = [span for v in by_split["val"] for span in listing.spans[v]]
    assert len(validation) == 9_668
    assert all(span.verb is not None and span.noun is not None for span in validation)
    assert all(span.verb is None for v in by_split["test"] for span in listing.spans[v])
    assert "EPIC_100_validation.csv: 9,668 segments of 138 videos" in listing.notes
    assert "EPIC_100_test_timestamps.csv: 13,092 segments of 67 videos, without labels" in listing.notes


def test_the_root_is_epic_kitchens_or_the_folder_that_holds_it(root: Path) -> None:
    inside = read(root / "EPIC-KITCHENS", annotations=root / "epic-kitchens-100-annotations")
    assert [r.path for r in inside.recordings][:2] == ["P01/videos/P01_01.MP4", "P01/videos/P01_101.MP4"]
    assert [r.id for r in inside.recordings] == [r.id for r in read(root).recordings]


def test_the_older_tree_is_read_too(root: Path) -> None:
    base = root / "EPIC-KITCHENS"
    (base / "videos" / "train" / "P01").mkdir(parents=True)
    (base / "P01" / "videos" / "P01_01.MP4").rename(base / "videos" / "train" / "P01" / "P01_01.mp4")
    image_folders.write(
        base / "frames_rgb_flow" / "rgb" / "train" / "P04" / "P04_07", range(1, 61), name="frame_{:010d}.jpg"
    )
    paths = {r.scene: r.path for r in read(root).recordings}
    assert paths["P01_01"] == "EPIC-KITCHENS/videos/train/P01/P01_01.mp4"
    assert paths["P04_07"] == "EPIC-KITCHENS/frames_rgb_flow/rgb/train/P04/P04_07"


def test_frames_are_60_per_second_and_50_in_the_extension(root: Path) -> None:
    base = root / "EPIC-KITCHENS"
    for video in ("P01_01", "P01_101", "P04_07"):
        image_folders.write(base / video[:3] / "rgb_frames" / video, range(1, 31), name="frame_{:010d}.jpg")
    (base / "P01" / "rgb_frames" / "P01_02.tar").write_bytes(b"not unpacked")
    found = {r.scene: (r.kind, r.fps) for r in read(root).recordings}
    assert found["P01_01"] == ("video", pytest.approx(NTSC))
    assert found["P04_07"] == ("frames", 60)
    preferred = read(root, prefer="frames")
    assert {r.scene: (r.kind, r.fps, r.start_s) for r in preferred.recordings if r.kind == "frames"} == {
        "P01_01": ("frames", 60, 0),
        "P01_101": ("frames", 50, 0),
        "P04_07": ("frames", 60, 0),
    }
    assert {r.scene for r in preferred.recordings if r.kind == "video"} == {"P18_02", "P33_101"}


def test_first_frames_that_are_missing_shift_no_time(root: Path) -> None:
    folder = root / "EPIC-KITCHENS" / "P04" / "rgb_frames" / "P04_07"
    image_folders.write(folder, range(61, 91), name="frame_{:010d}.jpg")
    found = read(root)
    (recording,) = (r for r in found.recordings if r.scene == "P04_07")
    assert (recording.start_s, recording.num_frames) == (1.0, 30)
    assert spans(found, "P04_07")[0][:2] == (1.0, 1.5)


def test_uda_and_retrieval_come_from_the_table_of_splits(root: Path) -> None:
    table = root / "epic_100_splits.csv"
    table.write_text(
        f"{SPLITS}\n"
        "P01_01,TRUE,FALSE,FALSE,TRUE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,TRUE,FALSE\n"
        "P01_101,TRUE,FALSE,FALSE,FALSE,FALSE,TRUE,FALSE,FALSE,FALSE,FALSE,FALSE,TRUE,FALSE\n"
        "P18_02,FALSE,TRUE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,TRUE\n"
        "P33_101,FALSE,FALSE,TRUE,FALSE,FALSE,FALSE,TRUE,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE\n"
    )
    protocols = read(root, splits=table).protocols
    assert list(protocols) == ["recognition", "uda", "retrieval"]
    short = {name: {r.split("/")[1]: split for r, split in of.items()} for name, of in protocols.items()}
    assert short["uda"] == {"P01_01": "train", "P01_101": "target", "P33_101": "test"}
    assert short["retrieval"] == {"P01_01": "train", "P01_101": "train", "P18_02": "test"}
    table.write_text(f"{SPLITS}\nP01_01,TRUE,FALSE,FALSE,TRUE,TRUE{',FALSE' * 8}\nP01_02,1{',FALSE' * 12}\n")
    with pytest.raises(UserError, match=r"splits\.csv, line 2: P01_01 is in several splits of uda"):
        read(root, splits=table)
    with pytest.raises(UserError, match="--release is 55, which has no such table"):
        read(root, splits=table, release="55", annotations=annotate_55(root / "old"))


def test_a_split_without_its_list_is_left_out(root: Path) -> None:
    (root / "epic-kitchens-100-annotations" / "EPIC_100_test_timestamps.csv").unlink()
    found = read(root)
    assert set(found.protocols["recognition"].values()) == {"train", "val"}
    assert "EPIC_100_test_timestamps.csv is not there, so there is no split 'test'" in found.notes
    assert "videos: 3 of 4 listed are here; missing: 1 (P04_07); not listed: 1" in found.notes


def test_lists_as_editors_leave_them(root: Path) -> None:
    folder = root / "epic-kitchens-100-annotations"
    before = read(root)
    for file in folder.glob("*.csv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().strip().replace(b"\n", b"\r\n"))
    test = folder / "EPIC_100_test_timestamps.csv"  # an early release of it numbers its rows
    head, *rows = test.read_text(encoding="utf-8-sig").splitlines()
    test.write_text("\n".join([f"uid,{head}", *(f"{k},{row}" for k, row in enumerate(rows))]))
    after = read(root)
    assert (after.segments, after.protocols, after.classes) == (before.segments, before.protocols, before.classes)


def test_further_columns_of_a_published_table_are_told_and_passed_over(root: Path) -> None:
    before = read(root)
    file = root / "epic-kitchens-100-annotations" / "EPIC_100_train.csv"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([f"{head},mood", *(f"{row},fine" for row in rows)]))
    with pytest.warns(DataWarning, match=r"EPIC_100_train\.csv, line 1: columns that are not read: 'mood'$"):
        after = read(root)
    assert (after.segments, after.protocols) == (before.segments, before.protocols)
    file.write_text("\n".join([head.replace("verb_class", "verb_clas"), *rows]))
    with pytest.raises(UserError, match=r"'verb_clas' is unknown; did you mean 'verb_class'\?") as refused:
        read(root)
    assert "column 'verb_class' is missing" in str(refused.value)


def test_classes_are_numbered_by_their_ids(root: Path) -> None:
    folder = root / "epic-kitchens-100-annotations"
    file = folder / "EPIC_100_noun_classes.csv"
    head, *lines = file.read_text().splitlines()
    lines[7] = lines[7].replace(",n7,", ",n5,")
    file.unlink()
    later = [*reversed(lines), "300,\"of a later list\",\"['a', 'b']\",any"]
    (folder / "EPIC_100_noun_classes_v2.csv").write_text("\n".join(['"id","key","instances","category"', *later]))
    found = read(root)
    assert len(found.classes["noun"]) == 300
    assert found.classes["noun"][:8] == ("n0", "n1", "n2", "n3", "n4", "n5 (5)", "n6", "n5 (7)")
    assert head == "id,key,instances,category"


def annotate_55(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        f"{k},{video[:3]},{video},open door,00:00:00.14,00:00:00.37,8,22,open,2,door,{noun},['door'],[{noun}]"
        for k, (video, noun) in enumerate((("P01_01", 8), ("P18_02", 351)))
    ]
    (folder / "EPIC_train_action_labels.csv").write_text("\n".join([LABELLED_55, *rows]))
    for name, video in (("s1", "P01_11"), ("s2", "P33_01")):
        line = f"1924,{video[:3]},{video},00:00:00.00,00:00:01.89,1,113"
        (folder / f"EPIC_test_{name}_timestamps.csv").write_text(f"{TIMED_55}\n{line}\n")
    for kind, count in (("verb", 125), ("noun", 352)):
        lines = [f"{k},{kind}{k},['{kind}{k}']" for k in range(count)]
        (folder / f"EPIC_{kind}_classes.csv").write_text("\n".join([f"{kind}_id,class_key,{kind}s", *lines]))
    return folder


def test_epic_55_has_classes_and_tests_of_its_own(root: Path) -> None:
    annotate_55(root / "epic-kitchens-55-annotations")
    film(root / "EPIC-KITCHENS" / "P01" / "videos" / "P01_11.MP4", 30)
    found = read(root, release="55")
    assert {r.scene: found.split_of(r) for r in found.recordings} == {
        "P01_01": "train",
        "P01_11": "test_s1",
        "P18_02": "train",
    }
    assert {kind: len(names) for kind, names in found.classes.items()} == {
        "verb": 125,
        "noun": 352,
        "action": 125 * 352,
    }
    assert spans(found, "P18_02") == [
        (0.14, 0.37, "verb", "verb2"), (0.14, 0.37, "noun", "noun351"), (0.14, 0.37, "action", "verb2 noun351"),
    ]  # fmt: skip
    assert "videos: 3 of 4 listed are here; missing: 1 (P33_01); not listed: 2" in found.notes


def test_a_validation_of_epic_55_is_a_list(root: Path) -> None:
    annotate_55(root / "old")
    held = root / "val.txt"
    held.write_text("P18\r\n")
    found = read(root, release="55", val=held)
    assert {r.scene: found.split_of(r) for r in found.recordings} == {"P01_01": "train", "P18_02": "val"}
    held.write_text("P01_01\nP33_01\n")
    with pytest.raises(UserError, match=r"val\.txt, line 2: 'P33_01' is no training video or participant"):
        read(root, release="55", val=held)
    with pytest.raises(UserError, match="has a split val of its own"):
        read(root, val=held)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (labelled("P01_01", 0, 1, verb=97), "column 'verb_class': 97 is outside the classes, which are 0 to 96"),
        (labelled("P01_01", 0, 1, noun=300), "column 'noun_class': 300 is outside the classes, which are 0 to 299"),
        (labelled("P01_01", 0, 1, verb=-1), "column 'verb_class': '-1' is not a whole number"),
        (labelled("P1_1", 0, 1), "column 'video_id': 'P1_1' is not the name of a video"),
        (labelled("../P01_01", 0, 1), "column 'video_id': '../P01_01' is not the name of a video"),
        (labelled("P01_01", 0, 1).replace("00:00:01.00", "1.00"), "column 'stop_timestamp': '1.00' is no time"),
        (labelled("P01_01", 2, 3).replace("00:00:02.00", "00:61:00"), "column 'start_timestamp': '00:61:00' is no"),
        (labelled("P01_01", 0, 1) + ",more", "does not fit the header"),
        (labelled("P01_01", 0, 1)[:-1], "a quote"),
    ],
)
def test_broken_rows_are_refused_with_file_and_line(root: Path, row: str, message: str) -> None:
    folder = annotate(root / "epic-kitchens-100-annotations", train=[labelled("P01_01", 0, 1), row])
    with pytest.raises(UserError) as refused:
        read(root)
    assert f"{folder / 'EPIC_100_train.csv'}, line 3" in str(refused.value)
    assert message in str(refused.value)


def test_a_video_of_two_splits_is_refused(root: Path) -> None:
    annotate(root / "epic-kitchens-100-annotations", train=[labelled("P01_01", 0, 1)], val=[labelled("P01_01", 0, 1)])
    with pytest.raises(UserError, match=r"validation\.csv line 2: P01_01 is also in EPIC_100_train\.csv"):
        read(root)


def test_two_files_of_one_video_are_refused(root: Path) -> None:
    videos.write(root / "EPIC-KITCHENS" / "videos" / "train" / "P01" / "P01_01.mp4", frames=3)
    with pytest.raises(UserError, match=r"P01_01\.mp4: EPIC-KITCHENS/P01/videos/P01_01\.MP4 is the same video"):
        read(root)


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    annotations = root / "epic-kitchens-100-annotations"
    empty = tmp_path / "empty"
    (empty / "P01" / "rgb_frames").mkdir(parents=True)
    with pytest.raises(UserError, match=r"looked for P01/videos/P01_01\.MP4.*it holds P01:"):
        read(empty, annotations=annotations)
    (empty / "P01" / "rgb_frames" / "P01_01.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"it holds P01/rgb_frames/P01_01\.tar \(unpack each"):
        read(empty, annotations=annotations)
    film(empty / "P01" / "videos" / "P01_05.MP4", 30)
    with pytest.raises(UserError, match=r"none of the 5 videos .* is there, but P01_05"):
        read(empty, annotations=annotations)
    with pytest.raises(UserError, match=r"none of the annotation files of EPIC-KITCHENS-55, EPIC_train_action"):
        read(root, release="55")
    file = annotations / "EPIC_100_verb_classes.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-2]))
    with pytest.raises(UserError, match=r"verb_classes\.csv: 2 of the 97 classes are missing \(95, 96\)"):
        read(root)
    file.write_text("id,key,instances,category\n0,take,a,b\n0,put,a,b\n")
    with pytest.raises(UserError, match=r"line 3, column 'id': 0 has the names 'take' and 'put'"):
        read(root)
    file.unlink()
    with pytest.raises(UserError, match=r"EPIC_100_verb_classes\.csv: the list of classes is missing"):
        read(root)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(["EPIC_100_train.csv", "EPIC_100_test_timestamps.csv", "EPIC_100_verb_classes.csv"]),
    data=st.data(),
)
def test_damaged_lists_are_read_or_refused(tmp_path: Path, file: str, data: st.DataObject) -> None:
    annotate(tmp_path, train=[labelled("P01_01", 0.0, 0.5)], test=[timed("P33_101", 0.1, 0.4)])
    damage(tmp_path / file, data, [b",", b'"', b"\r", b"99", b"\xff\xfe", b":", b"P01_02"])
    refused = ""
    try:
        listing = read_annotations(Options(root=tmp_path))
    except UserError as error:
        refused = str(error)
    if refused:
        assert file in refused
        return
    assert (len(set(listing.verbs)), len(set(listing.nouns))) == (97, 300)
    for span in (span for spans in listing.spans.values() for span in spans):
        assert 0 <= span.start_s < span.end_s
        assert (span.verb or 0) < 97
        assert (span.noun or 0) < 300
