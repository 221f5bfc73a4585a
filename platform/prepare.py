"""`crossview prepare`: from files on disk to a catalog that everything else reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from crossview.datasets.catalog import Catalog
from crossview.platform.progress import Progress, console


def ae2(root: Path, out: Path, set: str, max_quarantined: float = 0.05) -> None:  # noqa: A002 - the option's name
    """Catalogue one of AE2's sets, in either of its layouts.

    Args:
        root: Folder that holds the sets.
        out: Folder for the catalog.
        set: Name of the set, e.g. break_eggs.
        max_quarantined: Largest share of videos that may be unreadable.

    """
    from crossview.datasets.ae2 import catalog

    with ticking("reading") as tick:
        _save(catalog(root, set, max_quarantined=max_quarantined, tick=tick), out)


def folder(root: Path, csv: Path, out: Path, max_quarantined: float = 0.05) -> None:
    """Catalogue any folder of videos by one CSV.

    Args:
        root: Folder that the paths in the CSV start from.
        csv: Columns path, split, scene, view, perspective; optional subject, action, start_offset_s, labels.
        out: Folder for the catalog.
        max_quarantined: Largest share of videos that may be unreadable.

    """
    from crossview.datasets.folder import catalog

    with ticking("reading") as tick:
        _save(catalog(root, csv, max_quarantined=max_quarantined, tick=tick), out)


def synthetic(
    out: Path,
    layout: Literal["synchronized", "ae2-csv", "ae2-folders"] = "synchronized",
    actions: tuple[str, ...] = (),
    takes: tuple[int, int, int] = (16, 4, 6),
    size_px: int = 256,
    ego_cameras: int = 1,
    exo_cameras: int = 4,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Render the synthetic world and catalogue it; goes on where it was stopped.

    Args:
        out: Folder for the videos, their truth and the catalog (out/catalog, or out/catalog-ACTION in an AE2 layout).
        layout: Synchronized views of each take, or AE2's own folders with unpaired ego and exo videos.
        actions: Which of the world's actions; all by default.
        takes: Takes per action in train, val and test.
        size_px: Frames are size_px x size_px.
        ego_cameras: Cameras on the subject (1 to 4).
        exo_cameras: Cameras around the table (1 to 8).
        seed: Equal seeds give equal pixels and truth.
        workers: Processes that render; one per core by default.

    """
    from crossview.datasets.ae2 import catalog
    from crossview.datasets.synthetic.ae2_layout import export_ae2
    from crossview.datasets.synthetic.config import PHASES, WorldConfig
    from crossview.datasets.synthetic.world import write

    train, val, test = takes
    config = WorldConfig(
        seed=seed,
        actions=actions or tuple(PHASES),
        train_takes=train,
        val_takes=val,
        test_takes=test,
        exo_cameras=exo_cameras,
        ego_cameras=ego_cameras,
        size_px=size_px,
        workers=workers or os.cpu_count() or 1,
    )
    with ticking("rendering") as tick:
        if layout == "synchronized":
            _save(write(config, out, tick), out / "catalog")
            return
        export_ae2(config, out, layout="csv" if layout == "ae2-csv" else "folders", progress=tick)
    for action in config.actions:
        _save(catalog(out, action), out / f"catalog-{action}")


def copies(catalog: Path, out: Path, size_px: int = 256, gop: int = 8, max_quarantined: float = 0.05) -> None:
    """Make the prepared copy that is quick to read: H.264, small, short closed groups of pictures, verified.

    Args:
        catalog: Folder of the catalog whose files are to be copied.
        out: Folder for the copies and their catalog.
        size_px: Short side of the copies.
        gop: Frames from one key frame to the next.
        max_quarantined: Largest share of videos that may be unreadable.

    """
    from crossview.datasets.prepare import prepare

    with ticking("copying") as tick:
        done = prepare(Catalog.load(catalog), out, size_px=size_px, gop=gop, max_quarantined=max_quarantined, tick=tick)
    _describe(done, out)


def _save(catalog: Catalog, out: Path) -> None:
    catalog.save(out)
    _describe(catalog, out)


def _describe(catalog: Catalog, out: Path) -> None:
    for split in sorted({r.split for r in catalog.recordings}):
        part = catalog.select(split).recordings
        ego = sum(r.perspective == "ego" for r in part)
        frames = sum(r.num_frames for r in part)
        console.print(f"{split}: {ego} ego and {len(part) - ego} exo recordings, {frames} frames", highlight=False)
    for broken in catalog.quarantined:
        console.print(f"quarantined: {broken.path}: {broken.reason}", highlight=False, markup=False)
    console.print(f"The catalog lies in {out}", highlight=False)


@contextmanager
def ticking(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress line for functions that report (done, total)."""
    with Progress(what, 0, "videos") as line:

        def tick(done: int, total: int) -> None:
            line.total = total
            line.update(done)

        yield tick
