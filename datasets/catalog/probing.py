"""Probing all files of a dataset, and setting aside those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from crossview import storage
from crossview.datasets.catalog.catalog import INDICES, Catalog
from crossview.datasets.catalog.listing import Problems, first_of
from crossview.datasets.catalog.recording import Quarantined
from crossview.datasets.video.frames import TIME_LIMIT_S, UnreadableVideo, printable
from crossview.datasets.video.indexing import VideoInfo, index_of
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


@dataclass(frozen=True)
class Prober:
    """Decodes files once, to count their frames and to index them; what is indexed already is not decoded again."""

    indices: Path | None = None
    """Folder for frame indices; None is one in this machine's cache, from which `Catalog.save` copies them."""
    tick: Tick | None = None
    time_limit_s: float = TIME_LIMIT_S
    """Per 1800 frames; a file that takes longer is unreadable."""

    def probe(self, root: Path, paths: Iterable[str]) -> tuple[dict[str, VideoInfo], tuple[Quarantined, ...]]:
        """What is in each file, by path relative to `root`, and which files are unreadable.

        A path that is named several times is read once. Raises ValueError if the root's own name is not UTF-8.
        """
        if printable(str(root)) != str(root):
            raise UserError(f"{printable(str(root))}: the folder's name is not UTF-8, which a catalog needs; rename it")
        files = list(dict.fromkeys(paths))
        found: dict[str, VideoInfo] = {}
        broken: list[Quarantined] = []
        indices = self.indices or storage.cache_folder() / INDICES
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # decoding runs outside the interpreter's lock
            outcomes = pool.map(lambda path: self._attempt(root, path, indices), files)
            for done, (path, result) in enumerate(zip(files, outcomes, strict=True), 1):
                if isinstance(result, Quarantined):
                    broken.append(result)
                else:
                    found[path] = result
                if self.tick:
                    self.tick(done, len(files))
        return found, tuple(broken)

    def _attempt(self, root: Path, path: str, indices: Path) -> VideoInfo | Quarantined:
        try:
            if printable(path) != path:
                raise UnreadableVideo(f"{root / path}: its name is not UTF-8, which a catalog needs; rename the file")
            return index_of(root / path, indices, self.time_limit_s)
        except UnreadableVideo as error:
            return Quarantined(printable(path), str(error))


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
