"""Embeddings of the steps that a plan shows: float32 (K, D) per recording, memory-mapped. No torch for decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crossview import storage
from crossview.datasets.catalog import Recording
from crossview.datasets.video.frames import UnreadableVideo, on_this_node
from crossview.errors import UserError

FACTS = "embedded.json"
"""In their folder: what computed them."""
_FIX = "remove that folder, and `crossview resume` embeds again"


def width(folder: Path) -> int:
    """Values of an embedding (D)."""
    return int(storage.read_json(folder / FACTS, _FIX)["width"])


def write_steps(folder: Path, recording: Recording, steps: np.ndarray, vectors: np.ndarray) -> None:
    """One recording's embeddings float32 (K, D), and of each step its first frame and how many: int64 (K, 2)."""
    for file, array in zip(_files(folder, recording), (steps, vectors), strict=True):
        storage.write(file, lambda partial, array=array: _save(partial, array))  # type: ignore[misc]


def holds_steps(folder: Path, recording: Recording, steps: np.ndarray, size: int) -> bool:
    """Whether they are there and whole; raises UserError where they are of other steps or another width."""
    files = _files(folder, recording)
    if not all(storage.is_file(file) for file in files):
        return False
    theirs, vectors = (_loaded(file) for file in files)
    if not np.array_equal(theirs, steps) or vectors.shape != (len(steps), size):
        raise UserError(
            f"{files[1]}: embeddings {vectors.shape} of {_described(theirs)}; this run reads ({len(steps)}, {size}) of "
            f"{_described(steps)} of {recording.id}: the recording or the run is another one; {_FIX}"
        )
    return True


def read_steps(folder: Path, recording: Recording, frames: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Embeddings float32 (T, D) of steps of these frames int64 (T, n), `count` (T,) of each.

    Raises UnreadableVideo where the recording has none, and UserError where a step is not among them.
    """
    files = _files(folder, recording)
    steps, vectors = (_loaded(file) for file in files)
    wanted = _key(frames[:, 0], count)
    keys = _key(steps[:, 0], steps[:, 1])
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    if (keys[places] != wanted).any():
        first = int(np.flatnonzero(keys[places] != wanted)[0])
        raise UserError(
            f"{files[0]}: no embedding of the {count[first]} frames of {recording.id} from {frames[first, 0]} on, but "
            f"of {_described(steps)}; they are another run's, or of a recording of other length: {_FIX}"
        )
    return np.asarray(vectors[places])


def _key(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """One number per step, in the order of first frames."""
    return first.astype(np.int64) << 32 | count.astype(np.int64)


def _described(steps: np.ndarray) -> str:
    last = int(steps.sum(1).max()) - 1 if len(steps) else 0
    return f"{len(steps)} steps up to frame {last}"


def _files(folder: Path, recording: Recording) -> tuple[Path, Path]:
    """Of the steps and of their embeddings; the latter comes last and is there only beside the former."""
    return folder / f"{recording.file_stem}.steps.npy", folder / f"{recording.file_stem}.npy"


def _save(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as out:
        np.save(out, array)


def _loaded(file: Path) -> np.ndarray:
    try:
        array: np.ndarray[Any, Any] = np.load(on_this_node(file), mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UnreadableVideo(f"{file}: the recording could not be read when its steps were embedded") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: not a readable array ({error}); {_FIX}") from error
    return array
