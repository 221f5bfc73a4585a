"""The smallest synthetic export of each dataset, in its own layout: what stands in for data that is not there."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossview.datasets import ae2
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.teachers.store import (
    DETECTIONS_FILE,
    FOLDER,
    Detections,
    Teachers,
    write_detections,
    write_scores,
)
from crossview.errors import UserError

from . import layouts
from .ae2_layout import Layout, export_ae2
from .config import WorldConfig
from .world import Progress, write

WORLD = WorldConfig(
    actions=("pour_milk", "strike_peg"),
    train_takes=3,
    val_takes=2,
    test_takes=2,
    ego_cameras=4,
    exo_cameras=8,
    size_px=32,
    min_frames=24,
    max_frames=40,
    cut="whole",
    workers=2,
)
"""Filmed once for all datasets."""
SETS: dict[str, tuple[str, Layout]] = {
    "break_eggs": ("crack_egg", "csv"),
    "pour_milk": ("pour_milk", "folders"),
    "pour_liquid": ("stir_and_serve", "folders"),
    "tennis_forehand": ("strike_peg", "csv"),
}
"""AE2's sets: the action of the world that is in the place of theirs, and how its files lie."""


def stand_in(
    adapter: str, options: Mapping[str, Any], folder: Path, *, features: bool = False, tick: Progress | None = None
) -> Path:
    """The folder of the catalog of a dataset's export below `folder`; what is there already is not made again.

    `options` are the adapter's own beside where files are. Raises ValueError for a dataset without a layout.
    """
    name = "-".join([adapter, *(str(value) for value in options.values()), *(["features"] if features else [])])
    catalog = folder / name / "catalog"
    if not (catalog / "catalog.json").exists():
        module = importlib.import_module(f"crossview.datasets.{adapter}")
        made = _ae2(options, folder / name, tick) if adapter == "ae2" else _laid_out(adapter, options, folder, tick)
        if features:
            made = replace(made, root=None, features=made.root / "TSM_features", packed=folder / name / "packed")
        module.catalog(made, prober=Prober(catalog / INDICES)).save(catalog)
    return catalog


def _laid_out(adapter: str, options: Mapping[str, Any], folder: Path, tick: Progress | None) -> Any:
    if adapter not in layouts.names():
        raise UserError(f"the synthetic world cannot be written as {adapter!r}; it can as {', '.join(layouts.names())}")
    made = layouts.export(adapter, write(WORLD, folder / "world", tick), folder / adapter)
    if options.get("release") == "55":  # EPIC-55 has no official validation split, and no protocols of EPIC-100
        made = replace(made, splits=None, val=_validation(folder / adapter))
    return replace(made, **options)


def _validation(root: Path) -> Path:
    """A list with one participant of the export."""
    file = root / "epic55_validation.txt"
    file.write_text("P01\n")
    return file


def _ae2(options: Mapping[str, Any], folder: Path, tick: Progress | None) -> ae2.Options:
    """One action of the world as a set of AE2: unpaired videos, each of a take of its own."""
    name = options["set"]
    action, layout = SETS[name]
    world = WorldConfig(
        actions=(action,), train_takes=3, val_takes=1, test_takes=2, size_px=32, min_frames=24, max_frames=40
    )
    if not (folder / "files" / name).exists():
        export_ae2(world, folder / "files", layout=layout, progress=tick)
        (folder / "files" / action).rename(folder / "files" / name)
    return ae2.Options(root=folder / "files", set=name)


def random_teachers(folder: Path, scores: Mapping[str, int], *, boxes: bool) -> None:
    """Put what a method asks of teachers beside a catalog, for every recording: random logits, two boxes a frame.

    `scores` are class counts by task. What is there already is left.
    """
    recordings, rng, known = Catalog.load(folder).recordings, np.random.default_rng(0), Teachers.load(folder / FOLDER)
    for task, count in scores.items():
        if known.classes(task) is None:
            logits = {r.id: rng.normal(size=count).astype(np.float32) for r in recordings}
            write_scores(folder / FOLDER, task, logits, classes=count)
    if boxes and not (folder / FOLDER / DETECTIONS_FILE).exists():
        found = {}
        for r in recordings:
            frame, kind = np.divmod(np.arange(2 * r.num_frames), 2)
            corner = 0.2 + 0.3 * rng.random((len(frame), 2))
            found[r.id] = Detections(frame, 1 + kind, np.hstack([corner, corner + 0.3]), np.full(len(frame), 0.9))
        write_detections(folder / FOLDER, found)
