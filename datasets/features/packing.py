"""Features packed as one contiguous float16 array per recording, which training memory-maps."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import numpy as np

from crossview import storage
from crossview.datasets.catalog.probing import Tick
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError

ROWS = 1024
"""Frames in a part of an array, at most: what is in memory at a time."""
_FEW = 2**27
"""Values for which no further process is started."""
_HALF = 2.0**-11, 2.0**-25
"""Largest relative error of rounding to float16, and largest absolute one of its subnormal numbers."""


@dataclass(frozen=True)
class Job:
    """One array to pack."""

    target: Path
    """The .npy file."""
    source: str
    """What errors name."""
    shape: tuple[int, ...]
    """(frames, width) or (frames, tokens, width)."""
    parts: Callable[[], Iterator[np.ndarray]]
    """Gives all frames in order, in parts (n, ...), anew at each call; raises UnreadableVideo. It is pickled."""

    @property
    def done(self) -> bool:
        """Whether the file is there: it has its name only once it is verified."""
        return storage.is_file(self.target) and packed_shape(self.target) == self.shape


def pack(jobs: Sequence[Job], tick: Tick | None = None, workers: int | None = None) -> dict[Path, str]:
    """Write what is missing, on `workers` cores, by default all; returns by target why some cannot be packed.

    Every file is written under a temporary name, read back and compared with its source: all frames are there, every
    value is finite and within the rounding of float16. Then it is renamed, so that a call after a kill goes on with
    what is missing. Raises UserError where two jobs have one target, and OSError where the disk is full.
    """
    targets = {job.target for job in jobs}
    if len(targets) < len(jobs):
        twice = next(job for k, job in enumerate(jobs) if job.target in {j.target for j in jobs[:k]})
        raise UserError(f"{twice.source}: another array would be packed as {twice.target} too; rename one of them")
    storage.remove_partial(targets)
    missing = [job for job in jobs if not job.done]
    if tick:
        tick(len(jobs) - len(missing), len(jobs))
    reasons: dict[Path, str] = {}
    if workers is None:
        values = sum(math.prod(job.shape) for job in missing)
        workers = (os.cpu_count() or 1) if values > _FEW else 1
    for done, (job, reason) in enumerate(_packed(missing, workers), len(jobs) - len(missing) + 1):
        if reason is not None:
            reasons[job.target] = reason
        if tick:
            tick(done, len(jobs))
    return reasons


def packed_shape(file: Path) -> tuple[int, ...] | None:
    """Shape of a packed array, (frames, width) or (frames, tokens, width); None where the file is none, or is cut."""
    try:
        if storage.is_local(file):
            with file.open("rb") as stream:
                start = stream.read(4096)
        else:
            start = storage.head(file)
        head = io.BytesIO(start)
        shape, by_columns, dtype = npy_header(head)
    except (OSError, ValueError):
        return None
    size = head.tell() + math.prod(shape) * dtype.itemsize
    whole = not storage.is_local(file) or file.stat().st_size == size  # a remote one is uploaded whole or not at all
    packed = dtype == np.float16 and len(shape) in (2, 3) and 0 not in shape and not by_columns
    return shape if packed and whole else None


def feature_columns(shape: tuple[int, ...], fps: float) -> dict[str, Any]:
    """The fields of a `Recording` of features, an array of this shape."""
    return {"kind": "features", "fps": float(fps), "num_frames": shape[0], "height_px": 0, "width_px": 0}


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it lies by columns, and type of what numpy.save wrote; raises ValueError for another file."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the format")
    try:
        shape, by_columns, dtype = read(stream)
    except Exception as error:  # numpy parses the header as Python; what it says of a damaged one is of no help
        raise ValueError("its header is damaged") from error
    return tuple(int(n) for n in shape), bool(by_columns), dtype


def _packed(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, str | None]]:
    """Each job once it is done, in any order, and the reason why it cannot be."""
    if min(workers, len(jobs)) < 2:
        yield from ((job, _attempt(job)) for job in jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"))
    try:
        begun = {pool.submit(_attempt, job): job for job in jobs}
        for outcome in as_completed(begun):
            yield begun[outcome], outcome.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"{jobs[0].target.parent}: a process that packs features was killed, for memory perhaps; run the same "
            "command again, which goes on from there"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or an interrupt, no other file is begun


def _attempt(job: Job) -> str | None:
    try:
        storage.make_folder(job.target.parent)
        storage.write(job.target, lambda partial: _write(partial, job), once=True)
    except UnreadableVideo as error:
        return str(error)
    return None


def _write(file: Path, job: Job) -> None:
    with file.open("wb") as out:  # a map of the file would end the process where the disk is full
        np.lib.format.write_array_header_1_0(
            out,
            {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": job.shape},
        )
        for _, part in _placed(job):
            with np.errstate(over="ignore"):  # it is found below
                out.write(np.ascontiguousarray(part, np.float16).data)
        out.flush()
        os.fsync(out.fileno())
    _verify(np.load(file, mmap_mode="r"), job)


def _placed(job: Job) -> Iterator[tuple[int, np.ndarray]]:
    """Parts and the frame that each begins with; raises UnreadableVideo unless they are the job's shape together."""
    count = 0
    for part in job.parts():
        if part.shape[1:] != job.shape[1:]:
            raise UnreadableVideo(f"{job.source}: frame {count} has the shape {part.shape[1:]}, not {job.shape[1:]}")
        if count + len(part) > job.shape[0]:
            break
        yield count, part
        count += len(part)
    else:
        if count == job.shape[0]:
            return
    raise UnreadableVideo(f"{job.source}: it gives more or fewer frames than {job.shape[0]}; get the features again")


def _verify(array: np.ndarray, job: Job) -> None:
    """Compare what was written with the source, read anew."""
    relative, absolute = _HALF
    for first, part in _placed(job):
        exact = part.astype(np.promote_types(part.dtype, np.float32))
        with np.errstate(invalid="ignore"):
            wrong = ~(
                np.abs(array[first : first + len(part)] - exact) <= np.maximum(relative * np.abs(exact), absolute)
            )
        if wrong.any():
            place = tuple(int(k) for k in np.argwhere(wrong)[0])
            fault = "is not finite" if not np.isfinite(exact[place]) else "exceeds float16, which ends at 65504"
            raise UnreadableVideo(
                f"{job.source}: the value {exact[place]:g} of frame {first + place[0]}, counted from 0, {fault}; "
                "get the features again, or scale them"
            )
