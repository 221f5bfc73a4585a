"""Spans and folders of images in the CSV of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import image_folders
import numpy as np
import pytest
import videos
from recording_kinds import FIRST, HEADER, LINES, listed

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober, check_share
from crossview.datasets.catalog.spans import Part, check_splits
from crossview.datasets.folder import Options, catalog
from crossview.errors import UserError
from crossview.platform.cli.main import main


def test_the_csv_gives_spans_and_folders(everything: Catalog, kinds: Path) -> None:
    found = {r.scene: (r.kind, r.first_frame, r.num_frames, r.fps) for r in everything.recordings}
    assert found == {
        "a": ("video", 0, 30, 30),
        "b": ("video", 40, 30, 30),
        "c": ("video", 70, 40, 30),
        "d": ("video", 0, 40, 30),
        "e": ("video", 30, 30, 30),
        "f": ("video", 60, 30, 30),
        "g": ("frames", 0, 30, 30),
        "h": ("frames", 5, 15, 30),
        "i": ("frames", 20, 20, 30),
    }
    assert not everything.quarantined
    by_path: dict[str, set[str]] = {}
    for r in everything.recordings:
        by_path.setdefault(r.path, set()).add(r.index)
    assert all(len(indices) == 1 for indices in by_path.values())
    everything.save(kinds / "catalog")
    again = Catalog.load(kinds / "catalog")
    assert again.protocols == everything.protocols
    assert [replace(r, index="") for r in again.recordings] == [replace(r, index="") for r in everything.recordings]


def test_a_file_is_probed_once_for_all_its_spans(kinds: Path, tmp_path: Path) -> None:
    (tmp_path / "kinds.csv").write_text("\n".join([HEADER, *LINES]))
    ticks: list[tuple[int, int]] = []
    prober = Prober(tmp_path, lambda done, total: ticks.append((done, total)))
    catalog(Options(root=kinds, csv=tmp_path / "kinds.csv"), prober=prober)
    assert ticks == [(k, 5) for k in range(1, 6)]


def test_the_clock_of_a_span_starts_with_it(everything: Catalog) -> None:
    by_scene = {r.scene: r for r in everything.recordings}
    assert everything.instants(by_scene["c"], np.array([0, 30])) == pytest.approx([0, 1])
    assert everything.instants(by_scene["f"], np.array([0, 15])) == pytest.approx([2.5, 3])


def test_the_clock_of_a_span_of_a_variable_rate_starts_with_it(tmp_path: Path) -> None:
    videos.write(tmp_path / "v.mp4", frames=30, variable=True)  # frames 0, 3, 6, ... last two thirtieths
    (span,) = listed(tmp_path, "v.mp4,train,a,ego,ego,1,9,6,,,,").recordings
    assert not span.constant_rate
    found = listed(tmp_path, "v.mp4,train,a,ego,ego,1,9,6,,,,")
    assert found.instants(span, np.arange(4)) == pytest.approx([1, 1 + 2 / 30, 1 + 3 / 30, 1 + 4 / 30], abs=2e-3)
    (timed,) = listed(tmp_path, "v.mp4,train,b,ego,ego,0,,,0.8,1.2,,").recordings
    assert (timed.first_frame, timed.num_frames) == (18, 9)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["long.mp4,train,a,x,ego,0,4,,1,,,"], "line 2, column 'first_frame': it is 4, but the line has start_s"),
        (["long.mp4,train,a,x,ego,0,-1,,,,,"], "line 2, column 'first_frame': '-1' is not a whole number from 0 on"),
        (["long.mp4,train,a,x,ego,0,,0,,,,"], "line 2, column 'num_frames': '0' is not a whole number from 1 on"),
        (["long.mp4,train,a,x,ego,0,,,2,1,,"], "line 2, column 'end_s': 1 is not after start_s = 2"),
        (["long.mp4,train,a,x,ego,0,,,2,2,,"], "line 2, column 'end_s': 2 is not after start_s = 2"),
        (["images,train,a,x,ego,0,,,,,x,"], "line 2, column 'fps': x; a folder of images needs its rate, from 0.001"),
        (["long.mp4,train,a,x,ego,0,,,-2,1,,"], "line 2, column 'start_s': -2 is before the file's start"),
        (["long.mp4,train,a,x,ego,0,,,,,30,"], "line 2, column 'fps': it is 30, but path names a file"),
        (["images,train,a,x,ego,0,,,,,,"], "line 2, column 'fps': it is empty; a folder of images needs its rate"),
        (["images,train,a,x,ego,0,,,,,0,"], "line 2, column 'fps': 0; a folder of images needs its rate"),
        (["images,train,a,x,ego,0,,,,,30,x"], "line 2, column 'first_number': 'x' is not a whole number"),
        (["gone,train,a,x,ego,0,,,,,30,"], "line 2, column 'path': gone is missing"),
        (
            ["long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,val,b,x,ego,0,49,5,,,,"],
            "line 3: long.mp4 is in split 'val' and in split 'train'.*spans of one file in different splits",
        ),
        (
            ["long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,train,a,y,exo,0,49,5,,,,"],
            "line 3: long.mp4 is in line 2 already as view 'x' of this scene",
        ),
        (
            ["long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,train,b,x,ego,0,,,2,3,,"],
            "line 3: long.mp4 has a span in seconds, and in line 2 one in frames",
        ),
        (
            ["images,train,a,x,ego,0,0,5,,,30,", "images,train,b,x,ego,0,5,5,,,25,"],
            "line 3: images has another fps or first_number than in line 2",
        ),
    ],
)
def test_what_the_csv_may_not_say(kinds: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        listed(kinds, *lines)


def test_spans_that_end_after_their_file_are_set_aside(kinds: Path) -> None:
    found = listed(
        kinds,
        "long.mp4,train,a,x,ego,0,100,10,,,,",
        "long.mp4,train,b,x,ego,0,100,11,,,,",
        "timed.mp4,train,c,x,ego,0,,,2.5,3.0,,",
        "timed.mp4,train,d,x,ego,0,,,2.5,3.1,,",
        "images,train,e,x,ego,0,30,,,,30,",
        "timed.mp4,train,f,x,ego,0,,,70,,,",
        "timed.mp4,train,g,x,ego,0,,,2.001,2.002,,",
    )
    assert [r.scene for r in found.recordings] == ["a", "c"]
    reasons = [q.reason for q in found.quarantined]
    assert (
        "line 3, column 'num_frames': the span ends with frame 110, counted from 0, but long.mp4 has 110 frames, the"
        in reasons[0]
    )
    assert "line 5, column 'end_s': the span ends with frame 92, counted from 0, but timed.mp4 has 90" in reasons[1]
    assert "line 6, column 'first_frame': the span begins with frame 30, counted from 0, but images has" in reasons[2]
    assert "line 7, column 'start_s': the span begins with frame" in reasons[3]
    assert "line 8, column 'end_s': no frame is in the span; timed.mp4 has 90 frames, the last at 2.9" in reasons[4]
    check_share(found, 0.72)
    with pytest.raises(UserError, match="5 of 7 videos cannot be used"):
        check_share(found, 0.71)


def test_labels_are_counted_per_span(kinds: Path) -> None:
    (kinds / "ten.txt").write_text("0 " * 10)
    header = f"{HEADER},labels"
    found = listed(
        kinds,
        "long.mp4,train,a,x,ego,0,100,10,,,,,ten.txt",
        "long.mp4,train,b,x,ego,0,0,11,,,,,ten.txt",
        header=header,
    )
    assert list(found.frame_labels["phase"]) == ["kinds/a/x"]
    assert "ten.txt" in found.quarantined[0].reason


def test_spans_that_touch_may_be_in_different_splits(kinds: Path) -> None:
    found = listed(kinds, "long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,val,b,x,ego,0,50,5,,,,")
    assert set(found.protocols["default"].values()) == {"train", "val"}


def test_unreadable_folders_are_set_aside(tmp_path: Path) -> None:
    image_folders.write(tmp_path / "good", range(5))
    (image_folders.write(tmp_path / "bad", range(5))[2]).write_bytes(b"")
    found = listed(tmp_path, "good,train,a,x,ego,0,,,,,30,", "bad,train,b,x,ego,0,,,,,30,")
    assert [r.scene for r in found.recordings] == ["a"]
    assert found.quarantined[0].path == "bad"
    assert "frame_2.jpg" in found.quarantined[0].reason


def test_the_command_saves_spans_and_folders(kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = tmp_path / "kinds.csv"
    csv.write_text("\n".join([HEADER, *LINES]))
    main(["prepare", "folder", "--root", str(kinds), "--csv", str(csv), "--out", str(tmp_path / "catalog")])
    assert "train: 8 ego and 0 exo recordings, 225 frames" in capsys.readouterr().out
    found = Catalog.load(tmp_path / "catalog")
    assert {r.scene: r.first_frame for r in found.recordings} == FIRST
    assert all((tmp_path / "catalog" / r.index).is_file() for r in found.recordings)


def test_a_dataset_whose_splits_share_a_part_of_a_file_is_refused(kinds: Path) -> None:
    parts = [("train", Part("long.mp4", 0, 60)), ("val", Part("whole.mp4")), ("val", Part("long.mp4", 59, 70))]
    with pytest.raises(UserError, match=r"takes: long\.mp4 is in split 'val' and in split 'train'"):
        check_splits(kinds, parts, "takes")
    (kinds / "link.mp4").symlink_to(kinds / "long.mp4")
    with pytest.raises(UserError, match=r"link\.mp4 is in split 'test' and in split 'train', there as long\.mp4"):
        check_splits(kinds, [*parts[:2], ("test", Part("link.mp4", 10, 11))], "takes")
    check_splits(kinds, [*parts[:2], ("test", Part("link.mp4", 60, 110))], "takes")
    parts = [("train", Part("long.mp4", 0, 60)), ("train", Part("long.mp4", 5, 9)), ("val", Part("long.mp4", 30, 31))]
    with pytest.raises(UserError, match=r"takes: long\.mp4 is in split 'val' and in split 'train'"):
        check_splits(kinds, parts, "takes")
