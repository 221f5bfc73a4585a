"""Probing all files of a dataset, and setting aside those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crossview.datasets.catalog import Quarantined
from crossview.datasets.video import UnreadableVideo, VideoInfo, probe

Tick = Callable[[int, int], None]
"""Called as (files done, files in all)."""


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
