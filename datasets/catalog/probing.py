"""Probing all files of a dataset, and setting aside those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crossview.datasets.catalog.catalog import Catalog
from crossview.datasets.catalog.listing import Problems, first_of
from crossview.datasets.catalog.recording import Quarantined
from crossview.datasets.video.decode import VideoInfo, probe
from crossview.datasets.video.frames import UnreadableVideo, printable
from crossview.errors import UserError

Tick = Callable[[int, int], None]
"""Called as (files done, files in all)."""


def check_splits(root: Path, listed: Iterable[tuple[str, str]], source: Path | str) -> None:
    """Raise ValueError if one file, under any of its names, is in two splits: it would be tested on its twin.

    listed: (split, path relative to `root`) of every recording in one protocol; `source` names what the user
    can correct, such as a list of files.
    """
    problems = Problems()
    for _, problem in split_conflicts(root, listed):
        problems.add(f"{source}: {problem}")
    problems.refuse()


def split_conflicts(root: Path, listed: Iterable[tuple[str, str]]) -> Iterator[tuple[int, str]]:
    """Places in `listed` (as in `check_splits`) of files that an earlier place has in another split, and the error."""
    first: dict[Path, tuple[str, str]] = {}
    for place, (split, path) in enumerate(listed):
        known_split, known_path = first.setdefault((root / path).resolve(), (split, path))
        if known_split != split:
            also = "" if known_path == path else f", there as {known_path}"
            yield (
                place,
                f"{path} is in split {split!r} and in split {known_split!r}{also}; a file belongs to one "
                "split, or training sees what is evaluated: remove it from one of them",
            )


def probe_all(
    root: Path, paths: Sequence[str], *, tick: Tick | None = None
) -> tuple[dict[str, VideoInfo], tuple[Quarantined, ...]]:
    """What is in each file, by path relative to `root`, and which files are unreadable.

    Raises ValueError if the root's own name is not UTF-8.
    """
    if printable(str(root)) != str(root):
        raise UserError(f"{printable(str(root))}: the folder's name is not UTF-8, which a catalog needs; rename it")
    found: dict[str, VideoInfo] = {}
    broken: list[Quarantined] = []

    def attempt(path: str) -> VideoInfo | Quarantined:
        try:
            if printable(path) != path:
                raise UnreadableVideo(f"{root / path}: its name is not UTF-8, which a catalog needs; rename the file")
            return probe(root / path)
        except UnreadableVideo as error:
            return Quarantined(printable(path), str(error))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # decoding runs outside the interpreter's lock
        for done, (path, result) in enumerate(zip(paths, pool.map(attempt, paths), strict=True), 1):
            if isinstance(result, Quarantined):
                broken.append(result)
            else:
                found[path] = result
            if tick:
                tick(done, len(paths))
    return found, tuple(broken)


def check_share(catalog: Catalog, max_quarantined: float) -> None:
    """Raise ValueError if too many of a dataset's files are set aside: then the set is broken, not a file."""
    files = len({recording.path for recording in catalog.recordings}) + len(catalog.quarantined)
    check_broken(catalog.root, catalog.quarantined, files, max_quarantined)


def check_broken(root: Path, broken: Sequence[Quarantined], total: int, max_quarantined: float) -> None:
    """Raise ValueError if more than the share `max_quarantined` of `total` files is set aside."""
    if len(broken) > max_quarantined * total:
        reasons = "\n  ".join(first_of([file.reason for file in broken], Problems.SHOWN))
        raise UserError(
            f"{root}: {len(broken)} of {total} videos cannot be used, more than the share max_quarantined = "
            f"{max_quarantined:g}; correct them, or raise max_quarantined to go on without them:\n  {reasons}"
        )
