"""The rows of every result: the trained method and its baselines, embedded per recording and cached as tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.video.frames import file_state
from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Arrays, Where, Work, each
from crossview.platform.config import Data
from crossview.platform.data.feature_cache import cache
from crossview.platform.data.unreadable import Quarantine
from crossview.platform.evaluate.opened import OpenRun
from crossview.platform.progress import Progress
from crossview.platform.run_folder import write_json
from crossview.storage.tables import write_table

TRAINED, RANDOM_INIT = "trained", "random init"
LABELS = "phase"
"""Frame labels that are written to the column "label"."""


@dataclass(frozen=True)
class Job:
    """What every process needs in order to work on the same recordings."""

    catalog: Catalog
    data: Data
    batch: int
    """Frames per pass of a frozen part."""
    device: str


@dataclass(frozen=True)
class RunJob(Job):
    """The same for a run's models."""

    run: OpenRun
    baselines: bool


def embedded(job: Job, make: Callable[..., Work], folder: Path, where: Where, what: str) -> dict[int, Arrays]:
    """`make(job=job)` applied to each recording: arrays by row name for every index that can be read, ascending.

    Unreadable recordings are quarantined in `folder`. Raises ValueError if too many or all of them are unreadable.
    """
    recordings = job.catalog.recordings
    storage.make_folder(folder)
    (folder / "quarantine.parquet").unlink(missing_ok=True)
    quarantine = Quarantine(folder, len(recordings), job.data.max_quarantined)
    found: dict[int, Arrays] = {}
    with Progress(what, sum(r.num_frames for r in recordings), "frames") as line:
        for done in each(len(recordings), make, {"job": job}, where):
            recording = recordings[done.index]
            if done.unreadable is None:
                found[done.index] = done.arrays
            else:
                path = str(job.catalog.file(recording))
                quarantine.add([json.dumps([{"recording": recording.id, "path": path, "reason": done.unreadable}])])
            bad = len(quarantine.files)
            line.advance(recording.num_frames, f"{bad} files quarantined" if bad else "")
    if not found:
        raise UserError(f"catalog {job.catalog.root}: none of its {len(recordings)} recordings can be read")
    return {index: found[index] for index in sorted(found)}


def on_features(run: OpenRun, catalog: Catalog, batch: int) -> Catalog:
    """The catalog of frozen features if the run trains on them; else `catalog`."""
    data = run.experiment.data
    if not data.cache_features:
        return catalog
    return cache(
        run.method,
        run.experiment.method,
        catalog,
        data.catalog / "features",
        in_process=run.where.in_process,
        actors=run.where.actors,
        batch=batch,
        device=run.where.device,
        data=data,
        weights=run.checkpoint,
        model=run.trained,
    )


def key_of(source: Path, catalog: Catalog, *more: object) -> str:
    """Hash of all that determines the tables: checkpoint weights, recordings, their files, their labels, `more`."""
    size, version = storage.state(source / checkpoint.MODEL)
    digest = hashlib.blake2b(f"{source.name} {size} {version} {catalog.root}".encode(), digest_size=16)
    for value in more:
        digest.update(repr(value).encode())
    for recording in catalog.recordings:
        labels = catalog.frame_labels.get(LABELS, {}).get(recording.id)
        digest.update(f"{recording!r} {file_state(catalog.file(recording))}".encode())
        digest.update(b"" if labels is None else labels.tobytes())
    return digest.hexdigest()


def store(folder: Path, tables: dict[str, pa.Table], key: str | None, facts: dict[str, str]) -> dict[str, Path]:
    """Replace the folder's tables, one file per row; with key None they are never `kept`."""
    for old in folder.glob("*.parquet"):
        if old.name != "quarantine.parquet":
            old.unlink()
    files = {row: f"{row.replace(' ', '-')}.parquet" for row in tables}
    for row, table in tables.items():
        write(table, folder / files[row], {"row": row, **facts})
    write_json(folder / "rows.json", {"key": key, "rows": files})
    return {row: folder / file for row, file in files.items()}


def write(table: pa.Table, file: Path, facts: dict[str, str]) -> None:
    """One table with `facts` in its metadata."""
    write_table(table.replace_schema_metadata({"crossview": json.dumps(facts)}), file)


def kept(folder: Path, key: str, baselines: bool) -> dict[str, Path]:
    """The existing tables, if they are all that is requested."""
    index = folder / "rows.json"
    if not index.exists():
        return {}
    values = json.loads(index.read_text())
    files = {row: folder / file for row, file in values["rows"].items()}
    if values["key"] != key or not all(f.exists() for f in files.values()) or (baselines and RANDOM_INIT not in files):
        return {}
    return files if baselines else {TRAINED: files[TRAINED]}
