"""Probing all files of a dataset, and setting aside those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crossview.datasets.catalog.tables import Quarantined
from crossview.datasets.video.decode import UnreadableVideo, VideoInfo, probe

Tick = Callable[[int, int], None]
"""Called as (files done, files in all)."""


def check_splits(root: Path, listed: Iterable[tuple[str, str]], source: Path) -> None:
    """Raise ValueError where one file, under any of its names, stands in two splits: it would be tested on its twin.

    listed: (split, path relative to `root`) of every recording; `source` is the file that the user can correct.
    """
    first: dict[Path, tuple[str, str]] = {}
    for split, path in listed:
        known_split, known_path = first.setdefault((root / path).resolve(), (split, path))
        if known_split != split:
            also = "" if known_path == path else f", there as {known_path}"
            raise ValueError(
                f"{source}: {path} stands in split {split!r} and in split {known_split!r}{also}; a file belongs to one "
                "split, or training sees what is evaluated: remove it from one of them"
            )


def probe_all(
    root: Path, paths: Sequence[str], *, max_quarantined: float, tick: Tick | None = None
) -> tuple[dict[str, VideoInfo], tuple[Quarantined, ...]]:
    """What is in each file, by path relative to `root`, and which files are unreadable.

    Raises ValueError where a larger share than `max_quarantined` is unreadable: then the set, not a file, is broken.
    """
    found: dict[str, VideoInfo] = {}
    broken: list[Quarantined] = []

    def attempt(path: str) -> VideoInfo | Quarantined:
        try:
            return probe(root / path)
        except UnreadableVideo as error:
            return Quarantined(path, str(error))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # decoding runs outside the interpreter's lock
        for done, (path, result) in enumerate(zip(paths, pool.map(attempt, paths), strict=True), 1):
            if isinstance(result, Quarantined):
                broken.append(result)
            else:
                found[path] = result
            if tick:
                tick(done, len(paths))
    check_share(root, broken, len(paths), max_quarantined)
    return found, tuple(broken)


def check_share(root: Path, broken: Sequence[Quarantined], total: int, max_quarantined: float) -> None:
    """Raise ValueError where too large a share of the files is unreadable."""
    if len(broken) > max_quarantined * total:
        reasons = "\n  ".join(file.reason for file in broken[:5])
        raise ValueError(
            f"{root}: {len(broken)} of {total} videos cannot be read, more than the share max_quarantined = "
            f"{max_quarantined:g}; get them again, or raise max_quarantined to go on without them:\n  {reasons}"
        )
