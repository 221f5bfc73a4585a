"""Probing all files of a dataset, and setting aside those that cannot be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from crossview import storage
from crossview.datasets.catalog.catalog import INDICES, Catalog
from crossview.datasets.catalog.listing import Problems, first_of
from crossview.datasets.catalog.recording import Quarantined
from crossview.datasets.video import child
from crossview.datasets.video.frames import TIME_LIMIT_S, UnreadableVideo, printable
from crossview.datasets.video.image_folder import Images, index_of_folder
from crossview.datasets.video.image_listing import listing
from crossview.datasets.video.indexing import VideoInfo, index_of, indexed_in, stated
from crossview.datasets.video.source import Source
from crossview.errors import DataWarning, UserError

Tick = Callable[[int, int], None]
"""Called as (files done, files in all)."""
Outcome = VideoInfo | Quarantined
Attempt = Callable[[str], Outcome]
Spread = Callable[[Attempt, Sequence[str]], Iterator[tuple[int, Outcome]]]
"""Calls the work with each path, and gives the places of the paths with the outcomes, in any order."""


@dataclass(frozen=True)
class Prober:
    """Decodes files once, to count their frames and to index them; what is indexed already is not decoded again."""

    indices: Path | None = None
    """Folder for frame indices; None is one in this machine's cache, from which `Catalog.save` copies them."""
    tick: Tick | None = None
    time_limit_s: float = TIME_LIMIT_S
    """Per 1800 frames; a file that takes longer is unreadable."""
    quick: bool = False
    """Trust what containers state, where they state enough: `stated`. Such files are indexed at their first use, and
    those that are indexed already are not asked."""
    spread: Spread | None = None
    """What calls the work on each file; None is threads of this process."""

    def probe(
        self, root: Path, paths: Iterable[str], images: Mapping[str, Images] | None = None
    ) -> tuple[dict[str, VideoInfo], tuple[Quarantined, ...]]:
        """What is in each file, by path relative to `root`, and which files are unreadable.

        `images` has the paths that are folders of images. A path that is named several times is read once. Raises
        ValueError if the root's own name is not UTF-8.
        """
        folders = images or {}
        if printable(str(root)) != str(root):
            raise UserError(f"{printable(str(root))}: the folder's name is not UTF-8, which a catalog needs; rename it")
        files = list(dict.fromkeys(paths))
        found: dict[str, VideoInfo] = {}
        broken: list[Quarantined] = []
        indices = self.indices or storage.cache_folder() / INDICES
        attempt = partial(_attempt, root, folders, indices, self.time_limit_s, self.quick)
        outcomes: dict[str, Outcome] = {}
        for number, outcome in (self.spread or in_threads)(attempt, files):
            outcomes[files[number]] = outcome
            if self.tick:
                self.tick(len(outcomes), len(files))
        for path in files:
            outcome = outcomes[path]
            if isinstance(outcome, Quarantined):
                broken.append(outcome)
            else:
                found[path] = outcome
        child.close_idle()
        gaps = [listing(root / path).gaps() for path in files if path in folders and path in found]
        if said := [gap for gap in gaps if gap]:
            shown = "\n  ".join(first_of(said, Problems.SHOWN))
            text = f"images are shown at the times that their numbers give, with gaps:\n  {shown}"
            warnings.warn(text, DataWarning, stacklevel=2)
        return found, tuple(broken)


def _attempt(
    root: Path, folders: Mapping[str, Images], indices: Path, time_limit_s: float, quick: bool, path: str
) -> Outcome:
    images = folders.get(path)
    try:
        if printable(path) != path:
            raise UnreadableVideo(f"{root / path}: its name is not UTF-8, which a catalog needs; rename the file")
        if images is not None:
            return index_of_folder(root / path, images, indices)
        if quick:
            known = indexed_in(root / path, indices) or stated(root / path, time_limit_s=time_limit_s)
            if known:
                return known
        return index_of(root / path, indices, time_limit_s)
    except UnreadableVideo as error:
        return Quarantined(printable(path), str(error))


def in_threads(attempt: Attempt, files: Sequence[str]) -> Iterator[tuple[int, Outcome]]:
    """Numbers and outcomes of files, read by as many children as there are cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # each waits for a child process
        yield from enumerate(pool.map(attempt, files))


def indexed(source: Source, time_limit_s: float) -> Source:
    """A video's source with a frame index: its own, or one in this machine's cache, made there at the first use.

    Without one where the file cannot be read to its end, as it can still be read up to there.
    """
    if source.kind != "video" or source.index is not None:
        return source
    try:
        made = index_of(source.path, storage.cache_folder() / INDICES, time_limit_s)
    except UnreadableVideo:
        return source
    return replace(source, index=Path(made.index))


def check_share(catalog: Catalog, max_quarantined: float) -> None:
    """Raise ValueError if too many of a dataset's files are set aside: then the set is broken, not a file."""
    parts = {(recording.path, recording.first_frame) for recording in catalog.recordings}
    files = len(parts) + len(catalog.quarantined)
    check_broken(catalog.root, catalog.quarantined, files, max_quarantined)


def check_broken(root: Path, broken: Sequence[Quarantined], total: int, max_quarantined: float) -> None:
    """Raise ValueError if more than the share `max_quarantined` of `total` files is set aside."""
    if len(broken) > max_quarantined * total:
        reasons = "\n  ".join(first_of([file.reason for file in broken], Problems.SHOWN))
        raise UserError(
            f"{root}: {len(broken)} of {total} videos cannot be used, more than the share max_quarantined = "
            f"{max_quarantined:g}; correct them, or raise max_quarantined to go on without them:\n  {reasons}"
        )
