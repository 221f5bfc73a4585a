"""Small recordings of an ego and an exo camera for segmentation, what is trained on them, and an encoder of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossview.datasets.catalog import Catalog, Recording, Segment, one_protocol
from crossview.methods.recipe import Optim
from crossview.platform.config import Cadence, Compute, Data, Encoder, Experiment, TrainerExperiment, preset
from crossview.platform.train import launcher

WIDTH, CLASSES, FPS = 24, 4, 30.0


def write_toys(folder: Path) -> Path:
    """Ten scenes of both cameras, whose features show which of four coarse actions is on; returns the catalog."""
    rng = np.random.default_rng(0)
    shown = rng.normal(size=(CLASSES, WIDTH))
    recordings, segments, members = [], [], []
    for k in range(10):
        labels, lengths = rng.permutation(CLASSES), rng.integers(14, 30, CLASSES)
        frames, ends = int(lengths.sum()), np.cumsum(lengths)
        for view in ("e1", "v1"):
            noise = rng.normal(size=(frames, WIDTH))
            features = shown[np.repeat(labels, lengths)] + noise * (0.5 if view == "v1" else 1.0)
            np.save(folder / f"toy{k}-{view}.npy", features.astype(np.float16))
            recordings.append(
                Recording(
                    dataset="toys",
                    scene=f"toy{k}",
                    view=view,
                    perspective="ego" if view == "e1" else "exo",
                    subject=str(k),
                    action="assemble",
                    path=f"toy{k}-{view}.npy",
                    kind="features",
                    fps=FPS,
                    num_frames=frames,
                    height_px=1,
                    width_px=1,
                )
            )
            members.append((recordings[-1], "train" if k < 7 else "val"))
            starts = [0, *ends[:-1]]
            segments += [
                Segment(recordings[-1].id, a / FPS, b / FPS, "coarse", "abcd"[label])
                for a, b, label in zip(starts, ends, labels, strict=True)
            ]
    classes = {"coarse": tuple("abcd")}
    made = Catalog(folder, tuple(recordings), tuple(segments), protocols=one_protocol(members), classes=classes)
    made.save(folder / "catalog")
    return folder / "catalog"


def experiment(catalog: Path, *, steps: int = 40, encoder: Encoder | None = None, **changes: Any) -> Any:
    """The debug preset on the toys."""
    recipe = preset("segmentation", "debug")
    config = replace(recipe.method, width=WIDTH, classes=CLASSES, chunk=2, **changes)
    return TrainerExperiment(
        data=Data(catalog=catalog),
        method=config,
        optim=replace(recipe.optim, steps=steps, lr=3e-3, batch=7),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=20),
        encoder=encoder or Encoder(),
    )


def evgap_config() -> Any:
    recipe = preset("evgap", "debug")
    return replace(recipe.method, input="features", feature_width=WIDTH, step="pairs")


def train_evgap(toys: Path, run: Path, steps: int = 3) -> Path:
    """A short run of EVGAP on the same features."""
    data, optim = Data(catalog=toys), Optim(steps=steps, batch=8)
    made = Experiment(data=data, method=evgap_config(), optim=optim, every=Cadence(log=steps))
    return launcher.start(run, "evgap", made, in_process=True)
