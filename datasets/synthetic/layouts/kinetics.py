"""Kinetics-400 as it is downloaded: flat folders, official lists, a truncated name, a replacement, an empty file."""

from __future__ import annotations

from pathlib import Path

from crossview.datasets.catalog import Catalog
from crossview.datasets.kinetics import LABEL_MAP, NUM_CLASSES, Options

from . import files

FORMS = ("{}", "{} (in studio)", "{}'s end", "{}, alone")
"""Spellings of classes, which official lists quote as they need."""


def export(world: Catalog, out: Path) -> Options:
    """Two exo films of each take as clips; classes are the world's actions with spaces and other characters."""
    actions = sorted({r.action for r in world.recordings})
    classes = {a: FORMS[k % len(FORMS)].format(a.replace("_", " ")) for k, a in enumerate(actions)}
    chosen = [i for cameras in files.exo_films(world) for i in cameras[:2]]
    replacements = out / "replacement" / "replacement_for_corrupted_k400"
    lines: dict[str, list[str]] = {split: [] for split in ("train", "val", "test")}
    for number, i in enumerate(chosen):
        recording = world.recordings[i]
        split, start_s = world.split_of(recording) or "train", 7 * number
        video = f"-K{number:07d}_x"  # ids may begin with "-" and hold "_"
        name = video if number == 1 else f"{video}_{start_s:06d}_{start_s + 10:06d}"
        file = out / split / f"{name}.mp4"
        if number == 2:  # corrupted, and replaced
            files.link(world, recording, replacements / f"{video}.mp4")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
        else:
            files.link(world, recording, file)
        lines[split].append(f'"{classes[recording.action]}",{video},{start_s},{start_s + 10},{split}')
    for video in ("0000missing", "00000-empty"):
        lines["train"].append(f'"{classes[actions[0]]}",{video},3,13,train')
    (out / "train" / "00000-empty_000003_000013.mp4").write_bytes(b"")
    (out / "annotations").mkdir(exist_ok=True)
    for split, of in lines.items():
        text = "\r\n".join(["label,youtube_id,time_start,time_end,split", *of])
        (out / "annotations" / f"{split}.csv").write_text(text, newline="")
    names = [*classes.values(), *(f"class {k:03d}" for k in range(NUM_CLASSES - len(classes)))]
    (out / LABEL_MAP).write_text("\n".join(sorted(names)))
    return Options(root=out)
