"""Embeddings of the steps or clips that a plan shows: float32 (K, D) per recording, memory-mapped, beside their keys.

The key of a step is its first frame and its number of frames, int64 (K, 2); that of a clip a hash, int64 (K,). No torch
for decoders.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from crossview import storage
from crossview.datasets.catalog import Recording
from crossview.datasets.sampling.plan import Clip
from crossview.datasets.video.frames import UnreadableVideo, on_this_node
from crossview.errors import UserError

FACTS = "embedded.json"
"""In their folder: what computed them."""
_FIX = "remove that folder, and `crossview resume` embeds again"


def width(folder: Path) -> int:
    """Values of an embedding (D)."""
    return int(storage.read_json(folder / FACTS, _FIX)["width"])


def clip_key(clip: Clip) -> int:
    """A hash of what a clip shows of its recording."""
    shown = clip.frames.astype(np.int64).tobytes() + np.array(clip.region or (), np.float64).tobytes()
    return int.from_bytes(hashlib.blake2b(shown, digest_size=8).digest(), "little", signed=True)


def write_embeddings(folder: Path, recording: Recording, keys: np.ndarray, vectors: np.ndarray) -> None:
    """One recording's keys in order and embeddings float32 (K, D): NaN where a clip could not be read."""
    for file, array in zip(_files(folder, recording), (keys, vectors), strict=True):
        storage.write(file, lambda partial, array=array: _save(partial, array))  # type: ignore[misc]


def write_reason(folder: Path, recording: Recording, reason: str) -> None:
    """Why some or all of a recording could not be embedded."""
    storage.write_text(_reason(folder, recording), reason)


def is_embedded(folder: Path, recording: Recording) -> bool:
    """Whether its embeddings are there, be it of other steps or clips."""
    return all(storage.is_file(file) for file in _files(folder, recording))


def holds_embeddings(folder: Path, recording: Recording, keys: np.ndarray, size: int) -> bool:
    """Whether those that are there are whole; raises UserError where they have other keys or another width."""
    files = _files(folder, recording)
    theirs, vectors = (_loaded(file) for file in files)
    if not np.array_equal(theirs, keys) or vectors.shape != (len(keys), size):
        raise UserError(
            f"{files[1]}: embeddings {vectors.shape} of {_described(theirs)}; this run reads ({len(keys)}, {size}) of "
            f"{_described(keys)} of {recording.id}: the recording or the run is another one; {_FIX}"
        )
    return not np.isnan(vectors).any()


def read_embeddings(folder: Path, recording: Recording, keys: np.ndarray) -> np.ndarray:
    """Embeddings float32 (T, D) by their keys, of T steps or clips.

    Raises UnreadableVideo where the recording has none, and UserError where a key is not among its own.
    """
    files = _files(folder, recording)
    try:
        ours, vectors = (_loaded(file) for file in files)
    except FileNotFoundError as error:
        raise _unreadable(folder, recording) from error
    numbers, wanted = _numbers(ours), _numbers(keys)
    places = np.searchsorted(numbers, wanted).clip(max=len(numbers) - 1)
    if (numbers[places] != wanted).any():
        first = keys[np.flatnonzero(numbers[places] != wanted)[0]]
        what = (
            f"the {first[1]} frames of {recording.id} from {first[0]} on" if first.ndim else f"a clip of {recording.id}"
        )
        raise UserError(
            f"{files[0]}: no embedding of {what}, but of {_described(ours)}; they are another run's, or of a recording "
            f"of other length: {_FIX}"
        )
    found = np.asarray(vectors[places])
    if np.isnan(found).any():
        raise _unreadable(folder, recording)
    return found


def _numbers(keys: np.ndarray) -> np.ndarray:
    """One per key, in the order of keys; a step's order is that of first frames."""
    return keys if keys.ndim == 1 else keys[:, 0] << 32 | keys[:, 1]


def _described(keys: np.ndarray) -> str:
    if keys.ndim == 1:
        return f"{len(keys)} clips"
    last = int(keys.sum(1).max()) - 1 if len(keys) else 0
    return f"{len(keys)} steps up to frame {last}"


def _files(folder: Path, recording: Recording) -> tuple[Path, Path]:
    """Of the keys and of the embeddings; the latter comes last and is there only beside the former."""
    return folder / f"{recording.file_stem}.keys.npy", folder / f"{recording.file_stem}.npy"


def _reason(folder: Path, recording: Recording) -> Path:
    return folder / f"{recording.file_stem}.unreadable.txt"


def _unreadable(folder: Path, recording: Recording) -> UnreadableVideo:
    """With the reason that embedding it met."""
    file = _reason(folder, recording)
    if storage.is_file(file):
        return UnreadableVideo(storage.read_text(file))
    return UnreadableVideo(f"{_files(folder, recording)[1]}: the recording could not be read when it was embedded")


def _save(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as out:
        np.save(out, array)


def _loaded(file: Path) -> np.ndarray:
    try:
        array: np.ndarray[Any, Any] = np.load(on_this_node(file), mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: not a readable array ({error}); {_FIX}") from error
    return array
