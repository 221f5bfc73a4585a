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
    rows: tuple[str, ...]
    """Names of those to compute."""


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
        raise UserError(f"catalog {job.catalog.place}: none of its {len(recordings)} recordings can be read")
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


def data_key(catalog: Catalog, *more: object) -> str:
    """Hash of recordings, their files, their labels, and `more`."""
    digest = hashlib.blake2b(str(catalog.root).encode(), digest_size=16)
    for value in more:
        digest.update(repr(value).encode())
    for recording in catalog.recordings:
        labels = catalog.frame_labels.get(LABELS, {}).get(recording.id)
        digest.update(f"{recording!r} {file_state(catalog.file(recording))}".encode())
        digest.update(b"" if labels is None else labels.tobytes())
    return digest.hexdigest()


class Tables:
    """A folder with a table per row, each kept as long as its checkpoint, recordings, files and labels are the same.

    Tables of `OpenRun.fixed_rows` serve every checkpoint of the run.
    """

    def __init__(self, run: OpenRun, catalog: Catalog, folder: Path, *more: object) -> None:
        """`catalog` and `more` are all that decides the tables besides the run and its checkpoint."""
        self.run, self.folder, self._data = run, folder, data_key(catalog, *more)
        size, version = storage.state(run.checkpoint / checkpoint.MODEL)
        self._weights = f"{run.checkpoint.name} {size} {version}"

    def _key(self, row: str) -> str:
        return self._data if row in self.run.fixed_rows else f"{self._weights} {self._data}"

    def kept(self) -> dict[str, Path]:
        """The tables that are still right, by row."""
        index = self.folder / "rows.json"
        if not index.exists():
            return {}
        values = storage.read_json(index, "delete it: the embeddings are then computed again")
        keys, files = values.get("keys", {}), {row: self.folder / file for row, file in values["rows"].items()}
        return {row: file for row, file in files.items() if keys.get(row) == self._key(row) and file.exists()}

    def add(self, tables: dict[str, pa.Table], facts: dict[str, str], *, reusable: bool) -> dict[str, Path]:
        """Write tables and remove those that are no longer right; without `reusable` the new ones are never `kept`."""
        before = self.kept()
        files = before | {row: self.folder / f"{row.replace(' ', '-')}.parquet" for row in tables}
        for row, table in tables.items():
            write(table, files[row], {"row": row, **facts})
        for old in self.folder.glob("*.parquet"):
            if old not in files.values() and old.name != "quarantine.parquet":
                old.unlink()
        keys = {row: self._key(row) for row in files if row not in tables or reusable}
        write_json(self.folder / "rows.json", {"keys": keys, "rows": {row: file.name for row, file in files.items()}})
        return files


def write(table: pa.Table, file: Path, facts: dict[str, str]) -> None:
    """One table with `facts` in its metadata."""
    write_table(table.replace_schema_metadata({"crossview": json.dumps(facts)}), file)
