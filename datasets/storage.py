"""Where files lie: a local path, or the URI of any store that fsspec reaches, such as s3://bucket/folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from abc import ABC
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

T = TypeVar("T")

PATIENCE_S = 300.0
"""How long a write, or the reading of a remote file, is tried again; CROSSVIEW_PATIENCE_S sets another time."""
PAUSES_S = (1.0, 30.0)
"""The first pause between two tries, and the longest; each is twice the one before."""
CACHE_GB = 50.0
"""Local copies of remote files that are kept; CROSSVIEW_CACHE_GB sets another size."""
IN_USE_S = 3600.0
"""A local copy that was asked for within this time is never removed."""

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_LIBRARIES = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs")
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "created")
_settled: dict[str, Path] = {}
_log = logging.getLogger("crossview.storage")

if TYPE_CHECKING:
    Location = Path
else:

    class Location(ABC):  # noqa: B024 - it says what a path is, and has nothing of its own
        """The type of a path in a configuration: made by `as_path`, be it local or not."""

        def __new__(cls, text: str | PurePath) -> Path:
            """See `as_path`."""
            return as_path(text)

    Location.register(PurePath)


def as_path(text: str | PurePath) -> Path:
    """A `pathlib.Path`, or for a URI a `UPath`, which has the same methods.

    Raises ValueError where the scheme is unknown, or its package is not installed.
    """
    if not isinstance(text, str):
        return cast(Path, text)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return Path(text)
    if scheme == "file":
        return Path(unquote(urlsplit(text).path))
    import fsspec
    from upath import UPath

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        wanted = f"pip install 'crossview[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else str(error)
        raise ValueError(f"{text}: the package that reaches {scheme}:// is not installed; {wanted}") from error
    except ValueError as error:
        raise ValueError(
            f"{text}: {scheme}:// is no storage that fsspec knows; give a local path, or a URI such as "
            "s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
        ) from error
    if not TYPE_CHECKING:
        Location.register(UPath)
    # Others write there too: a remembered listing would hide their files.
    return cast(Path, UPath(text.rstrip("/"), use_listings_cache=False))


def is_local(path: Path) -> bool:
    """Whether the operating system itself opens the path: a disk's, or a mounted share's."""
    return isinstance(path, Path)


def _remote(path: Path) -> Any:
    """The path as the UPath that it is, with `fs` and `path`."""
    assert not is_local(path)
    return path


def filesystem(path: Path) -> tuple[str, Any]:
    """A remote path without its scheme, and fsspec's file system for it."""
    return _remote(path).path, _remote(path).fs


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A local folder for many files that belong in `folder`: itself, or one that is uploaded and removed at the end.

    After an error it stays in the cache, so that the same call on this node goes on from there.
    """
    if is_local(folder):
        yield folder
        return
    make_folder(folder)
    stage = cache_folder() / f"staged-{hashlib.blake2b(str(folder).encode(), digest_size=16).hexdigest()}"
    stage.mkdir(exist_ok=True)
    yield stage
    for file in sorted(stage.rglob("*")):
        if file.is_file():
            upload(file, folder / file.relative_to(stage).as_posix())
    shutil.rmtree(stage)


def make_folder(folder: Path, *, exist_ok: bool = True) -> None:
    """Make a folder and those above it; a remote one comes with its files, but its bucket must be there (OSError)."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=exist_ok)
        return
    with named(folder):
        bucket = _remote(folder).drive
        if bucket and not _remote(folder).fs.exists(bucket):
            _remote(folder).fs.ls(bucket)  # says why: no such bucket, no credentials, no right to see it
        if not exist_ok and folder.exists():
            raise FileExistsError(errno.EEXIST, f"{folder} exists already")


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    if is_local(folder):
        shutil.rmtree(folder)
    else:
        _remote(folder).fs.rm(_remote(folder).path, recursive=True)


def write(file: Path, build: Callable[[Path], object], *, once: bool = False, patience_s: float | None = None) -> None:
    """Have `build` write a local file under a temporary name, which becomes `file` once it is whole.

    A reader never sees half of it: a local file is renamed, a remote one uploaded in one request. Where the storage
    fails, that is tried again for `patience_s`, by default PATIENCE_S, then raises OSError. What `build` makes `once`
    is only uploaded again.
    """
    if is_local(file):
        patiently(lambda: _renamed(file, build), file, 0 if once else patience_s)
        return
    with outgoing() as folder:
        made = folder / file.name
        build(made)
        upload(made, file, patience_s)


def _renamed(file: Path, build: Callable[[Path], object]) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        build(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str, *, patience_s: float | None = None) -> None:
    """Write a text file, as `write` does."""
    write(file, lambda partial: partial.write_text(text, encoding="utf-8"), patience_s=patience_s)


def upload(made: Path, file: Path, patience_s: float | None = None) -> None:
    """Put a local file to a remote place, whole or not at all; tried again as `write` does."""
    patiently(lambda: _remote(file).fs.put_file(str(made), _remote(file).path), file, patience_s)


def copy_within(source: Path, file: Path) -> None:
    """Have the remote storage copy a file of its own; tried again as `write` does."""
    patiently(lambda: _remote(file).fs.cp_file(_remote(source).path, _remote(file).path), file)


