"""A small catalog of frozen features: what a base encoder would have given, so that training tests need no decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog, Recording, one_protocol

TOKENS, WIDTH = 9, 96


def write_feature_catalog(folder: Path, *, train: int = 6, val: int = 3, frames: int = 24, seed: int = 0) -> Path:
    """Ego and exo recordings of one action whose features drift with four phases; returns the catalog's folder."""
    rng = np.random.default_rng(seed)
    root = folder / "files"
    root.mkdir(parents=True)
    phases = rng.standard_normal((4, TOKENS, WIDTH))
    members, labels = [], {}
    for split, count in (("train", train), ("val", val)):
        for perspective in ("ego", "exo"):
            for k in range(count):
                length = frames + int(rng.integers(0, 5))
                phase = np.sort(rng.integers(0, 4, length)).astype(np.int32)
                tokens = phases[phase] + 0.3 * rng.standard_normal((length, TOKENS, WIDTH))
                name = f"{split}_{perspective}_{k}"
                np.save(root / f"{name}.npy", tokens.astype(np.float16))
                recording = Recording(
                    dataset="features",
                    scene=name,
                    view=perspective,
                    perspective=perspective,  # type: ignore[arg-type]
                    subject=str(k),
                    action="wave",
                    path=f"{name}.npy",
                    kind="features",
                    fps=15.0,
                    num_frames=length,
                    height_px=112,
                    width_px=112,
                )
                members.append((recording, split))
                labels[recording.id] = phase
    recordings = tuple(recording for recording, _ in members)
    catalog = Catalog(root, recordings, frame_labels={"phase": labels}, protocols=one_protocol(members))
    catalog.save(folder / "catalog")
    return folder / "catalog"
