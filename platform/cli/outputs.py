"""Whether a command can write where `--out` says, found out before its work and not at its end."""

from __future__ import annotations

import os
from pathlib import Path

from crossview import storage
from crossview.errors import UserError


def check_folder(out: Path) -> None:
    """Raise UserError if a file is in the folder's place, or it cannot be written; OSError for a remote place."""
    if not storage.is_local(out):
        storage.make_folder(out)
        return
    there = next(place for place in (out, *out.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        what = "a file" if there.exists() else "a link to nothing"
        raise UserError(f"--out {out}: {there} is {what}, and a folder is to be written there; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: you may not write in {there}; change its permissions, or name another place")


def check_file(out: Path) -> None:
    """Raise UserError if a folder is in the file's place, or its folder cannot be written."""
    if storage.is_local(out):
        if out.is_dir():
            raise UserError(f"--out {out}: it is a folder; name a file in it, such as {out / 'dataset.html'}")
        check_folder(out.parent)
