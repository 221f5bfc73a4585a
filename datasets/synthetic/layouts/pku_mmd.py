"""PKU-MMD phase II: takes joined into long videos, a label file per view, split files as they are spelt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog
from crossview.datasets.pku_mmd import Options

from . import files

SUBJECTS = {"train": (1, 4, 5), "val": (2, 3, 7), "test": (2, 3, 7)}
ENDS = "\r\n"


def export(world: Catalog, out: Path) -> Options:
    """Exo films as cameras L, M and R, two takes to a video; the world's actions are 1, 2 and so on."""
    actions = sorted({r.action for r in world.recordings})
    by_split: dict[str, list[list[int]]] = {}
    for cameras in files.exo_films(world):
        by_split.setdefault(world.split_of(world.recordings[cameras[0]]) or "train", []).append(cameras)
    names: list[str] = []
    for split, scenes in by_split.items():
        for number in range((len(scenes) + 1) // 2):
            takes = [scenes[number], scenes[-1 - number]]  # of two actions, as a split begins and ends with
            subject = SUBJECTS[split][number % 3]
            sequence = 1 + sum(name.endswith(f"N{subject:02d}") for name in names)
            names.append(f"A{sequence:02d}N{subject:02d}")
            for camera, view in enumerate("LMR"):
                if len(names) == 1 and view == "M":
                    continue  # a view may be missing
                _video(world, [take[camera % len(take)] for take in takes], actions, out, f"{names[-1]}-{view}")
    for file, tested in (("cross_subject_v2.txt", ("N02", "N03", "N07")), ("cross_view_v2.txt", ("-L",))):
        every = [f"{name}-{view}" for name in names for view in "LMR"]
        test = [name for name in every if name[3:6] in tested or name[6:] in tested]
        train = [name for name in every if name not in test]
        lines = ["Training videos:", ", ".join(train) + ", ", "Validataion videos:", ", ".join(test) + ","]
        (out / "Split").mkdir(parents=True, exist_ok=True)
        (out / "Split" / file).write_text("\n".join(lines), newline="")
    return Options(root=out)


def _video(world: Catalog, films: list[int], actions: list[str], out: Path, name: str) -> None:
    """One view of a video and its labels, of which one has no frame."""
    shown, lines, start = [], [], 0
    for i in films:
        shown.append(files.pictures(world, world.recordings[i]))
        stop = start + len(shown[-1])
        label = 1 + actions.index(world.recordings[i].action)
        lines += [f"{label},{start + 2},{stop - 2},2", f"{label},{stop - 1},{stop - 1},1"]
        start = stop
    files.encode(np.concatenate(shown), out / "RGB_VIDEO_v2" / f"{name}.avi", 30, "mpeg4")
    for folder, text in (("Label_PKUMMD_v2", ENDS.join(lines)), ("SKELETON_v2", "0 0 0")):
        (out / folder).mkdir(parents=True, exist_ok=True)
        (out / folder / f"{name}.txt").write_text(text, newline="")
