"""What exact random access to a video needs: when each frame is shown, and where decoding it can start."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from crossview import storage
from crossview.datasets.video.frames import UnreadableVideo, on_this_node

FORMAT = 1
_CHECKED_ROWS = 8
"""Every so many rows of a picture are in its checksum, which costs some 10 us per picture."""
_END_BYTES = 16 * 1024
"""Of either end of a file, in its fingerprint."""
_one_reads = threading.Lock()
"""numpy parses an array's header with `ast`, whose depth CPython 3.11 may miscount between threads: SystemError."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The frames of one file in presentation order, as a sequential decode yields them."""

    pts: np.ndarray
    """int64 (n,), time stamps in ticks of `time_base`; not increasing or all 0 where the file's cannot be used."""
    time_base: Fraction
    clock_start_s: float
    """Start of the file's clock, in s of its time stamps: of the stream that starts first."""
    checks: np.ndarray
    """uint32 (n,), `checksum` of each picture."""
    entry_frames: np.ndarray
    """int64 (k,), rising: frames at which decoding can start; those before the first need a pass from the start."""
    entry_stamps: np.ndarray
    """int64 (k,), the time stamp to seek to for each of them."""
    fingerprint: str
    """Of the file that was indexed; see `fingerprint`."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else cataloguing found: fps, size."""

    @property
    def times_s(self) -> np.ndarray:
        """Presentation times from the start of the file's clock: float64 (n,)."""
        return self.pts * float(self.time_base) - self.clock_start_s

    def write(self, file: Path) -> None:
        """One compressed file, whole or not at all."""
        meta = {
            "format": FORMAT, "time_base": str(self.time_base), "clock_start_s": self.clock_start_s,
            "fingerprint": self.fingerprint, "facts": self.facts,
        }  # fmt: skip
        content = io.BytesIO()
        np.savez_compressed(
            content,
            meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
            steps=np.diff(self.pts, prepend=0),  # constant, mostly, and then a few bytes
            checks=self.checks.astype(np.uint32),
            entry_steps=np.diff(self.entry_frames, prepend=0),
            entry_stamp_steps=np.diff(self.entry_stamps, prepend=0),
        )
        storage.make_folder(file.parent)
        storage.write(file, lambda partial: partial.write_bytes(content.getvalue()), once=True)

    @staticmethod
    def read(file: Path) -> FrameIndex:
        """What `write` wrote; raises UnreadableVideo for anything else."""
        try:
            copy = storage.local(file, settled=True)
        except FileNotFoundError as error:
            raise _missing(file) from error
        try:
            with copy.open("rb") as file_here:
                if not zipfile.is_zipfile(file_here):  # of pickles numpy says how to load them all the same
                    raise ValueError("it is no archive, or cut off")
            with _one_reads, np.load(copy, allow_pickle=False) as stored:
                return _checked(stored)
        except FileNotFoundError as error:
            raise _missing(file) from error
        except Exception as error:  # a damaged archive raises more than its own errors
            raise UnreadableVideo(f"{file}: this frame index is damaged ({error}); make the catalog again") from error

    def check_current(self, path: Path) -> None:
        """Raise UnreadableVideo if the file is another one than was indexed."""
        if fingerprint(path) != self.fingerprint:
            raise UnreadableVideo(
                f"{path}: it has changed since it was catalogued; make the catalog again with `crossview prepare`, or "
                "put the old file back"
            )

    def shows(self, number: int, frame: VideoFrame) -> bool:
        """Whether a decoded frame is frame `number`: by its time stamp and its picture."""
        return bool(frame.pts == self.pts[number] and checksum(frame) == self.checks[number])


@lru_cache(maxsize=64)
def cached_index(file: Path) -> FrameIndex:
    """`FrameIndex.read`; an index is never rewritten, since its file's name holds the video's fingerprint."""
    return FrameIndex.read(file)


def _missing(file: Path) -> UnreadableVideo:
    return UnreadableVideo(f"{file}: this frame index of the catalog is missing; make the catalog again")


def _checked(stored: Mapping[str, np.ndarray]) -> FrameIndex:
    """The index in an archive; raises some error for one that `write` would not have written."""
    meta = json.loads(bytes(stored["meta"]))
    if meta["format"] != FORMAT:
        raise ValueError(f"its format is {meta['format']}, not {FORMAT}")
    index = FrameIndex(
        np.cumsum(stored["steps"]),
        Fraction(meta["time_base"]),
        float(meta["clock_start_s"]),
        stored["checks"],
        np.cumsum(stored["entry_steps"]),
        np.cumsum(stored["entry_stamp_steps"]),
        str(meta["fingerprint"]),
        dict(meta["facts"]),
    )
    entries = index.entry_frames
    kinds = [(index.pts, np.int64), (index.checks, np.uint32), (entries, np.int64), (index.entry_stamps, np.int64)]
    if any(array.ndim != 1 or array.dtype != kind for array, kind in kinds):
        raise ValueError("its arrays have other shapes or types")
    if not len(index.pts) == len(index.checks) > 0 or len(entries) != len(index.entry_stamps):
        raise ValueError("its arrays do not have the same length")
    if np.any(np.diff(entries, prepend=-1, append=len(index.pts)) <= 0):
        raise ValueError("its entry points are not among its frames")
    return index


def checksum(frame: VideoFrame) -> int:
    """CRC-32 of rows of a decoded picture's first plane, which is its luma."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    row_bytes = frame.width * -(-frame.format.components[0].bits // 8)
    return zlib.crc32(rows[: frame.height : _CHECKED_ROWS, :row_bytes].tobytes())


def fingerprint(path: Path) -> str:
    """Of a file's size and both its ends: kept by a copy of the file, not by another encoding of the video.

    Raises UnreadableVideo if there is no such file.
    """
    try:
        with on_this_node(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            tail = file.read(_END_BYTES)
    except OSError as error:
        raise UnreadableVideo(f"{path}: {error.strerror or error}") from error
    digest = hashlib.blake2b(head + tail, digest_size=8, key=str(size).encode())
    return f"{size}-{digest.hexdigest()}"
