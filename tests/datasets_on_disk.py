"""Small datasets as a user has them: AE2's two layouts, and a folder with a CSV."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import videos


def make_ae2(root: Path, kind: str) -> Path:
    """Two videos per split and view; every file has its own number of frames."""
    base = root / "chop"
    labels = {}
    for s, split in enumerate(("train", "val", "test")):
        for p, view in enumerate(("ego", "exo")):
            names = [f"S{s}_{view}_{n}" for n in (2, 1)]
            for k, name in enumerate(names):
                frames = 6 + 4 * s + 2 * p + k
                where = base / view if kind == "lists" else base / split / view
                videos.write(where / f"{name}.mp4", frames=frames)
                labels[name] = np.arange(frames) * 3 // frames
            if kind == "lists":
                (base / view / f"{split}.csv").write_text("".join(f"{name}.mp4\n" for name in names))
    (base / "label.pickle").write_bytes(pickle.dumps(labels))
    return base


def make_folder(root: Path) -> list[str]:
    for name in ("a", "b", "c"):
        videos.write(root / f"{name}.mp4", frames=5)
    (root / "a.txt").write_text("0\n0\n1\n1\n2\n")
    np.save(root / "b.npy", np.array([0, 1, 1, 1, 2]))
    return [
        "path,split,scene,view,perspective,start_offset_s,labels",
        "a.mp4,train,take1,head,ego,0.5,a.txt",
        "b.mp4,train,take1,cam,exo,,b.npy",
        "c.mp4,val,take2,cam,exo,0,",
    ]