@contextlib.contextmanager
def outgoing() -> Iterator[Path]:
    """A local folder for files on their way to a remote place, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="outgoing-", dir=cache_folder()) as name:
        yield Path(name)


def local(path: Path, *, settled: bool = False) -> Path:
    """A file that the operating system opens: `path` itself, or a copy of the remote file in this node's cache.

    A copy is named after the remote file's version (ETag or time of change, and size), so a changed file is fetched
    anew, and each node fetches a version once. `settled` says that it does not change while this process runs: then the
    store is asked once. Raises FileNotFoundError where there is none; other failures are tried again for PATIENCE_S.
    """
    if is_local(path):
        return path
    kept = _settled.get(str(path)) if settled else None
    if kept is not None:
        with contextlib.suppress(FileNotFoundError):
            os.utime(kept)  # the cache removes what was longest not asked for
            return kept
    kept = patiently(lambda: _used(_fetched(path)), path)
    _settled[str(path)] = kept
    return kept


def _used(kept: Path) -> Path:
    try:
        os.utime(kept)
    except FileNotFoundError as error:
        raise OSError(errno.EAGAIN, f"{kept}: the cache gave it up in this moment") from error
    return kept


def _fetched(path: Path) -> Path:
    version = state(path)
    key = hashlib.blake2b(f"{path} {version}".encode(), digest_size=16).hexdigest()
    kept = cache_folder() / f"{key}-{path.name[-120:]}"
    if kept.exists():
        return kept
    partial = kept.with_name(f".{kept.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        _remote(path).fs.get_file(_remote(path).path, str(partial))
        if partial.stat().st_size != version[0]:
            raise OSError(errno.EIO, f"{path}: {partial.stat().st_size} bytes came of {version[0]}")
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)
    _trim()
    return kept


def is_file(path: Path) -> bool:
    """Whether a file lies there; where the storage fails to tell, it is asked again, for PATIENCE_S, then OSError."""
    if is_local(path):
        return path.is_file()
    try:
        patiently(lambda: state(path), path)
    except FileNotFoundError:
        return False
    return True


def read_text(file: Path) -> str:
    """A text file; where the storage fails, tried again for PATIENCE_S. Raises FileNotFoundError without one."""
    return patiently(file.read_text, file)


def head(path: Path, count: int = 4096) -> bytes:
    """The first bytes of a remote file; raises OSError."""
    return cast(bytes, patiently(lambda: _remote(path).fs.cat_file(_remote(path).path, start=0, end=count), path))


def state(path: Path) -> list[Any]:
    """Size in bytes and version: other values once the file is another. Raises OSError where there is none."""
    if is_local(path):
        facts = path.stat()
        return [facts.st_size, facts.st_mtime_ns]
    with named(path):
        info = _remote(path).fs.info(_remote(path).path)
    if info["type"] == "directory":
        raise FileNotFoundError(errno.ENOENT, f"{path}: it is a folder, not a file")
    return [info["size"], next((str(info[name]) for name in _VERSIONS if info.get(name)), "")]


def cache_folder() -> Path:
    """CROSSVIEW_CACHE, by default `crossview` in the user's cache folder; made where it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("CROSSVIEW_CACHE") or Path(base) / "crossview")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _trim() -> None:
    """Remove the copies that were longest not asked for, until the rest fit."""
    left = _setting("CROSSVIEW_CACHE_GB", CACHE_GB) * 1e9
    found = []
    for entry in os.scandir(cache_folder()):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if entry.is_file():
                found.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    for _, size, name in sorted(found, reverse=True):
        left -= size
        with contextlib.suppress(FileNotFoundError):
            if left < 0 and time.time() - Path(name).stat().st_mtime > IN_USE_S:  # asked for since it was listed?
                Path(name).unlink()


def patiently(work: Callable[[], T], path: Path, patience_s: float | None = None) -> T:
    """What `work` returns; while the storage of `path` fails it is called again, with growing pauses.

    A line says so. After `patience_s`, by default PATIENCE_S, raises OSError; at once where waiting cannot help, as
    nothing is there, or there are no credentials.
    """
    end_s = time.monotonic() + (_setting("CROSSVIEW_PATIENCE_S", PATIENCE_S) if patience_s is None else patience_s)
    pause_s, longest_s = PAUSES_S
    while True:
        try:
            with named(path):
                return work()
        except OSError as error:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not _may_pass(error):
                raise
            pause_s = min(pause_s, longest_s, left_s)
            _log.warning("%s: the storage fails (%s); next try in %.0f s, for %.0f s", path, error, pause_s, left_s)
            time.sleep(pause_s)
            pause_s *= 2


def _may_pass(error: OSError) -> bool:
    hopeless = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
    return not isinstance(error, hopeless) and "Credentials" not in type(error.__cause__).__name__


@contextlib.contextmanager
def named(path: Path | None = None) -> Iterator[None]:
    """Turn the errors of storage libraries, which have kinds of their own, into OSError that names the path."""
    try:
        yield
    except OSError as error:
        if path is None or is_local(path) or str(path) in str(error):
            raise
        kind = type(error) if type(error).__module__ == "builtins" else OSError  # a library's takes other arguments
        raise kind(error.errno or errno.EIO, f"{path}: {error}") from error
    except Exception as error:
        kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        if not kinds & set(_LIBRARIES):
            raise
        advice = "; set the store's credentials, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"
        missing = advice if "Credentials" in type(error).__name__ else ""
        raise OSError(errno.EIO, f"{path or 'storage'}: {error}{missing}") from error


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name)
    try:
        return default if text is None else float(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r} in the environment; it must be a number") from error
