"""Charades-Ego: its lists, the rule for dirty intervals, pairs, and its videos or frames."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import image_folders
import numpy as np
import pytest
import videos
from fuzzed_text import damage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.charades_ego import Options, catalog, read_annotations
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.synthetic.layouts.charades_ego import COLUMNS
from crossview.errors import UserError

CLASSES = [f"c{k:03d} Doing thing {k}" for k in range(157)]


def row(name: str, actions: str = "", *, subject: str = "I2IV", egocentric: str | None = None) -> list[str]:
    said = egocentric or ("Yes" if len(name) == 8 else "No")
    script = 'A person says "hello", then smiles.'
    return [name, subject, "Bedroom", "7", "7", "Yes", script, "bed;pillow", "", actions, "29.54", said, "LNEAG"]


def write_list(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """As published: CRLF, quotes where a value needs them."""
    with file.open("w", newline="") as stored:
        csv.writer(stored, lineterminator="\r\n").writerows([COLUMNS, *rows])


def annotate(folder: Path, train: Sequence[Sequence[str]] = (), test: Sequence[Sequence[str]] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_list(folder / "CharadesEgo_v1_train.csv", train)
    write_list(folder / "CharadesEgo_v1_test.csv", test)
    (folder / "Charades_v1_classes.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pairs, one of which is in training, and a listed video that is missing."""
    annotate(
        tmp_path / "CharadesEgo",
        train=[row("W1XD0EGO", "c115 0.00 0.70;c008 0.30 0.50;c008 0.40 0.90"), row("W1XD0", "c115 0.10 0.50")],
        test=[
            row("QOZW9", "c092 0.70 0.70;c000 0.20 0.10;c001 0.10 9.00;c002 5.00 6.00", subject="EV0Z"),
            row("QOZW9EGO"),
            row("ZZZZZ", "c003 0.00 1.00"),
        ],
    )
    release = tmp_path / "CharadesEgo_v1_480"
    videos.write(release / "W1XD0EGO.mp4", frames=30, fps=30)
    videos.write(release / "W1XD0.mp4", frames=20, fps=25)
    videos.write(release / "QOZW9EGO.mp4", frames=15, fps=15)
    videos.write(release / "QOZW9.mp4", frames=30, fps=30)
    return tmp_path


def read(root: Path, **options: object) -> Catalog:
    return catalog(Options(root=root, **options), prober=Prober(root / "index"))  # type: ignore[arg-type]


def spans(found: Catalog, recording: str) -> list[tuple[float, float, str]]:
    return [(s.start_s, s.end_s, s.label[:4]) for s in found.segments if s.recording == f"charades_ego/{recording}"]


def test_a_pair_is_one_scene_of_two_clocks(root: Path) -> None:
    found = read(root)
    assert [(r.id, r.perspective, r.subject, r.fps) for r in found.recordings] == [
        ("charades_ego/QOZW9/first", "ego", "I2IV", 15),
        ("charades_ego/QOZW9/third", "exo", "EV0Z", 30),
        ("charades_ego/W1XD0/first", "ego", "I2IV", 30),
        ("charades_ego/W1XD0/third", "exo", "I2IV", 25),
    ]
    assert all(r.own_clock and not r.action for r in found.recordings)
    assert found.protocols == {
        "default": {
            "charades_ego/QOZW9/first": "test",
            "charades_ego/QOZW9/third": "test",
            "charades_ego/W1XD0/first": "train",
            "charades_ego/W1XD0/third": "train",
        }
    }
    views = {"ego": View(perspective="ego", frames=2, fps=None), "exo": View(perspective="exo", frames=2, fps=None)}
    part = found.select("train")
    assert Plan(part, Sampling(views=views, pairing="paired"), seed=0).rows_per_epoch == 1
    with pytest.raises(UserError, match="clock"):
        Plan(part, Sampling(views=views, pairing="synchronized"), seed=0)


