"""Local files and object stores behind one interface; `as_path` makes the paths."""

from __future__ import annotations

from crossview.storage.atomic import copy_within, outgoing, remove_partial, staged, upload, write, write_text
from crossview.storage.cache import cache_folder, local, use_copies
from crossview.storage.files import head, is_file, make_folder, read_json, read_text, remove, state
from crossview.storage.paths import Location, as_path, filesystem, is_local
from crossview.storage.retry import named, patiently

__all__ = [
    "Location",
    "as_path",
    "cache_folder",
    "copy_within",
    "filesystem",
    "head",
    "is_file",
    "is_local",
    "local",
    "make_folder",
    "named",
    "outgoing",
    "patiently",
    "read_json",
    "read_text",
    "remove",
    "remove_partial",
    "staged",
    "state",
    "upload",
    "use_copies",
    "write",
    "write_text",
]
