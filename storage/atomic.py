"""Files that a reader never sees half of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from crossview.storage.cache import cache_folder
from crossview.storage.files import make_folder
from crossview.storage.paths import is_local, remote
from crossview.storage.retry import patiently

_PARTIAL = re.compile(r"\.(.+)\.\d+")
"""Name of a local file that is being written."""


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A local folder for many files that belong in `folder`: itself, or one that is uploaded and removed at the end.

    After an error it stays in the cache, so that the same call on this node continues from there.
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


def remove_partial(files: Iterable[Path]) -> None:
    """Remove what killed processes have written of local files with `write`."""
    by_folder: dict[Path, set[str]] = {}
    for file in files:
        if is_local(file):
            by_folder.setdefault(file.parent, set()).add(file.name)
    for folder, names in by_folder.items():
        if folder.is_dir():
            for entry in os.scandir(folder):
                if (partial := _PARTIAL.fullmatch(entry.name)) and partial[1] in names:
                    Path(entry.path).unlink(missing_ok=True)


def write_text(file: Path, text: str, *, patience_s: float | None = None) -> None:
    """Write a text file, as `write` does."""
    write(file, lambda partial: partial.write_text(text, encoding="utf-8"), patience_s=patience_s)


def upload(made: Path, file: Path, patience_s: float | None = None) -> None:
    """Put a local file to a remote place, whole or not at all; tried again as `write` does."""
    patiently(lambda: remote(file).fs.put_file(str(made), remote(file).path), file, patience_s)


def copy_within(source: Path, file: Path) -> None:
    """Have the remote storage copy a file of its own; tried again as `write` does."""
    patiently(lambda: remote(file).fs.cp_file(remote(source).path, remote(file).path), file)


@contextlib.contextmanager
def outgoing() -> Iterator[Path]:
    """A local folder for files on their way to a remote place, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="outgoing-", dir=cache_folder()) as name:
        yield Path(name)
