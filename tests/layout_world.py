"""A small synchronized world, and the datasets that it is written as."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.datasets.synthetic import layouts
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write

CONFIG = WorldConfig(
    actions=("pour_milk", "strike_peg"), train_takes=3, val_takes=2, test_takes=2, ego_cameras=4, exo_cameras=8,
    size_px=32, min_frames=24, max_frames=40, cut="whole",
)  # fmt: skip


@cache
def world(folder: Path) -> Catalog:
    """The world, filmed once per process."""
    return write(CONFIG, folder)


def exported(name: str, world_folder: Path, out: Path) -> tuple[Any, Any]:
    """The dataset's module, and its options for the world in its layout."""
    return importlib.import_module(f"crossview.datasets.{name}"), layouts.export(name, world(world_folder), out)
