"""Tensors in files of `torch.save`, read without torch and without running what a pickle names."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossview.datasets.catalog.safe_pickle import RefusedError, Restricted, load_stream
from crossview.errors import UserError

_BFLOAT16 = "BFloat16Storage"
_TYPES = {
    "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8", "ByteStorage": "u1", "CharStorage": "i1",
    "ShortStorage": "<i2", "IntStorage": "<i4", "LongStorage": "<i8", "BoolStorage": "?",
    "ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16", _BFLOAT16: "<u2",
}  # fmt: skip
"""numpy's type of the stored numbers; those of bfloat16 are the upper halves of float32."""
BROKEN = (
    OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and numpy raise for damaged and foreign files."""


@dataclass(frozen=True)
class _Storage:
    """Numbers in an entry of the archive, under torch's name of their type."""

    entry: str
    kind: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor whose numbers have not been read."""

    file: Path
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is read: float32 for bfloat16, which numpy lacks."""
        return np.dtype("<f4" if self.storage.kind == _BFLOAT16 else _TYPES[self.storage.kind])

    def read(self) -> np.ndarray:
        """The numbers; raises UserError for a damaged file."""
        try:
            with zipfile.ZipFile(self.file) as archive:
                numbers = np.frombuffer(archive.read(self.storage.entry), _TYPES[self.storage.kind])
            if 0 in self.shape:
                return np.zeros(self.shape, self.dtype)
        except BROKEN as error:
            raise UserError(f"{self.file}: its numbers cannot be read ({error}); get the file again") from error
        if self.storage.kind == _BFLOAT16:
            numbers = (numbers.astype("<u4") << 16).view("<f4")
        steps = [step * numbers.itemsize if size > 1 else 0 for size, step in zip(self.shape, self.stride, strict=True)]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False)


def tensors_in(file: Path) -> dict[str, Tensor]:
    """Tensors by their keys, or the only one of the file under "".

    Raises UserError for files of other content, of torch before 1.6, and those that name anything but plain data.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            pickled = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
            if len(pickled) != 1:
                raise UserError(f"{file}: it is not a file of torch.save; save the tensor again with it")
            folder = pickled[0].removesuffix("data.pkl")
            if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
                raise UserError(f"{file}: its numbers are big-endian; save it again on a usual machine")

            class Unpickler(_Tensors):
                source = file
                prefix = f"{folder}data/"
                within = archive

            with archive.open(pickled[0]) as stream:
                found = load_stream(file, stream, Unpickler)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file}: it cannot be read ({error.strerror or error})") from error
    except BROKEN as error:
        raise UserError(
            f"{file}: it is cut, or was saved before torch 1.6 ({error}); load and save it again, or get it again"
        ) from error
    if isinstance(found, Tensor):
        return {"": found}
    if isinstance(found, Mapping):
        return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    raise UserError(f"{file}: it holds a {type(found).__name__}; save a tensor, or a dict of tensors")


@dataclass(frozen=True)
class _Type:
    """A storage's class, as far as it is needed."""

    name: str


def _its_tensor(tensor: Any, *_: Any) -> Any:
    """Of a parameter."""
    return tensor


class _Tensors(Restricted):
    """Admits tensors, whose numbers are outside of the pickle."""

    source: Path
    prefix: str
    within: zipfile.ZipFile

    def find_class(self, module: str, name: str) -> Any:
        """As for plain data, and what tensors are made with."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _its_tensor
        if module in ("torch", "torch.storage") and name in _TYPES:
            return _Type(name)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage, as large as it is said to be: no archive unpacks to more than its own size."""
        what, kind, key, _, count = pid
        if what != "storage" or not isinstance(kind, _Type):
            raise RefusedError(f"it refers to {what!r} outside of the pickle; save a tensor, or a dict of tensors")
        entry, size = self.within.getinfo(f"{self.prefix}{key}"), count * np.dtype(_TYPES[kind.name]).itemsize
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
            raise RefusedError(f"its storage {key} is not {count} numbers in {size} bytes; get the file again")
        return _Storage(entry.filename, kind.name, count)

    def _tensor(self, stored: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
        sizes, steps = tuple(map(int, shape)), tuple(map(int, stride))
        last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        beyond = 0 not in sizes and max(last + 1, math.prod(sizes)) > stored.count
        if min((offset, *sizes, *steps)) < 0 or beyond:
            raise RefusedError(f"a tensor {sizes} reaches beyond its {stored.count} numbers; get the file again")
        return Tensor(self.source, stored, int(offset), sizes, steps)
