"""Tensors that torch.save wrote: read without torch and without running code, and repacked as memory-mapped arrays."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crossview import storage
from crossview.errors import UserError

_KINDS = {
    "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8", "ByteStorage": "u1", "CharStorage": "i1",
    "ShortStorage": "<i2", "IntStorage": "<i4", "LongStorage": "<i8",
}  # fmt: skip


class _Kind(NamedTuple):
    """What stands for a class of storages in the pickle."""

    dtype: str


class _RefusedError(Exception):
    """Something other than a tensor of plain numbers."""


def load(path: Path) -> np.ndarray:
    """The one tensor in a file of torch 1.6 or later; raises UserError for anything else, which is never run."""
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            found = _Unpickler(archive, pickled.removesuffix("data.pkl")).load()
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing") from error
    except _RefusedError as error:
        raise UserError(f"{path}: {error}; save the tensor alone, with torch.save(tensor.cpu(), FILE)") from error
    except Exception as error:  # a damaged archive or pickle may raise nearly anything
        raise UserError(
            f"{path}: not a readable file of torch.save ({type(error).__name__}: {error}); get the file again"
        ) from error
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path}: it holds a {type(found).__name__}, not a tensor; save the tensor alone")
    return found


class _Unpickler(pickle.Unpickler):
    """Admits the names that a tensor needs, each as a function of our own, and refuses the rest."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive, self._folder = archive, folder
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise _RefusedError("its bytes are in another order than little-endian")

    def find_class(self, module: str, name: str) -> Any:
        """Never imports."""
        if module in ("torch", "torch.storage") and name in _KINDS:
            return _Kind(_KINDS[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise _RefusedError(f"it names {module}.{name}, and only a tensor of plain numbers is read")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """A storage: its numbers, flat."""
        what, kind, key, _, count = pid
        member = self._archive.getinfo(f"{self._folder}data/{key}")
        dtype = np.dtype(kind.dtype)
        if (
            what != "storage"
            or member.compress_type != zipfile.ZIP_STORED
            or member.file_size != count * dtype.itemsize
        ):
            raise _RefusedError(f"its storage {key} is not {count} numbers of {dtype}")
        return np.frombuffer(self._archive.read(member), dtype)


def _strided(flat: np.ndarray, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if min((offset, *shape, *stride)) < 0 or math.prod(shape) > flat.size or (0 not in shape and last >= flat.size):
        raise _RefusedError(f"its shape {shape} and strides {stride} reach beyond its {flat.size} numbers")
    if 0 in shape:
        return np.empty(shape, flat.dtype)
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, [step * flat.itemsize for step in stride])


def repacked(source: Path, target: Path) -> tuple[int, int, int]:
    """Shape (L, N, D) of the file's features (L, D) or (L, N, D) as float16 in `target`, a .npy file.

    Kept where it is there already, whole and not older than its source. Raises UserError for another shape, and for
    numbers that float16 does not hold.
    """
    kept = _kept(source, target)
    if kept is None:
        found = load(source)
        if found.ndim not in (2, 3) or not found.size:
            raise UserError(f"{source}: a tensor of shape {found.shape}; features are (frames, values): get it again")
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(found.reshape(len(found), -1, found.shape[-1]), np.float16)
        if not np.isfinite(half).all():
            raise UserError(f"{source}: its numbers exceed float16 or are not finite; scale them, or leave it out")
        storage.make_folder(target.parent)
        storage.write(target, lambda partial: _save(partial, half), once=True)
        kept = half.shape
    return kept[0], kept[1], kept[2]


def _save(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as stream:  # numpy adds .npy to a name without it
        np.save(stream, array)


def _kept(source: Path, target: Path) -> tuple[int, ...] | None:
    """The shape of what an earlier call wrote."""
    try:
        if target.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return None
        array = np.load(target, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array.shape if array.dtype == np.float16 and array.ndim == 3 else None
