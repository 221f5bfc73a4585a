"""N-UCLA: both releases, numbers of frames, views, protocols, and what is said of broken roots."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import image_folders
import numpy as np
import pytest
import videos

from crossview.datasets import nucla
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted
from crossview.errors import UserError

VIEWS_OF_GROUPS = {(1, 2, 3): 433, (1, 2): 45, (1,): 30, (2, 3): 17, (2,): 9, (1, 3): 8, (3,): 6}
"""How many of the 548 groups of the usual lists have which views."""


def empty(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def video(sample: nucla.Sample) -> str:
    return f"a{sample.action:02d}/v{sample.view:02d}_s{sample.subject:02d}_e{sample.episode:02d}.avi"


def test_as_many_samples_as_the_usual_lists_split_as_they_do(tmp_path: Path) -> None:
    groups = product(nucla.ACTIONS, range(1, 11), range(11))
    of_group = [views for views, count in VIEWS_OF_GROUPS.items() for _ in range(count)]
    made = [nucla.Sample(*group, view) for group, views in zip(groups, of_group, strict=False) for view in views]
    empty(tmp_path / "multiview_action_videos", *map(video, made))
    found, (said,) = nucla.samples_under(nucla.Options(root=tmp_path))
    assert sorted(found.values()) == sorted(made)
    splits = {
        protocol: Counter(nucla.split_of(sample, protocol) for sample in found.values())
        for protocol in ("xview3", "xview2", "xview1")
    }
    assert splits == {
        "xview3": {"train": 1020, "test": 464},
        "xview2": {"train": 980, "test": 504},
        "xview1": {"train": 968, "test": 516},
    }
    assert "1,484 are here, of views 1, 2 and 3: 516, 504, 464" in said
    assert "433 of 548" in said


def test_videos(tmp_path: Path) -> None:
    for name, frames in (("v01_s01_e00", 8), ("v02_s01_e00", 5), ("v03_s01_e00", 6), ("v01_s02_e00", 4)):
        videos.write(tmp_path / "multiview_action_videos" / "a12" / f"{name}.avi", frames=frames)
    made = nucla.catalog(nucla.Options(root=tmp_path, test_subjects=(2,)))
    assert [(r.id, r.num_frames, r.subject, r.action, r.own_clock) for r in made.recordings] == [
        ("nucla/a12_s01_e00/v01", 8, "s01", "carry", True),
        ("nucla/a12_s01_e00/v02", 5, "s01", "carry", True),
        ("nucla/a12_s01_e00/v03", 6, "s01", "carry", True),
        ("nucla/a12_s02_e00/v01", 4, "s02", "carry", True),
    ]
    assert list(made.protocols) == list(nucla.PROTOCOLS)
    assert [list(of.values()) for of in made.protocols.values()] == [
        ["train", "train", "test", "train"],
        ["train", "test", "train", "train"],
        ["test", "train", "train", "test"],
        ["train", "train", "train", "test"],
    ]
    assert made.classes["action"].index("carry") == 9
    assert len(made.classes["action"]) == 10


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "multiview_action" / "view_1" / "a08_s01_e00"
    for k, n in enumerate((3, 9, 10, 11)):
        image_folders.save(folder / f"frame_{n}_tc_{90467319 - n}_rgb.jpg", videos.picture(k))
        image_folders.save(folder / f"frame_{n}_tc_{90467351 - n}_depth_vis.jpg", videos.picture(99, 32, 48))
    image_folders.save(folder.with_name("a08_s01_e01") / "frame_5_tc_1_rgb.jpg", videos.picture(0))
    empty(folder.with_name("a08_s01_e02"), "frame_5_tc_1_depth.png")  # only depth is here
    with pytest.warns(UserWarning, match="5 numbers are missing between its 4 images"):
        made = nucla.catalog(nucla.Options(root=tmp_path, fps=15))
    first, second = made.recordings
    assert (first.kind, first.num_frames, first.fps, first.height_px) == ("frames", 4, 15, 64)
    assert second.num_frames == 1
    (pixels,) = read_clips(made.source(first), [Wanted(np.arange(4))])
    assert [videos.barcode(picture) for picture in pixels] == [0, 1, 2, 3]
    np.testing.assert_allclose(made.instants(first, np.arange(4)), np.array([0, 6, 7, 8]) / 15)
    assert "xsub" not in made.protocols


def test_a_list_chooses_samples_and_others_are_left_out(tmp_path: Path) -> None:
    empty(tmp_path, "a01/v01_s01_e00.avi", "a01/v02_s01_e00.avi", "a07/v01_s01_e00.avi", "a01/v04_s01_e00.avi")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfa01_s01_e00_v01\r\na02_s04_e02_v03.json\r\n")
    found, notes = nucla.samples_under(nucla.Options(root=tmp_path, samples=listed))
    assert found == {"a01/v01_s01_e00.avi": nucla.Sample(1, 1, 0, 1)}
    assert "samples of list.txt: 1 of 2 listed are here; missing: 1 (a02_s04_e02_v03); not listed: 1" in notes
    assert any("left out: 2 samples of other actions" in note and "a07/v01_s01_e00.avi" in note for note in notes)


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ((), {}, r"no file is named as N-UCLA's videos.*it holds no file: pass the folder"),
        (("a01/v01_s01_e00.mkv",), {}, r"no file is named.*it holds a01/v01_s01_e00\.mkv"),
        (("x/v01_s01_e00.avi",), {}, r"x/v01_s01_e00\.avi is in no folder that names its action.*keep the folders"),
        (("a07/v01_s01_e00.avi",), {}, r"a07/v01_s01_e00\.avi is of another action.*pass the folder"),
        (("a01/v01_s01_e00.avi", "b/a01/v01_s01_e00.avi"), {}, r"b/a01/.*is the same sample; remove one"),
        (("a01/v01_s01_e00.avi", "view_1/a01_s01_e00/frame_1_tc_2_rgb.jpg"), {}, r"both releases.*--release videos or"),
        (("a01/v01_s01_e00.avi",), {"release": "frames"}, r"--release frames is not here.*pass --release videos"),
        (("a01/v01_s01_e00.avi",), {"fps": 0.0}, r"--fps is 0; .*above 0"),
        (("a01/v01_s01_e00.avi",), {"fps": float("inf")}, r"--fps is inf; .*above 0"),
        (("a01/v01_s01_e00.avi",), {"test_subjects": (11,)}, r"--test-subjects has 11; subjects are 1 to 10"),
    ],
)
def test_what_is_refused(tmp_path: Path, names: tuple[str, ...], options: dict[str, object], said: str) -> None:
    empty(tmp_path, *names)
    with pytest.raises(UserError, match=said):
        nucla.catalog(nucla.Options(root=tmp_path, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a01_s01_e00_v01\na01_s01_v01\n", r"list\.txt, line 2: 'a01_s01_v01' is no sample; write one as a05"),
        ("a02_s04_e02_v03\n", r"list\.txt: it lists none of the 1 samples that are here"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    empty(tmp_path, "a01/v01_s01_e00.avi")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        nucla.catalog(nucla.Options(root=tmp_path, samples=tmp_path / "list.txt"))
