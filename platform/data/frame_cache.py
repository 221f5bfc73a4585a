"""A recording's frames as they were decoded once, memory-mapped. No torch: decoding processes read it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from crossview import storage
from crossview.datasets.catalog import Recording
from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.source import Source, Wanted, source_state
from crossview.platform.config import Data


def frame_cache(source: Source, recording: Recording, size_px: int, pixels: Pixels, data: Data) -> np.ndarray:
    """Every frame of a video at `size_px`, uint8 (L, ...) as `decode` gives them, from `data.catalog/frames`.

    What is not there is decoded and written; a file's name holds its video's size and time of change, so that nothing
    stale is read. Raises UnreadableVideo.
    """
    folder = data.catalog / "frames" / f"{data.decoder}-{size_px}"
    state = f"{recording.id} {recording.num_frames} {source_state(source)}"
    tail = hashlib.blake2b(state.encode(), digest_size=5).hexdigest()
    kept = folder / f"{recording.file_stem}-{tail}.npy"
    try:
        here = storage.local(kept, settled=True)
    except FileNotFoundError:
        here = None
    if here is None or not here.exists():
        every = [Wanted(np.arange(recording.num_frames), Framing(size=(size_px, size_px)))]
        limit_s = data.time_limit_s
        (array,) = read_clips(source, every, pixels=pixels, decoder=data.decoder, time_limit_s=limit_s)
        storage.make_folder(folder)
        storage.write(kept, lambda partial: _save(partial, array))
        here = storage.local(kept, settled=True)
    frames: np.ndarray = np.load(here, mmap_mode="r", allow_pickle=False)
    return frames


def _save(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as out:
        np.save(out, array)
