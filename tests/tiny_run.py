"""A tiny run of BYOV on small video files, trained in this process within seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import videos

from crossview.datasets.catalog import Catalog, Recording, one_protocol
from crossview.methods.base_config import Base
from crossview.methods.byov.config import Config, Decoder, Encoder
from crossview.methods.recipe import Optim
from crossview.platform.config import Cadence, Compute, Data, Experiment
from crossview.platform.train.launcher import start

SIZE, FRAMES = 32, 14


def method_config() -> Config:
    return Config(
        base=Base(model="vit_tiny_patch16_224", weights="random", size_px=SIZE, width=24, depth=1, heads=2),
        encoder=Encoder(width=16, depth=1, heads=2),
        decoder=Decoder(width=16, depth=1, heads=2),
        frames=6,
    )


def write_catalog(root: Path, *, labels: bool = True, actions: tuple[str, ...] = ("wave",)) -> Catalog:
    members, phases = [], {}
    for split, first, count in (("train", 0, 2), ("val", 2, 2), ("test", 4, 1)):
        for action in actions:
            for k in range(count):
                for view in ("ego", "exo"):
                    frames = FRAMES + k
                    path = f"{split}/{action}_{view}_{k}.mp4"
                    videos.write(root / path, frames=frames)
                    recording = Recording(
                        dataset="clips",
                        scene=f"{action}{first + k}",
                        view=view,
                        perspective=view,  # type: ignore[arg-type]
                        subject=str(k),
                        action=action,
                        path=path,
                        kind="video",
                        fps=30.0,
                        num_frames=frames,
                        height_px=64,
                        width_px=96,
                    )
                    members.append((recording, split))
                    phases[recording.id] = (np.arange(frames) * 3 // frames).astype(np.int32)
    recordings = tuple(recording for recording, _ in members)
    catalog = Catalog(
        root, recordings, frame_labels={"phase": phases} if labels else {}, protocols=one_protocol(members)
    )
    catalog.save(root / "catalog")
    return catalog


def train(folder: Path, root: Path, **data: bool) -> Path:
    experiment = Experiment(
        data=Data(catalog=root / "catalog", **data),  # type: ignore[arg-type]
        method=method_config(),
        optim=Optim(lr=1e-2, batch=2, steps=4),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=1, checkpoint=4),
        seed=3,
    )
    return start(folder, "byov", experiment, in_process=True)
