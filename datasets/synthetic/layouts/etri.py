"""ETRI-Activity3D's videos: folders of ten persons, groups with all eight cameras and groups with five."""

from __future__ import annotations

from pathlib import Path

from crossview.datasets.catalog import Catalog
from crossview.datasets.etri import Options

from . import files

SUBJECTS = {"train": (1, 52), "val": (3, 51), "test": (3, 51)}
"""Elderly and young persons in training and in test of the default list."""


def export(world: Catalog, out: Path) -> Options:
    """Exo films as cameras 1 to 8, without copies of the films where the disk can; actions are A001 and so on."""
    actions = sorted({r.action for r in world.recordings})
    groups: dict[tuple[int, int], int] = {}
    for number, cameras in enumerate(files.exo_films(world)):
        first = world.recordings[cameras[0]]
        subject = SUBJECTS[world.split_of(first) or "train"][number // 2 % 2]
        action = 1 + actions.index(first.action)
        group = groups[action, subject] = groups.get((action, subject), 0) + 1
        tens = (subject - 1) // 10 * 10
        folder = out / f"P{tens + 1:03d}-P{tens + 10:03d}" / f"P{subject:03d}"
        for camera, i in enumerate(cameras[: 5 if group == 2 else 8], 1):
            name = f"A{action:03d}_P{subject:03d}_G{group:03d}_C{camera:03d}.mp4"
            files.link(world, world.recordings[i], folder / name)
    return Options(root=out)
