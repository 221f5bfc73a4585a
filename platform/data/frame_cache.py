"""A recording's frames as they were decoded once, memory-mapped. No torch: decoding processes read it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from crossview import storage
from crossview.datasets.catalog import Recording
from crossview.datasets.sampling.spec import Sampling
from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.source import Source, Wanted, source_state
from crossview.errors import UserError
from crossview.platform.config import Data


def frame_cache(source: Source, recording: Recording, framing: Framing, pixels: Pixels, data: Data) -> np.ndarray:
    """Every frame of a video under one framing, uint8 (L, ...) as `read_clips` gives them, from `data.catalog/frames`.

    What is not there is decoded and written; a file's name holds its video's size and time of change, so that nothing
    stale is read. Raises UnreadableVideo.
    """
    folder = data.catalog / "frames" / f"{data.decoder}-{_name(framing)}"
    state = f"{recording.id} {recording.num_frames} {source_state(source)}"
    tail = hashlib.blake2b(state.encode(), digest_size=5).hexdigest()
    kept = folder / f"{recording.file_stem}-{tail}.npy"
    try:
        here = storage.local(kept, settled=True)
    except FileNotFoundError:
        here = None
    if here is None or not here.exists():
        every = [Wanted(np.arange(recording.num_frames), framing)]
        limit_s = data.time_limit_s
        (array,) = read_clips(source, every, pixels=pixels, decoder=data.decoder, time_limit_s=limit_s)
        storage.make_folder(folder)
        storage.write(kept, lambda partial: _save(partial, array))
        here = storage.local(kept, settled=True)
    frames: np.ndarray = np.load(here, mmap_mode="r", allow_pickle=False)
    return frames


def check_cacheable(sampling: Sampling, data: Data) -> None:
    """Raise ValueError if one picture per frame is kept, but clips show parts of it that are drawn."""
    for option in ("cache_frames", "cache_features"):
        for name, view in sampling.views.items():
            if getattr(data, option) and view.geometry.drawn:
                raise UserError(
                    f"data.{option} is on, and view {name!r} draws a part of the picture for each clip (geometry: "
                    f"crop {view.geometry.crop!r}, short_px {view.geometry.short_px}); it keeps one picture per frame: "
                    f"pass --data.no-{option.replace('_', '-')}, or --method.geometry.crop centre "
                    "--method.geometry.short-px None"
                )


def _name(framing: Framing) -> str:
    """Of the folder: the size, and a hash of what else is done."""
    size = framing.size[0] if framing.size else 0
    if framing == Framing(size=framing.size):
        return str(size)
    return f"{size}-{hashlib.blake2b(repr(framing).encode(), digest_size=5).hexdigest()}"


def _save(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as out:
        np.save(out, array)
