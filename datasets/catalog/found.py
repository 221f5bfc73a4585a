"""What of a dataset is on a user's disk: files found by their names, and sentences on what is missing or left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from crossview.datasets.catalog.listing import Problems
from crossview.errors import UserError

Key = TypeVar("Key", bound=Hashable)
NAMED = 3


def files_under(root: Path) -> Iterator[str]:
    """Paths of all files under `root`, relative to it, in the order of their names; hidden ones are left out.

    Links are followed, but not into a folder that is being read already, nor where they lead nowhere. Raises UserError
    if the root is no folder.
    """
    if not root.is_dir():
        raise UserError(f"{root}: the folder is missing; pass the folder that holds the dataset's files as --root")
    yield from _under(str(root), "", (os.path.realpath(root),))


def _under(folder: str, prefix: str, within: tuple[str, ...]) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link that leads to itself
            continue
        if is_folder:
            real = os.path.realpath(entry.path) if entry.is_symlink() else f"{within[-1]}/{entry.name}"
            if real not in within:
                yield from _under(entry.path, f"{prefix}{entry.name}/", (*within, real))
        elif is_file:
            yield prefix + entry.name


def named_files(root: Path, grammar: re.Pattern[str], what: str) -> dict[str, re.Match[str]]:
    """Files under `root` whose own name matches `grammar`, by their path relative to it.

    Raises UserError, with `what` was looked for and the names that came closest, if there are none.
    """
    found: dict[str, re.Match[str]] = {}
    others: list[str] = []
    for path in files_under(root):
        if match := grammar.fullmatch(path.rpartition("/")[2]):
            found[path] = match
        elif len(others) < NAMED:
            others.append(path)
    if not found:
        here = f"it holds {', '.join(others)}, ..." if others else "it holds no file"
        raise UserError(f"{root}: no file is named as {what}; {here}: pass the folder that holds them as --root")
    return found


def one_each(root: Path, files: Iterable[tuple[str, Key]], what: str) -> dict[Key, str]:
    """Files by what their names stand for; raises UserError, with all of them, where two stand for the same."""
    found: dict[Key, str] = {}
    problems = Problems()
    for path, key in files:
        if found.setdefault(key, path) != path:
            problems.add(f"{root / path}: {found[key]} is the same {what}; remove one of them")
    problems.refuse()
    return found


def content(folder: Path) -> str:
    """E.g. "it holds recordings, README.md", or that it is missing."""
    if not folder.is_dir():
        return "the folder is missing"
    return f"it holds {named(sorted(entry.name for entry in folder.iterdir())) or 'nothing'}"


def coverage(what: str, listed: Collection[str], found: Collection[str]) -> str:
    """E.g. "videos: 2 of 56,880 listed are here; missing: 56,878 (S001C001P001R001A001, ...)"."""
    have = set(found)
    missing = [name for name in listed if name not in have]
    said = f"{what}: {len(listed) - len(missing):,} of {len(listed):,} listed are here"
    if missing:
        said += f"; missing: {len(missing):,} ({named(missing)})"
    if extra := len(have.difference(listed)):
        said += f"; not listed: {extra:,}"
    return said


def named(names: Collection[str]) -> str:
    """The first few names."""
    shown = list(names)
    return ", ".join(shown[:NAMED]) + (", ..." if len(shown) > NAMED else "")


def dropped(counts: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """A sentence per reason for what was left out of the annotations, with the first few cases; none for none."""
    return tuple(f"left out: {len(cases):,} {reason} ({named(cases)})" for reason, cases in counts.items() if cases)
