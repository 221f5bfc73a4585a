"""What is found of a dataset on a user's disk: links that lead in circles or nowhere, hidden files, odd names."""

from __future__ import annotations

from pathlib import Path

import pytest
import videos

from crossview.datasets import ntu
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.found import coverage, files_under


def test_links_are_followed_but_never_in_circles_nor_to_nowhere(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    for file in (root / "a" / "x.mp4", root / ".trash" / "x.mp4", disk / "deep" / "y.mp4"):
        file.parent.mkdir(parents=True)
        file.touch()
    (root / "linked").symlink_to(disk, target_is_directory=True)
    (root / "again.mp4").symlink_to(root / "a" / "x.mp4")
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    (disk / "deep" / "back").symlink_to(disk, target_is_directory=True)
    (root / "itself").symlink_to(root / "itself")
    (root / "nowhere.mp4").symlink_to(root / "missing.mp4")
    assert list(files_under(root)) == ["a/x.mp4", "again.mp4", "linked/deep/y.mp4"]


def test_names_that_are_not_utf_8_are_set_aside(tmp_path: Path) -> None:
    videos.write(tmp_path / "S001C001P001R001A001_rgb.avi", frames=4)
    folder = tmp_path / "odd\udcff"
    folder.mkdir()
    (tmp_path / "S001C001P001R001A001_rgb.avi").rename(folder / "S001C001P001R001A001_rgb.avi")
    videos.write(tmp_path / "S001C001P003R001A001_rgb.avi", frames=4)
    made = ntu.catalog(ntu.Options(root=tmp_path))
    assert [r.scene for r in made.recordings] == ["S001P003R001A001"]
    (broken,) = made.quarantined
    assert "its name is not UTF-8, which a catalog needs; rename the file" in broken.reason
    made.save(tmp_path / "catalog")
    assert len(Catalog.load(tmp_path / "catalog").quarantined) == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (["a", "b"], "videos: 2 of 2 listed are here"),
        (["b", "x"], "videos: 1 of 2 listed are here; missing: 1 (a); not listed: 1"),
    ],
)
def test_coverage(found: list[str], said: str) -> None:
    assert coverage("videos", ["a", "b"], found) == said
