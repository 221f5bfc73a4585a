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

_TYPES = {
    "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8", "BFloat16Storage": "<u2",
}  # fmt: skip
"""numpy's type of the numbers; those of bfloat16 are the upper halves of float32."""


_BROKEN = (OSError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What zipfile and numpy raise for damaged and foreign files."""


@dataclass(frozen=True)
class Tensor:
    """A tensor whose numbers have not been read."""

    file: Path
    entry: str
    """Of the archive, which holds the numbers."""
    storage: str
    """torch's name of their type."""
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def check(self) -> None:
        """Raise UserError where its numbers are not floating-point."""
        if self.storage not in _TYPES:
            kind = self.storage.removesuffix("Storage").lower()
            raise UserError(f"{self.file}: the tensor is of type {kind}; features are float16, float32 or float64")

    def read(self) -> np.ndarray:
        """The numbers, of type float16, float32 or float64. Raises UserError for others, and for a damaged file."""
        self.check()
        try:
            with zipfile.ZipFile(self.file) as archive:
                numbers = np.frombuffer(archive.read(self.entry), _TYPES[self.storage])
        except _BROKEN as error:
            raise UserError(f"{self.file}: its numbers cannot be read ({error}); get the file again") from error
        if min(self.shape, default=1) == 0:
            return np.zeros(self.shape, np.float32)
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        if min(self.offset, *self.shape, *self.stride) < 0 or max(reach + 1, math.prod(self.shape)) > len(numbers):
            raise UserError(f"{self.file}: the tensor {self.shape} reaches beyond its numbers; get the file again")
        if self.storage == "BFloat16Storage":
            numbers = (numbers.astype("<u4") << 16).view("<f4")
        steps = tuple(step * numbers.itemsize for step in self.stride)
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

            with archive.open(pickled[0]) as stream:
                found = load_stream(file, stream, Unpickler)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file}: it cannot be read ({error.strerror or error})") from error
    except _BROKEN as error:
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

    def find_class(self, module: str, name: str) -> Any:
        """As for plain data, and what tensors are made with."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _its_tensor
        if module == "torch" and name.endswith("Storage"):
            return _Type(name)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """A storage: its type and the archive's entry."""
        kind, type_, key, *_ = pid
        if kind != "storage" or not isinstance(type_, _Type):
            return super().persistent_load(pid)
        return type_.name, str(key)

    def _tensor(self, stored: tuple[str, str], offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
        name, key = stored
        sizes, steps = tuple(int(n) for n in shape), tuple(int(n) for n in stride)
        if len(sizes) != len(steps):
            raise RefusedError("a tensor has as many strides as dimensions; get the file again")
        return Tensor(self.source, self.prefix + key, name, int(offset), sizes, steps)
