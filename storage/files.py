"""What a file or folder is, on a disk or in an object store."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any, cast

from crossview.errors import UserError
from crossview.storage.paths import is_local, remote
from crossview.storage.retry import named, patiently

_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "created")


def make_folder(folder: Path, *, exist_ok: bool = True) -> None:
    """Make a folder and those above it; a remote one comes with its files, but its bucket must be there (OSError)."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=exist_ok)
        return
    with named(folder):
        bucket = remote(folder).drive
        if bucket and not remote(folder).fs.exists(bucket):
            remote(folder).fs.ls(bucket)  # says why: no such bucket, no credentials, no right to see it
        if not exist_ok and folder.exists():
            raise FileExistsError(errno.EEXIST, f"{folder} exists already")


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    if is_local(folder):
        shutil.rmtree(folder)
    else:
        remote(folder).fs.rm(remote(folder).path, recursive=True)


def is_file(path: Path) -> bool:
    """Whether there is a file; retried for PATIENCE_S where the storage fails, then raises OSError."""
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


def read_json(file: Path, fix: str, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """The object or list in a JSON file, read as `read_text` does; raises ValueError that names the file and `fix`."""
    try:
        values = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:  # of UTF-8 or JSON, and of JSON that is nested deeply
        raise UserError(f"{file}: not JSON ({error}); {fix}") from error
    if not isinstance(values, kind):
        asked = "an object" if kind is dict else "a list"
        raise UserError(f"{file}: it holds a {type(values).__name__} in JSON in place of {asked}; {fix}")
    return values


def head(path: Path, count: int = 4096) -> bytes:
    """The first bytes of a remote file; raises OSError."""
    return cast(bytes, patiently(lambda: remote(path).fs.cat_file(remote(path).path, start=0, end=count), path))


def state(path: Path) -> list[Any]:
    """Size in bytes and version: other values once the file is another. Raises OSError where there is none."""
    if is_local(path):
        facts = path.stat()
        return [facts.st_size, facts.st_mtime_ns]
    with named(path):
        info = remote(path).fs.info(remote(path).path)
    if info["type"] == "directory":
        raise FileNotFoundError(errno.ENOENT, f"{path}: it is a folder, not a file")
    return [info["size"], next((str(info[name]) for name in _VERSIONS if info.get(name)), "")]
