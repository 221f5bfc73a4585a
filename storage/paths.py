"""Paths: local ones, and URIs of any store that fsspec reaches, such as s3://bucket/folder."""

from __future__ import annotations

from abc import ABC
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from crossview.errors import UserError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
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
        raise UserError(f"{text}: the package that reaches {scheme}:// is not installed; {wanted}") from error
    except ValueError as error:
        raise UserError(
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


def remote(path: Path) -> Any:
    """The path as the UPath that it is, with `fs` and `path`."""
    assert not is_local(path)
    return path


def filesystem(path: Path) -> tuple[str, Any]:
    """A remote path without its scheme, and fsspec's file system for it."""
    return remote(path).path, remote(path).fs
