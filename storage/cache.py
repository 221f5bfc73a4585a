"""Copies of remote files on this node."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from crossview.storage.files import state
from crossview.storage.paths import is_local, remote
from crossview.storage.retry import patiently, setting

CACHE_GB = 50.0
"""Local copies of remote files that are kept; CROSSVIEW_CACHE_GB sets another size."""
IN_USE_S = 3600.0
"""A local copy that was asked for within this time is never removed."""
_settled: dict[str, Path] = {}


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


def use_copies(copies: Mapping[str, Path]) -> None:
    """Have `local` give these copies of settled remote files, as another process of this node fetched them."""
    _settled.update(copies)


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
        remote(path).fs.get_file(remote(path).path, str(partial))
        if partial.stat().st_size != version[0]:
            raise OSError(errno.EIO, f"{path}: {partial.stat().st_size} bytes came of {version[0]}")
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)
    _trim()
    return kept


def cache_folder() -> Path:
    """CROSSVIEW_CACHE, by default `crossview` in the user's cache folder; made where it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("CROSSVIEW_CACHE") or Path(base) / "crossview")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _trim() -> None:
    """Remove the copies that were longest not asked for, until the rest fit."""
    left = setting("CROSSVIEW_CACHE_GB", CACHE_GB) * 1e9
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
