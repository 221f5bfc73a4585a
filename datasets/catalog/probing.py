"""Probing all files of a dataset, and setting aside those that cannot be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from crossview import storage
from crossview.datasets.catalog.catalog import INDICES, Catalog
from crossview.datasets.catalog.listing import Problems, first_of
from crossview.datasets.catalog.recording import Quarantined
from crossview.datasets.video import child
from crossview.datasets.video.frames import TIME_LIMIT_S, UnreadableVideo, printable
from crossview.datasets.video.image_folder import Images, index_of_folder
from crossview.datasets.video.image_listing import listing
from crossview.datasets.video.indexing import VideoInfo, index_of
from crossview.errors import DataWarning, UserError

Tick = Callable[[int, int], None]
"""Called as (files done, files in all)."""


@dataclass(frozen=True)
class Prober:
    """Decodes files once, to count their frames and to index them; what is indexed already is not decoded again."""

    indices: Path | None = None
    """Folder for frame indices; None is one in this machine's cache, from which `Catalog.save` copies them."""
    tick: Tick | None = None
    time_limit_s: float = TIME_LIMIT_S
    """Per 1800 frames; a file that takes longer is unreadable."""

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
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # each waits for a child process
            outcomes = pool.map(lambda path: self._attempt(root, path, folders.get(path), indices), files)
            for done, (path, result) in enumerate(zip(files, outcomes, strict=True), 1):
                if isinstance(result, Quarantined):
                    broken.append(result)
                else:
                    found[path] = result
                if self.tick:
                    self.tick(done, len(files))
        child.close_idle()
        gaps = [listing(root / path).gaps() for path in files if path in folders and path in found]
        if said := [gap for gap in gaps if gap]:
            shown = "\n  ".join(first_of(said, Problems.SHOWN))
            text = f"images are shown at the times that their numbers give, with gaps:\n  {shown}"
            warnings.warn(text, DataWarning, stacklevel=2)
        return found, tuple(broken)

    def _attempt(self, root: Path, path: str, images: Images | None, indices: Path) -> VideoInfo | Quarantined:
        try:
            if printable(path) != path:
                raise UnreadableVideo(f"{root / path}: its name is not UTF-8, which a catalog needs; rename the file")
            if images is not None:
                return index_of_folder(root / path, images, indices)
            return index_of(root / path, indices, self.time_limit_s)
        except UnreadableVideo as error:
            return Quarantined(printable(path), str(error))


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
