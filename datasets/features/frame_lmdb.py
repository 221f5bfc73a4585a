"""LMDBs that hold one vector of features per frame, under keys that name a recording and a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np

from crossview.datasets.features.packing import ROWS
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError

_AGAIN = "download it again"


@dataclass(frozen=True)
class FrameLmdb:
    """A folder with data.mdb.

    Keys are a prefix, which stands for a recording, a frame's number with zeros before it, counted from 1, and a
    suffix; values are `width` numbers of type `dtype`.
    """

    folder: Path
    key: str
    """Regular expression of a whole key, with the groups "prefix" and "frame"."""
    width: int
    dtype: str = "<f4"

    def last_frames(self) -> dict[str, int]:
        """The number of the last frame under each prefix, in their order, without reading the others.

        Raises UserError for a file that is no LMDB, that is cut, or that holds another key.
        """
        found: dict[str, int] = {}
        with _opened(self.folder) as opened, opened.begin() as reading, reading.cursor() as cursor:
            there = cursor.first()
            while there:
                prefix, _ = self._parts(cursor.key())
                there = cursor.set_range(prefix.encode() + b":")  # which comes after every digit
                if not (cursor.prev() if there else cursor.last()):
                    break
                found[prefix] = self._parts(cursor.key())[1]
                there = cursor.next()
        return found

    def frames(self, prefix: str, last: int) -> Iterator[np.ndarray]:
        """The features of frames 1 to `last`: parts (n, width). Raises UnreadableVideo for a missing or broken one."""
        size = self.width * np.dtype(self.dtype).itemsize
        part: list[bytes] = []
        due = 1
        with _opened(self.folder) as opened, opened.begin() as reading, reading.cursor() as cursor:
            there = cursor.set_range(prefix.encode())
            while there and due <= last:
                key, value = cursor.item()
                if not key.startswith(prefix.encode()) or (frame := self._parts(key)[1]) != due:
                    break
                if len(value) != size:
                    raise UnreadableVideo(
                        f"{self.folder}, key {key.decode()!r}: its value has {len(value):,} bytes, where "
                        f"{self.width:,} numbers of type {np.dtype(self.dtype)} have {size:,}; {_AGAIN}"
                    )
                part.append(value)
                due = frame + 1
                if len(part) == ROWS:
                    yield self._array(part)
                    part = []
                there = cursor.next()
        if due <= last:
            raise UnreadableVideo(
                f"{self.folder}, keys {prefix}...: frame {due} of {last} is missing, or one before it is too many; "
                f"{_AGAIN}"
            )
        if part:
            yield self._array(part)

    def _array(self, values: list[bytes]) -> np.ndarray:
        return np.frombuffer(b"".join(values), self.dtype).reshape(len(values), self.width)

    def _parts(self, key: bytes) -> tuple[str, int]:
        match = re.fullmatch(self.key, key.decode("utf-8", "backslashreplace"))
        if match is None:
            raise UserError(f"{self.folder}: it holds the key {key[:120]!r}, which is none of {self.key}; {_AGAIN}")
        return match["prefix"], int(match["frame"])


@contextmanager
def _opened(folder: Path) -> Iterator[lmdb.Environment]:
    """The database, which must not be open in this process already."""
    file = folder / "data.mdb"
    try:
        opened = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise UserError(f"{file}: it cannot be opened as an LMDB ({error}); {_AGAIN}") from error
    with opened:
        needed = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
        there = file.stat().st_size
        if there < needed:  # reading beyond its end would end the process
            raise UserError(f"{file}: it is cut, with {there:,} of {needed:,} bytes; {_AGAIN}")
        yield opened
