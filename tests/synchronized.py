"""A small catalog of synchronized files: two actions, two people per split, three cameras, one of which starts late."""

from __future__ import annotations

from pathlib import Path

import videos

from crossview.datasets.catalog import Catalog, Recording, one_protocol

CAMERAS, SEEN = ("ego", "exo1", "exo2"), ("ego", "exo1")
LATE_S = 2 / 30
"""How much later exo2 starts."""


def camera(view: str, **facts) -> Recording:
    defaults = {
        "dataset": "d",
        "scene": "s",
        "subject": "p",
        "action": "wave",
        "kind": "video",
        "fps": 30.0,
        "num_frames": 60,
        "height_px": 64,
        "width_px": 96,
        "view": view,
        "perspective": "ego" if view == "ego" else "exo",
        "path": f"{facts.get('scene', 's')}_{view}.mp4",
    }
    return Recording(**(defaults | facts))


def write_synchronized(root: Path) -> Catalog:
    members = []
    for split, first in (("train", 0), ("val", 2)):
        for action in ("wave", "nod"):
            for k in range(2):
                for view in CAMERAS:
                    path = f"{split}/{action}{k}_{view}.mp4"
                    frames = 12 + 2 * k
                    videos.write(root / path, frames=frames)
                    late_s = LATE_S if view == "exo2" else 0.0
                    facts = {"scene": f"{action}{first + k}", "subject": f"{split}{k}", "action": action, "path": path}
                    members.append((camera(view, num_frames=frames, start_offset_s=late_s, **facts), split))
    catalog = Catalog(root, tuple(r for r, _ in members), protocols=one_protocol(members))
    catalog.save(root / "catalog")
    return catalog
