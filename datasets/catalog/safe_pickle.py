"""Reading untrusted pickles without running their code."""

from __future__ import annotations

import codecs
import io
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np

from crossview.errors import UserError

_PLAIN_KINDS = "biufcSU"


def load(path: Path) -> Any:
    """The pickled plain containers, numbers, strings and numpy arrays; raises ValueError for anything else."""
    return load_stream(path, io.BytesIO(_bytes(path)), Restricted)


def load_object_array(path: Path) -> np.ndarray:
    """The array of plain objects in a .npy file, as `numpy.save` pickles them; raises ValueError for anything else."""
    stream = io.BytesIO(_bytes(path))
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dtype = read(stream)[2]
    except ValueError as error:
        raise UserError(f"{path}: not a .npy file ({error}); get the file again") from error
    if not dtype.hasobject:
        stream.seek(0)
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    found = load_stream(path, stream, _WithObjects)
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path}: it holds a {type(found).__name__}, not an array; get the file again")
    return np.asarray(found)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing") from error


def load_stream(path: Path, stream: IO[bytes], kind: type[Restricted]) -> Any:
    """What a restricted unpickler of this kind reads from a stream of `path`; raises ValueError for anything else."""
    try:
        # Pickles of Python 2 hold byte strings; latin1 is what numpy asks for in them.
        return kind(stream, encoding="latin1").load()
    except RefusedError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise UserError(
            f"{path}: not a readable pickle ({type(error).__name__}: {error}); get the file again"
        ) from error


class RefusedError(Exception):
    """Something other than plain data."""


class Restricted(pickle.Unpickler):
    """Maps the few names that arrays need to functions of our own, and refuses the rest."""

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: only looks up what is admitted."""
        # numpy renamed numpy.core to numpy._core; both occur in files.
        found = _ADMITTED.get((module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins"), name))
        if found is None:
            raise RefusedError(
                f"it names {module}.{name}, which could run code when loaded; only plain containers, "
                "numbers, strings and numpy arrays are read: save the file again from those"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        """No pickle of plain data refers outside itself."""
        raise RefusedError(f"it refers to an object outside the file ({pid!r}); save plain data instead")


class _WithObjects(Restricted):
    """Admits arrays whose entries are plain objects themselves."""

    def find_class(self, module: str, name: str) -> Any:
        """As for plain data, but an array's type may be "object"."""
        if (module, name) == ("numpy", "dtype"):
            return _plain_or_object_dtype
        if (module.replace("numpy._core", "numpy.core"), name) == ("numpy.core.multiarray", "_reconstruct"):
            return _empty_checked_array
        return super().find_class(module, name)


class _CheckedArray(np.ndarray):
    """numpy fills an array of objects from a list without looking at the list's length."""

    def __setstate__(self, state: Any) -> None:
        shape, dtype, content = state[1], state[2], state[4]
        if dtype.hasobject and not (isinstance(content, list) and len(content) == math.prod(shape)):
            raise RefusedError(f"an array of shape {shape} does not hold as many objects; get the file again")
        super().__setstate__(state)


def _empty_checked_array(*_: Any) -> np.ndarray:
    return np.empty(0, np.int8).view(_CheckedArray)


def _plain_or_object_dtype(code: Any, *rest: Any) -> np.dtype[Any]:
    return np.dtype(object) if code in ("O", "O8", "|O") else _plain_dtype(code, *rest)


def _plain_dtype(code: Any, *_: Any) -> np.dtype[Any]:
    dtype = np.dtype(code)
    if dtype.kind not in _PLAIN_KINDS:
        raise RefusedError(
            f"it holds an array of type {dtype}, not of plain numbers or strings; save such arrays as lists"
        )
    return dtype


def _empty_array(*_: Any) -> np.ndarray:
    """Shape and content follow in the pickle's next instruction."""
    return np.empty(0, np.int8)


def _from_buffer(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype[Any], data: Any) -> Any:
    return np.frombuffer(data if isinstance(data, bytes) else data.encode("latin1"), dtype)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes for protocol 2."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise RefusedError(f"it holds bytes encoded as {encoding!r}, which pickle never writes; get the file again")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytearray"): bytearray,
    ("builtins", "complex"): complex,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): "ndarray",  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _plain_dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
}
