"""The synthetic world in the layouts of real datasets, one module per dataset, named as its adapter is.

A module has `export(world, out)`: it writes a synchronized world (`world.write`) to `out` as the dataset lies on disk,
with the quirks of its real files, and returns the adapter's `Options` that read it.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.errors import UserError


def names() -> list[str]:
    """Datasets that the world can be written as."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "files")


def export(name: str, world: Catalog, out: Path) -> Any:
    """Write the world to `out` as the dataset `name`, from nothing or over an earlier call; returns its `Options`."""
    if name not in names():
        raise UserError(f"--layout is {name!r}; the world can be written as {', '.join(names())}")
    out.mkdir(parents=True, exist_ok=True)
    return importlib.import_module(f"{__name__}.{name}").export(world, out)
