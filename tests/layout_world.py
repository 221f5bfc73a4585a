"""A small synchronized world, and the datasets that it is written as."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.synthetic import layouts
from crossview.datasets.synthetic.ae2_layout import export_ae2
from crossview.datasets.synthetic.stand_ins import WORLD
from crossview.datasets.synthetic.world import write


@cache
def world(folder: Path) -> Catalog:
    """The world, filmed once per process."""
    return write(WORLD, folder)


@cache
def exported(name: str, films: Path) -> tuple[Any, Any]:
    """The dataset's module, and its options for the world in its layout, in `films`/NAME/root once per process."""
    module, root = importlib.import_module(f"crossview.datasets.{name}"), films / name / "root"
    if name == "ae2":
        return module, module.Options(root=export_ae2(WORLD, root, WORLD.actions[0]), set=WORLD.actions[0])
    if name == "folder":
        made = world(films / "world")
        return module, module.Options(root=made.root, csv=_listed(made, root))
    return module, layouts.export(name, world(films / "world"), root)


def _listed(made: Catalog, folder: Path) -> Path:
    """The world's files in a CSV, as a user of the dataset `folder` lists them."""
    lines = ["path,split,scene,view,perspective,subject,action,start_offset_s"]
    lines += [
        f"{r.path},{made.split_of(r)},{r.scene},{r.view},{r.perspective},{r.subject},{r.action},{r.start_offset_s}"
        for r in made.recordings
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    return folder / "films.csv"


@cache
def saved(module: Any, options: Any, folder: Path) -> Catalog:
    """The adapter's catalog as a command saves it in `folder`, and reads it again, once per process."""
    made: Catalog = module.catalog(options, prober=Prober(folder / "frame_index"))
    made.save(folder)
    return Catalog.load(folder)
