"""`export_ae2`: unpaired ego and exo videos in AE2's own on-disk layout, so that its adapter reads them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Literal

from crossview.datasets import ae2
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober, check_share
from crossview.errors import UserError

from .cameras import EGO_VIEWS
from .config import PHASES, SPLITS, WorldConfig
from .take import TakeName
from .world import Job, Progress, claim, gather, recording_id, recording_of, run

Layout = Literal["csv", "folders"]


def _job(config: WorldConfig, out: Path, action: str, split: str, view: str, number: int, layout: Layout) -> Job:
    """One video: ego from an even take, exo from an odd one, by a camera drawn at random, so nothing is synchronous."""
    name = TakeName(split, action, 2 * number + (view == "exo"))
    draw = int(name.rng(config, 17).integers(10**6))
    camera = EGO_VIEWS[draw % config.ego_cameras] if view == "ego" else f"exo{1 + draw % config.exo_cameras}"
    stem = f"S{name.subject_number(config):03d}_{name.scene}_{camera}"  # as in AE2, the subject comes first
    folder = out / action
    folder = folder / view if layout == "csv" else folder / split / view
    recordings = {camera: recording_id(name, camera)}
    return Job(config, name, {camera: folder / f"{stem}.mp4"}, recordings, out / ".truth" / name.scene)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def export_ae2(
    config: WorldConfig,
    out: Path,
    actions: str | tuple[str, ...] | None = None,
    layout: Layout = "csv",
    progress: Progress | None = None,
) -> Path:
    """Write `out`/{action} for each action (all of the config's by default) and return `out`.

    Layouts: "csv" as break_eggs ({view}/*.mp4 and {view}/{split}.csv), "folders" as pour_milk ({split}/{view}/*.mp4);
    both with label.pickle, and phases.txt with the names of the phases. A split holds config.takes(split) ego and as
    many exo videos of other takes. The truth tables of `write` are in `out`/.truth/tables.
    """
    chosen = (actions,) if isinstance(actions, str) else (actions or config.actions)
    if unknown := [a for a in chosen if a not in PHASES]:
        raise UserError(f"export_ae2: action {unknown[0]!r} is unknown; choose from {', '.join(PHASES)}")
    if layout not in ("csv", "folders"):
        raise UserError(f"export_ae2: layout is {layout!r}; choose csv or folders")
    claim(config, out)
    cells = [(a, s, v) for a in chosen for s in SPLITS for v in ("ego", "exo")]
    by_cell = {(a, s, v): [_job(config, out, a, s, v, k, layout) for k in range(config.takes(s))] for a, s, v in cells}
    jobs = [job for cell in cells for job in by_cell[cell]]
    run(jobs, config.workers, progress)
    for action in chosen:
        labels: dict[str, list[int]] = {}
        for (a, split, view), here in by_cell.items():
            if a != action:
                continue
            files = [file for job in here for file in job.files.values()]
            labels |= {f.stem: job.summary()["labels"] for job, f in zip(here, files, strict=True)}  # type: ignore[misc]
            folder = out / action / view if layout == "csv" else out / action / split / view
            folder.mkdir(parents=True, exist_ok=True)
            if layout == "csv":
                _replace(folder / f"{split}.csv", "".join(f"{f.name}\n" for f in files).encode())
        _replace(out / action / "label.pickle", pickle.dumps(labels, protocol=4))
        _replace(out / action / "phases.txt", "".join(f"{phase}\n" for phase in PHASES[action]).encode())
    tables = out / ".truth" / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    gather(jobs, tables, lambda job, view: recording_of(job, view, out))
    return out


def exported_catalog(out: Path, action: str, prober: Prober | None = None) -> Catalog:
    """The catalog of one action of an export, as AE2's own adapter reads it."""
    made = ae2.catalog(ae2.Options(root=out, set=action), prober=prober)
    check_share(made, 0.05)
    return made
