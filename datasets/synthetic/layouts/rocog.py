"""RoCoG-v2's lists and folders: real and synthetic videos from the ground and from the air, names as they are spelt."""

from __future__ import annotations

from pathlib import Path

from crossview.datasets.catalog import Catalog
from crossview.datasets.rocog import CLASSES, LISTS, Options

from . import files

SUBJECTS = {"train": ("S01", "S03"), "val": ("S10",), "test": ("S00", "S04b")}


def export(world: Catalog, out: Path) -> Options:
    """Exo films of a take as ground and air videos, real and synthetic; the world's actions are the first classes."""
    actions = sorted({r.action for r in world.recordings})
    lists: dict[str, list[str]] = {name: [] for name in LISTS}
    for number, cameras in enumerate(files.exo_films(world)):
        first = world.recordings[cameras[0]]
        split, label = world.split_of(first) or "train", actions.index(first.action)
        for camera, (kind, view) in enumerate((k, v) for k in ("real", "syn") for v in ("ground", "air")):
            name = _name(kind, view, split, number, label)
            path = f"{kind}/{view}/{CLASSES[label]}/{name}.mp4"
            files.link(world, world.recordings[cameras[camera % len(cameras)]], out / path)
            for of in _lists(kind, view, split):
                lists[of].append(f"{path} {label}\n")
    lists["syn_air_train"].append("syn/air/Halt/Scene1_0_Halt_30_1_2022_17_3_43.mp4 4\n")  # not downloaded
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (out / "annotations" / f"{name}.txt").write_text("".join(lines))
    return Options(root=out)


def _name(kind: str, view: str, split: str, number: int, label: int) -> str:
    if kind == "syn":
        person = f"S02_{CLASSES[label]}_R03_01" if number % 2 else CLASSES[label]
        return f"Scene{1 + number}_{number}_{person}_30_1_2022_17_3_43"
    subject = SUBJECTS[split][number // 2 % len(SUBJECTS[split])]
    place = "30m_hover" if view == "air" else "10m_ground_3" if number == 0 else "10m_ground"
    return f"{subject}_{place}_label{label + 1}_start{653 + 100 * number}"


def _lists(kind: str, view: str, split: str) -> tuple[str, ...]:
    if kind == "syn":
        return (f"syn_{view}_{'train' if split == 'train' else 'val'}",)
    if split == "test":
        return (f"real_{view}_test",)
    return f"real_{view}_train", f"real_{view}_{split}_tsonly"
