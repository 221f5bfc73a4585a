"""Feature files of users: a .npy, .npz or .pt file per recording, with one row per frame."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from crossview import storage
from crossview.datasets.features.packing import ROWS, Job, Tick, npy_header, pack
from crossview.datasets.features.torch_tensors import BROKEN, tensors_in
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError

SUFFIXES = (".npy", ".npz", ".pt", ".pth")


def is_features(path: Path) -> bool:
    """Whether a file's name ends as that of features does."""
    return path.suffix.lower() in SUFFIXES


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

    def state(self) -> str:
        """Another text once the file is another, so that no copy of an earlier one is taken for its own."""
        return hashlib.blake2b(f"{storage.state(self.file)} {self.key}".encode(), digest_size=5).hexdigest()

    def parts(self) -> Iterator[np.ndarray]:
        """All frames in order, in parts (n, ...); raises UnreadableVideo."""
        self.shape()
        try:
            array = self._array()
        except UserError as error:
            raise UnreadableVideo(str(error)) from error
        except BROKEN as error:
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
            return tensor.shape, tensor.dtype
        except UserError as error:
            raise UnreadableVideo(str(error)) from error
        except BROKEN as error:
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


def shapes_of(files: Mapping[str, ArrayFile], source: Path | str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of files by their names, and why others cannot be read, without reading more than their headers.

    Raises UserError that starts with `source` where frames differ in their shape.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    broken: dict[str, str] = {}
    of_frames: dict[tuple[int, ...], str] = {}
    for name, file in files.items():
        try:
            shapes[name] = file.shape()
        except UnreadableVideo as error:
            broken[name] = str(error)
            continue
        _, *tokens, width = shapes[name]
        of_frames.setdefault((*(tokens or [1]), width), name)
    if len(of_frames) > 1:
        said = ", ".join(f"{tokens} x {width} in {name}" for (tokens, width), name in of_frames.items())
        raise UserError(
            f"{source}: frames have features of several shapes (tokens x width): {said}; make a catalog of each"
        )
    return shapes, broken


def pack_files(
    files: Mapping[str, ArrayFile], shapes: Mapping[str, tuple[int, ...]], packed: Path, tick: Tick | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Where below `packed` the array of each of these shapes is packed, by name; and why others cannot be.

    Raises as `pack` does.
    """
    places = {name: f"{name}-{files[name].state()}.npy" for name in shapes}
    jobs = [Job(packed / places[name], str(files[name].file), shapes[name], files[name].parts) for name in shapes]
    reasons = pack(jobs, tick)
    broken = {name: reasons[packed / place] for name, place in places.items() if packed / place in reasons}
    return {name: place for name, place in places.items() if name not in broken}, broken


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of what numpy.save wrote in `size` bytes; raises ValueError for another file."""
    shape, _, dtype = npy_header(stream)
    if stream.tell() + math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"it is cut: {shape} numbers of type {dtype} do not fit in {size:,} bytes")
    return shape, dtype
