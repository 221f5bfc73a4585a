"""Feature files: one float16 array (L, N, D) per recording, memory-mapped. No torch: decoding processes read them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from crossview import storage
from crossview.datasets.catalog import Recording
from crossview.datasets.video.frames import UnreadableVideo, on_this_node


def read_features(file: Path, recording: Recording) -> np.ndarray:
    """The float16 (L, N, D) array of a recording; raises UnreadableVideo where it is cut or of another shape."""
    here = on_this_node(file)
    try:
        array = np.load(here, mmap_mode="c", allow_pickle=False)  # "c": torch wants memory that could be written
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableVideo(f"{file}: not a readable array ({error}); delete it to have it rebuilt") from error
    return array.reshape(_checked(file, recording, array.shape, array.dtype))


def feature_shape(file: Path, recording: Recording) -> tuple[int, ...]:
    """(L, N, D) of a features file; of a remote one, which cannot be cut, only the head is fetched.

    Raises FileNotFoundError where there is none, and else as `read_features`.
    """
    if storage.is_local(file):
        if not file.exists():
            raise FileNotFoundError(file)
        return read_features(file, recording).shape
    head = io.BytesIO(storage.head(file))
    try:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, kind = readers[np.lib.format.read_magic(head)](head)
    except (KeyError, ValueError) as error:
        raise UnreadableVideo(f"{file}: not a readable array ({error}); delete it to have it rebuilt") from error
    return _checked(file, recording, shape, kind)


def _checked(file: Path, recording: Recording, shape: tuple[int, ...], kind: np.dtype[Any]) -> tuple[int, ...]:
    """The shape as (L, N, D); a file of (L, D) has N = 1."""
    if kind != np.float16 or len(shape) not in (2, 3) or shape[0] != recording.num_frames:
        raise UnreadableVideo(
            f"{file}: {kind} {shape}; features of {recording.id} must be float16 "
            f"({recording.num_frames}, N, D): delete the file to have it rebuilt"
        )
    return shape if len(shape) == 3 else (shape[0], 1, shape[1])
