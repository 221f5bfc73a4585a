"""NTU RGB+D's RGB videos: AVI files by setup, one camera missing, one of another length, foreign files beside them."""

from __future__ import annotations

from pathlib import Path

from crossview.datasets.catalog import Catalog
from crossview.datasets.ntu import Options

from . import files

SUBJECTS = {"train": (1, 2), "val": (3, 6), "test": (3, 6)}
"""Of X-Sub: training subjects, and test subjects."""


def export(world: Catalog, out: Path) -> Options:
    """Exo films as cameras 1 to 3 of setups 1 and 2; the world's actions are A001 and so on."""
    actions = sorted({r.action for r in world.recordings})
    used: dict[tuple[int, ...], int] = {}
    for number, cameras in enumerate(files.exo_films(world)):
        first = world.recordings[cameras[0]]
        subjects = SUBJECTS[world.split_of(first) or "train"]
        setup, subject, action = 1 + number % 2, subjects[number // 2 % 2], 1 + actions.index(first.action)
        replication = used[setup, subject, action] = used.get((setup, subject, action), 0) + 1
        for camera, i in enumerate(cameras[:3], 1):
            if number == 0 and camera == 3:
                continue  # a camera may be missing
            name = f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}_rgb.avi"
            shown = files.pictures(world, world.recordings[i])
            shown = shown[: len(shown) - (camera == 2)]  # lengths differ by a frame or two
            files.encode(shown, out / f"nturgbd_rgb_s{setup:03d}" / "nturgb+d_rgb" / name, 30, "mpeg4")
    (out / "README.txt").write_text("Videos of the synthetic world under the names of NTU RGB+D.\n")
    return Options(root=out)
