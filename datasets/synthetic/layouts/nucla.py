"""N-UCLA's frames: numbers without leading zeros and with a gap, depth and skeletons beside them, views missing."""

from __future__ import annotations

from pathlib import Path

from crossview.datasets.catalog import Catalog
from crossview.datasets.nucla import ACTIONS, Options

from . import files


def export(world: Catalog, out: Path) -> Options:
    """Exo films as views 1 to 3 of subjects 1 to 10; every second frame, the world's actions are a01, a02 and so on."""
    actions = sorted({r.action for r in world.recordings})
    for number, cameras in enumerate(files.exo_films(world)):
        action = list(ACTIONS)[actions.index(world.recordings[cameras[0]].action)]
        name = f"a{action:02d}_s{1 + number % 10:02d}_e{number // 10:02d}"
        for view, i in enumerate(cameras[:3], 1):
            if number == 0 and view == 3:
                continue  # a view may be missing
            last = 1 if number == 1 and view == 2 else None  # a sample may have one frame
            shown = files.pictures(world, world.recordings[i])[view % 2 :: 2][:last]
            folder = out / "multiview_action" / f"view_{view}" / name
            gap = len(shown) // 2 if number % 7 == 0 else len(shown)  # after which a number may be missing
            counted = [8 + k + (k > gap) for k in range(len(shown))]  # 8, 9, 10, ...
            files.images(shown, folder, [f"frame_{k}_tc_{90467319 + 33 * k}_rgb.jpg" for k in counted])
            files.images(shown[:1], folder, [f"frame_{counted[0]}_tc_{90467351 + 33 * counted[0]}_depth_vis.jpg"])
            (folder / f"frame_{counted[0]}_tc_{90467351 + 33 * counted[0]}_skeletons.txt").write_text("0\n")
    return Options(root=out)