def test_intervals_are_labels_of_all_classes(root: Path) -> None:
    found = read(root)
    assert found.classes == {"action": tuple(CLASSES)}
    assert spans(found, "W1XD0/first") == [(0, 0.7, "c115"), (0.3, 0.5, "c008"), (0.4, 0.9, "c008")]
    assert spans(found, "QOZW9/first") == []


def test_dirty_intervals_are_left_out_or_shortened_and_counted(root: Path) -> None:
    found = read(root)
    assert spans(found, "QOZW9/third") == [(0.1, 1.0, "c001")]
    assert found.notes == (
        "CharadesEgo_v1_train.csv: 1 first-person and 1 third-person videos with 4 usable intervals, 0 videos without "
        "one",
        "CharadesEgo_v1_test.csv: 1 first-person and 2 third-person videos with 3 usable intervals, 1 videos without "
        "one",
        "left out: 2 intervals of CharadesEgo_v1_test.csv that end when or before they start "
        "(line 2: QOZW9 c092 0.70 0.70, line 2: QOZW9 c000 0.20 0.10)",
        "videos: 4 of 5 listed are here; missing: 1 (ZZZZZ)",
        "pairs of a first- and a third-person video: 2 of 2 listed are here",
        "left out: 1 spans outside their video (CharadesEgo_v1_test.csv line 2: QOZW9 c002 5.00 6.00)",
        "spans shortened to the end of their video: 1 (CharadesEgo_v1_test.csv line 2: QOZW9 c001 0.10 9.00)",
    )


