"""Feature files of users: a .npy, .npz or .pt file per recording, with one row per frame."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np

from crossview import storage
from crossview.datasets.features.packing import ROWS, npy_header
from crossview.datasets.features.torch_tensors import tensors_in
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError

_BROKEN = (
    OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise for damaged and foreign files."""
SUFFIXES = (".npy", ".npz", ".pt", ".pth")


def is_features(path: str | Path) -> bool:
    """Whether a file's name ends as that of features does."""
    suffix = PurePath(path).suffix if isinstance(path, str) else path.suffix  # a path may be one in an object store
    return suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class ArrayFile:
    """One file; `key` names the array in an .npz file, or the tensor in a dict, where there are several."""

    file: Path
    key: str | None = None

    def shape(self) -> tuple[int, ...]:
        """(frames, width) or (frames, tokens, width), from the header alone; raises UnreadableVideo."""
        shape, dtype = self._header()
        if len(shape) not in (2, 3) or 0 in shape:
            raise UnreadableVideo(
                f"{self.file}: it has the shape {shape}; features are (frames, width) or (frames, tokens, width)"
            )
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise UnreadableVideo(f"{self.file}: it is of type {dtype}; features are float16, float32 or float64")
        return shape

    def parts(self) -> Iterator[np.ndarray]:
        """All frames in order, in parts (n, ...); raises UnreadableVideo."""
        self.shape()
        try:
            array = self._array()
        except UserError as error:
            raise UnreadableVideo(str(error)) from error
        except _BROKEN as error:
            raise self._broken(error) from error
        for first in range(0, len(array), ROWS):
            yield array[first : first + ROWS]

    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        suffix, local = self.file.suffix.lower(), storage.local(self.file)
        try:
            if suffix == ".npy":
                with local.open("rb") as stream:
                    return _header(stream, local.stat().st_size)
            if suffix == ".npz":
                with zipfile.ZipFile(local) as archive:
                    member = archive.getinfo(f"{self._chosen(self._names(archive))}.npy")
                    return _header(io.BytesIO(archive.open(member).read(4096)), member.file_size)
            tensors = tensors_in(local)
            tensor = tensors[self._chosen(tensors)]
            tensor.check()
            return tensor.shape, np.dtype(np.float32)  # or another type of floating point, all of which are read
        except UserError as error:
            raise UnreadableVideo(str(error)) from error
        except _BROKEN as error:
            raise self._broken(error) from error

    def _array(self) -> np.ndarray:
        suffix, local = self.file.suffix.lower(), storage.local(self.file)
        if suffix == ".npy":
            return np.asarray(np.load(local, mmap_mode="r", allow_pickle=False))
        if suffix == ".npz":
            with np.load(local, allow_pickle=False) as archive:
                return np.asarray(archive[self._chosen(dict.fromkeys(archive.files))])
        tensors = tensors_in(local)
        return tensors[self._chosen(tensors)].read()

    def _names(self, archive: zipfile.ZipFile) -> Mapping[str, None]:
        return dict.fromkeys(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))

    def _chosen(self, names: Mapping[str, Any]) -> str:
        if self.key in names:
            return str(self.key)
        if len(names) == 1 and (self.key is None or "" in names):
            return next(iter(names))
        asked = f"no array is named {self.key!r}" if self.key else f"it holds {len(names)} arrays"
        raise UnreadableVideo(
            f"{self.file}: {asked}; name one of them with --key: {', '.join(names) or 'there is none'}"
        )

    def _broken(self, error: Exception) -> UnreadableVideo:
        return UnreadableVideo(f"{self.file}: not a readable array ({error}); get the file again")


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of what numpy.save wrote in `size` bytes; raises ValueError for another file."""
    shape, _, dtype = npy_header(stream)
    if stream.tell() + math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"it is cut: {shape} numbers of type {dtype} do not fit in {size:,} bytes")
    return shape, dtype
