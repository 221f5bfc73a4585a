"""Retries of failing storage, and its errors, whatever library they come from, with the path named."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from crossview.errors import UserError
from crossview.storage.paths import is_local

T = TypeVar("T")

PATIENCE_S = 300.0
"""How long a write, or the reading of a remote file, is tried again; CROSSVIEW_PATIENCE_S sets another time."""
PAUSES_S = (1.0, 30.0)
"""The first pause between two tries, and the longest; each is twice the one before."""
_LIBRARIES = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs")
_log = logging.getLogger("crossview.storage")


def patiently(work: Callable[[], T], path: Path, patience_s: float | None = None) -> T:
    """What `work` returns; while the storage of `path` fails it is called again, with growing pauses.

    A line says so. After `patience_s`, by default PATIENCE_S, raises OSError; at once where waiting cannot help, as
    nothing is there, or there are no credentials.
    """
    end_s = time.monotonic() + (setting("CROSSVIEW_PATIENCE_S", PATIENCE_S) if patience_s is None else patience_s)
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


def setting(name: str, default: float) -> float:
    """A number from the environment; raises ValueError that names the variable where it is none."""
    text = os.environ.get(name)
    try:
        return default if text is None else float(text)
    except ValueError as error:
        raise UserError(f"{name} is {text!r} in the environment; it must be a number") from error
