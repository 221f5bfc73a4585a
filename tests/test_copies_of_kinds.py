"""Prepared copies of spans and of folders of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import image_folders
import numpy as np
import pytest
import recording_kinds
import torch
import videos
from recording_kinds import FIRST, LINES, listed

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.spec import View
from crossview.datasets.video.copies import copy_all
from crossview.datasets.video.transcode import Encoding
from crossview.platform.config import Data
from crossview.platform.data.video_reader import video

SMALL = Encoding(size_px=64, gop=4, crf=10)

SQUARE = View(perspective="any", frames=1, size_px=64, geometry=SQUASH)


def shown(catalog: Catalog, scene: str) -> list[int]:
    """The numbers in all pictures of a recording."""
    (recording,) = (r for r in catalog.recordings if r.scene == scene)
    data = Data(catalog=Path("unused"))
    pictures = torch.cat(list(video(catalog.source(recording), recording.num_frames, SQUARE, data, 64)))
    return [videos.barcode(picture.permute(1, 2, 0).numpy()) for picture in pictures]


def test_a_file_is_copied_whole_and_once_and_its_spans_stay_spans(tmp_path: Path) -> None:
    recording_kinds.write(tmp_path / "from")
    found = listed(tmp_path / "from", *LINES)
    made = copy_all(found, tmp_path / "to", SMALL)
    assert (made.files, made.found, made.left_out) == (5, 0, 0)
    files = sorted(file.relative_to(tmp_path / "to").as_posix() for file in (tmp_path / "to").rglob("*.mp4"))
    assert files == ["images.mp4", "long.mp4", "shots/__rgb.jpg.mp4", "timed.mp4", "whole.mp4"]
    copies = Catalog.load(tmp_path / "to")
    for before, after in zip(found.recordings, copies.recordings, strict=True):
        assert after.kind == "video"
        facts = {"kind": "", "path": "", "index": "", "height_px": 0, "width_px": 0}
        assert replace(after, **facts) == replace(before, **facts)  # type: ignore[arg-type]
        assert shown(copies, after.scene) == [FIRST[after.scene] + k for k in range(after.num_frames)]
        frames = np.arange(after.num_frames)
        assert copies.instants(after, frames) == pytest.approx(found.instants(before, frames), abs=1e-6)
    assert copy_all(found, tmp_path / "to", SMALL).found == 5


def test_a_copy_of_images_shows_them_at_the_times_of_their_numbers(tmp_path: Path) -> None:
    image_folders.write(tmp_path / "from" / "images", [3, 4, 5, 9, 10, 11])
    with pytest.warns(UserWarning, match="3 numbers are missing"):
        found = listed(tmp_path / "from", "images,train,a,x,ego,0,,,,,29.97,1")
    copies = copy_all(found, tmp_path / "to", SMALL).catalog
    (recording,) = copies.recordings
    expected = (np.array([3, 4, 5, 9, 10, 11]) - 1) / 29.97
    assert copies.instants(recording, np.arange(6)) == pytest.approx(expected, abs=1e-6)
    assert shown(copies, "a") == [0, 1, 2, 3, 4, 5]


def test_images_that_changed_are_copied_anew_and_damaged_ones_are_set_aside(tmp_path: Path) -> None:
    files = image_folders.write(tmp_path / "from" / "images", range(4))
    image_folders.write(tmp_path / "from" / "more", range(4))
    lines = "images,train,a,x,ego,0,,,,,30,", "more,train,b,x,ego,0,,,,,30,"
    copy_all(listed(tmp_path / "from", *lines), tmp_path / "to", SMALL)
    image_folders.save(files[1], videos.picture(99))
    stale = copy_all(listed(tmp_path / "from", *lines), tmp_path / "to", SMALL)
    assert (stale.found, stale.quarantined) == (1, 0)
    assert shown(stale.catalog, "a") == [0, 99, 2, 3]
    files[2].write_bytes(files[2].read_bytes()[:-30] + bytes(30))
    left = copy_all(listed(tmp_path / "from", *lines), tmp_path / "other", SMALL, max_quarantined=0.5)
    assert [q.path for q in left.catalog.quarantined] == ["images"]
    assert "frame_2.jpg" in left.catalog.quarantined[0].reason
    assert [r.scene for r in left.catalog.recordings] == ["b"]