@pytest.mark.parametrize(
    ("split", "rows", "intervals", "dirty", "pairs", "without"),
    [("train", 3084, 34256, 1108, (30583, 29799), (6, 7)), ("test", 846, 9338, 180, (8498, 8362), (1, 1))],
)
def test_lists_of_the_published_size(
    tmp_path: Path, split: str, rows: int, intervals: int, dirty: int, pairs: tuple[int, int], without: tuple[int, int]
) -> None:
    """First-person lists with the published numbers of intervals, as many of them dirty, over as many (video, class).

    pairs: with the dirty ones and without; without: videos without an interval, and without a usable one.
    """
    codes = np.array(list(product("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "0123456789", "X", "YZ")))
    names = ["".join(code) + "EGO" for code in codes[:rows]]
    actions: dict[str, list[str]] = {name: [] for name in names}
    full, spoilt = names[without[1] :], names[without[0] :]
    cells = [(name, k) for k in range(157) for name in full]
    usable = intervals - dirty
    for n in range(usable):
        name, k = cells[n % pairs[1]]
        actions[name].append(f"c{k:03d} {n % 7}.50 {n % 7 + 4}.25")
    alone = [(name, 156) for name in spoilt][: pairs[0] - pairs[1]]
    for n in range(dirty):
        name, k = alone[n] if n < len(alone) else cells[n % pairs[1]]
        actions[name].append(f"c{k:03d} 24.70 {'24.70' if n % 2 else '23.17'}")
    write_list(tmp_path / f"CharadesEgo_v1_{split}_only1st.csv", [row(name, ";".join(actions[name])) for name in names])
    (tmp_path / "Charades_v1_classes.txt").write_text("\n".join(CLASSES))
    listing = read_annotations(tmp_path)
    assert len(listing.videos) == rows
    assert all(video.ego and video.split == split for video in listing.videos.values())
    kept = [(video.id, interval.number) for video in listing.videos.values() for interval in video.intervals]
    assert (len(kept), len(set(kept))) == (usable, pairs[1])
    assert sum(not video.intervals for video in listing.videos.values()) == without[1]
    file = f"CharadesEgo_v1_{split}_only1st.csv"
    assert f"left out: {dirty:,} intervals of {file} that end when or before they start" in " ".join(listing.notes)
    assert f"{file}: {rows:,} first-person and 0 third-person videos with {usable:,} usable" in " ".join(listing.notes)


def test_the_parts_serve_where_the_whole_list_is_missing(root: Path) -> None:
    folder = root / "CharadesEgo"
    whole = read(root)
    rows = list(csv.reader((folder / "CharadesEgo_v1_test.csv").open(newline="")))[1:]
    (folder / "CharadesEgo_v1_test.csv").unlink()
    write_list(folder / "CharadesEgo_v1_test_only1st.csv", [r for r in rows if r[0].endswith("EGO")])
    write_list(folder / "CharadesEgo_v1_test_only3rd.csv", [r for r in rows if not r[0].endswith("EGO")])
    assert read(root).segments == whole.segments
    assert read(root).protocols == whole.protocols
    for name in ("_only1st", "_only3rd"):
        (folder / f"CharadesEgo_v1_test{name}.csv").unlink()
    assert set(read(root).protocols["default"].values()) == {"train"}
    assert "CharadesEgo_v1_test.csv is not there, so there is no split 'test'" in read(root).notes


def test_frames_are_24_per_second_and_numbered_from_1(root: Path) -> None:
    image_folders.write(root / "CharadesEgo_v1_rgb" / "W1XD0EGO", range(1, 25), name="W1XD0EGO-{:06d}.jpg")
    image_folders.write(root / "CharadesEgo_v1_rgb" / "QOZW9EGO", range(4, 25), name="QOZW9EGO-{:06d}.jpg")
    videos_first = read(root)
    assert {r.kind for r in videos_first.recordings} == {"video"}
    found = read(root, folder="CharadesEgo_v1_rgb")
    facts = {r.id: (r.kind, r.fps, r.num_frames, r.start_s) for r in found.recordings}
    assert facts == {
        "charades_ego/QOZW9/first": ("frames", 24, 21, 3 / 24),
        "charades_ego/W1XD0/first": ("frames", 24, 24, 0),
    }
    assert spans(found, "W1XD0/first") == spans(videos_first, "W1XD0/first")


def test_videos_of_one_release_are_taken(root: Path) -> None:
    videos.write(root / "CharadesEgo_v1" / "W1XD0.mp4", frames=10)
    videos.write(root / "CharadesEgo_v1_480" / "AAAAAEGO.mp4", frames=10)
    (root / "CharadesEgo_v1_480" / "W1XD0").mkdir()  # a file is read before a folder of its name
    found = read(root)
    assert {r.path.partition("/")[0] for r in found.recordings} == {"CharadesEgo_v1_480"}
    assert "videos: 4 of 5 listed are here; missing: 1 (ZZZZZ); not listed: 1" in found.notes
    assert [r.path for r in read(root, folder="CharadesEgo_v1").recordings] == ["CharadesEgo_v1/W1XD0.mp4"]
    flat = read(root / "CharadesEgo_v1_480", annotations=root / "CharadesEgo")
    assert [r.path for r in flat.recordings] == ["QOZW9EGO.mp4", "QOZW9.mp4", "W1XD0EGO.mp4", "W1XD0.mp4"]


def test_two_files_of_one_video_are_refused(root: Path) -> None:
    release = root / "CharadesEgo_v1_480"
    (release / "W1XD0.MP4").write_bytes((release / "W1XD0.mp4").read_bytes())
    with pytest.raises(UserError, match=r"W1XD0\.mp4: W1XD0\.MP4 is the same video; remove one of them"):
        read(root)


def test_an_unreadable_video_is_set_aside(root: Path) -> None:
    videos.truncate(root / "CharadesEgo_v1_480" / "W1XD0.mp4", 0.3)
    found = read(root)
    assert [q.path for q in found.quarantined] == ["CharadesEgo_v1_480/W1XD0.mp4"]
    assert len(found.recordings) == 3


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (row("W1XD0EGO", "c157 0.00 1.00"), "class c157 is outside c000 to c156"),
        (row("W1XD0EGO", "c115 0.00"), "'c115 0.00' in column 'actions' is no class, start and end"),
        (row("W1XD0EGO", "c115 0.00 soon"), "'soon' is not a number"),
        (row("W1XD0EGO", "c115 -1.00 1.00"), "starts before its video"),
        (row("w1xd0ego"), "'w1xd0ego' is not five capitals or digits"),
        (row("../../W1XD0"), "'../../W1XD0' is not five capitals or digits"),
        (row("W1XD0EGO", egocentric="No"), "egocentric is 'No' for id 'W1XD0EGO'"),
        (row("W1XD0", egocentric="maybe"), "'maybe' is unknown; write yes or no"),
        (row("W1XD0")[:-1], "does not fit the header"),
    ],
)
def test_broken_rows_are_refused_with_file_and_line(root: Path, listed: list[str], message: str) -> None:
    annotate(root / "CharadesEgo", train=[row("AAAAA"), listed])
    with pytest.raises(UserError) as refused:
        read(root)
    assert f"{root / 'CharadesEgo' / 'CharadesEgo_v1_train.csv'}, line 3: " in str(refused.value)
    assert message in str(refused.value)


def test_an_id_listed_twice_is_refused(root: Path) -> None:
    annotate(root / "CharadesEgo", train=[row("W1XD0")], test=[row("W1XD0")])
    with pytest.raises(UserError, match=r"CharadesEgo_v1_test.csv line 2: id 'W1XD0' is also in CharadesEgo_v1_train"):
        read(root)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (CLASSES[:-1], "it lists 156 classes, and Charades has 157"),
        ([*CLASSES[:3], *CLASSES[4:]], "line 4: 'c004 Doing thing 4' is not class c003"),
        (["c000"], "line 1: 'c000' is not class c000 and its description"),
    ],
)
def test_a_broken_class_list_is_refused(root: Path, lines: list[str], message: str) -> None:
    (root / "CharadesEgo" / "Charades_v1_classes.txt").write_text("\r\n".join(lines))
    with pytest.raises(UserError) as refused:
        read(root)
    assert message in str(refused.value)


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: the folder is missing"):
        read(tmp_path / "absent")
    with pytest.raises(UserError, match=r"CharadesEgo_v1_train\.csv.* is here; it holds QOZW9.mp4"):
        read(root, annotations=root / "CharadesEgo_v1_480")
    with pytest.raises(UserError, match=r"is here; it is no folder: pass their folder as --annotations"):
        read(root, annotations=root / "CharadesEgo" / "CharadesEgo_v1_train.csv")
    with pytest.raises(UserError, match=rf"there is one in {root}/CharadesEgo: pass their folder as --annotations"):
        read(root, annotations=root)
    above, inside = tmp_path / "deep", tmp_path / "deep" / "set"
    annotate(inside / "CharadesEgo")
    with pytest.raises(UserError, match=rf"there is one in {inside}/CharadesEgo: pass {inside} as --root"):
        read(above)
    with pytest.raises(UserError, match=r"no video .* is in CharadesEgo; .* it holds CharadesEgo, CharadesEgo_v1_480"):
        read(root, folder="CharadesEgo")
    with pytest.raises(UserError, match=r"--folder: '\.\./elsewhere' leads out of"):
        read(root, folder="../elsewhere")
    with pytest.raises(UserError, match="--folder: absent is missing"):
        read(root, folder="absent")
    (root / "CharadesEgo" / "Charades_v1_classes.txt").unlink()
    with pytest.raises(UserError, match=r"Charades_v1_classes\.txt: the list of classes is missing"):
        read(root)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(["CharadesEgo_v1_train.csv", "Charades_v1_classes.txt"]), data=st.data())
def test_damaged_lists_are_read_or_refused(tmp_path: Path, file: str, data: st.DataObject) -> None:
    annotate(tmp_path, train=[row("W1XD0EGO", "c115 0.00 0.70;c008 0.30 0.50"), row("W1XD0")])
    damage(tmp_path / file, data, [b";", b'"', b"\r", b"c15", b"\xff\xfe", b"1e999", b"EGO"])
    refused = ""
    try:
        listing = read_annotations(tmp_path)
    except UserError as error:
        refused = str(error)
    if refused:
        assert file in refused
        return
    assert len(listing.classes) == 157
    for video in listing.videos.values():
        assert all(0 <= i.start_s < i.end_s and i.number < 157 for i in video.intervals)
