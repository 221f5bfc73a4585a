"""Writing a dataset's files from the films of the world."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from PIL import Image

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted

if TYPE_CHECKING:
    from av.video.stream import VideoStream


def exo_films(world: Catalog) -> list[list[int]]:
    """Numbers of each scene's exo recordings."""
    scenes: dict[str, list[int]] = {}
    for i, recording in enumerate(world.recordings):
        if recording.perspective == "exo":
            scenes.setdefault(recording.scene, []).append(i)
    return list(scenes.values())


def link(world: Catalog, recording: Recording, target: Path) -> Path:
    """The film itself under another name, without a copy where the disk can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(world.file(recording), target)
    except OSError:
        shutil.copyfile(world.file(recording), target)
    return target


def pictures(world: Catalog, recording: Recording, frames: Sequence[int] | None = None) -> np.ndarray:
    """Frames of a film, sorted; None is all of them: uint8 RGB (T, H, W, 3)."""
    wanted = np.arange(recording.num_frames) if frames is None else np.asarray(frames, np.int64)
    return read_clips(world.source(recording), [Wanted(wanted)])[0]


def encode(shown: Iterable[np.ndarray], target: Path, fps: float, codec: str = "libx264") -> Path:
    """Pictures, uint8 RGB (H, W, 3) with even sides, as a video in the container of the target's name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(target), "w") as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=rate))
        stream.codec_context.thread_count = 1
        stream.pix_fmt = "yuv420p"
        for k, picture in enumerate(shown):
            if k == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target


def images(shown: Iterable[np.ndarray], folder: Path, names: Iterable[str]) -> Path:
    """Pictures, uint8 RGB (H, W, 3), as one JPEG or PNG file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name in zip(shown, names, strict=True):
        Image.fromarray(picture).save(folder / name)
    return folder
