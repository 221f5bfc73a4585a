"""Embeddings of every frame, as Parquet: the trained method's, and those that it has to beat."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.tables import write_table
from crossview.methods.method import Method, build
from crossview.platform import checkpoint
from crossview.platform.config import Data, Experiment, read
from crossview.platform.features import cache
from crossview.platform.per_recording import Arrays, Where, each
from crossview.platform.progress import Progress
from crossview.platform.quarantine import Quarantine
from crossview.platform.recording import file_state, model_input, size_px
from crossview.platform.runs import require, write_json

TRAINED, RANDOM_INIT = "trained", "random init"
LABELS = "phase"
"""Frame labels that go into the column "label"."""
FACTS = ("dataset", "split", "scene", "view", "subject", "action")


def embed(
    run: Path,
    *,
    split: str,
    catalog: Catalog | None = None,
    controls: bool = True,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
    batch: int = 64,
) -> dict[str, Path]:
    """Tables of a split by row name in `run/embeddings/<split>`; those of the same checkpoint and data are kept.

    Rows: "trained", and with `controls` the method's own and "random init" (the run's configuration and seed before its
    first step, with the same frozen parts). Ego recordings come first, each perspective sorted by path, as AE2 orders
    them. `batch` is the frames per pass of a frozen part. Unreadable recordings are quarantined in that folder, and
    tables that lack one are made anew.
    """
    run = require(run)
    name, experiment = read(run)
    whole = catalog or Catalog.load(experiment.data.catalog, experiment.data.root)
    chosen = _ordered(whole.select(split))
    source, folder = checkpoint.resolve(run).resolve(), run / "embeddings" / split
    key, wanted = _key(source, chosen), len(chosen.recordings)
    kept = _kept(folder, key, controls)
    if kept:
        return kept
    where = Where(in_process, actors, _device(device))
    if experiment.data.cache_features and catalog is None:
        chosen = _cached(name, experiment, chosen, where, batch, source)
    tables = _tables(_Job(source, chosen, experiment.data, batch, where.device, controls), folder, where)
    for old in folder.glob("*.parquet"):
        if old.name != "quarantine.parquet":
            old.unlink()
    files = {row: f"{row.replace(' ', '-')}.parquet" for row in tables}
    for row, table in tables.items():
        _write(table, folder / files[row], {"row": row, "checkpoint": source.name, "split": split})
    # What was too slow or out of reach may be read next time: such tables are never kept.
    complete = len(pc.unique(tables[TRAINED]["video"])) == wanted
    write_json(folder / "rows.json", {"key": key if complete else None, "rows": files})
    return {row: folder / file for row, file in files.items()}


def export(
    run: Path,
    catalog: Catalog,
    out: Path,
    *,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
    batch: int = 64,
) -> Path:
    """The trained method's embeddings of every recording of any catalog, as one table in the file `out`.

    "label" is null where the catalog has no phases; "split", "scene", "view" and the like are columns.
    """
    _, experiment = read(require(run))
    where = Where(in_process, actors, _device(device))
    job = _Job(
        checkpoint.resolve(run).resolve(), _ordered(catalog), experiment.data, batch, where.device, controls=False
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    table = _tables(job, out.parent, where)[TRAINED]
    _write(table, out, {"row": TRAINED, "checkpoint": job.checkpoint.name})
    return out


@dataclass(frozen=True)
class _Job:
    """What every process needs in order to embed the same recordings."""

    checkpoint: Path
    catalog: Catalog
    data: Data
    batch: int
    device: str
    controls: bool


class _Embedder:
    """Every row's embedding of one recording, which is decoded and passed through frozen parts once for all of them."""

    def __init__(self, job: _Job) -> None:
        self.job, self.device = job, torch.device(job.device)
        self.model = checkpoint.load(job.checkpoint, self.device)
        self.name, self.experiment = read(job.checkpoint)
        self.rows = {TRAINED: self.model.embed}
        if job.controls:
            self.rows |= self.model.controls()
            self.rows[RANDOM_INIT] = random_init(self.name, self.experiment, self.model).embed

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.catalog.recordings[index]
        size = size_px(self.experiment.method, recording)
        file = job.catalog.file(recording)
        x = model_input(self.model, file, recording, size, job.data, batch=job.batch, device=self.device)
        return {row: _vectors(function(x), row, recording) for row, function in self.rows.items()}


def random_init(name: str, experiment: Experiment[Any], trained: Method) -> Method:
    """The run's method as it was before its first step, with the trained one's frozen parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        model = build(name, checkpoint.without_pretrained(experiment.method))
    frozen = {n: p for n, p in trained.named_parameters() if not p.requires_grad}
    device = next(trained.parameters()).device
    model.load_state_dict({n: frozen.get(n, value) for n, value in model.state_dict().items()})
    return model.to(device).eval()


def _vectors(embedding: Tensor, row: str, recording: Recording) -> np.ndarray:
    """float32 (T, D) from (1, T, D)."""
    if embedding.ndim != 3 or embedding.shape[:2] != (1, recording.num_frames):
        raise ValueError(
            f"row {row!r} of {recording.id}: embedding of shape {tuple(embedding.shape)}; "
            f"it must be (1, {recording.num_frames}, D), one vector per frame"
        )
    return embedding[0].float().cpu().numpy()


def _tables(job: _Job, folder: Path, where: Where) -> dict[str, pa.Table]:
    recordings = job.catalog.recordings
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quarantine.parquet").unlink(missing_ok=True)
    quarantine = Quarantine(folder, len(recordings), job.data.max_quarantined)
    found: dict[int, Arrays] = {}
    with Progress("embedding", sum(r.num_frames for r in recordings), "frames") as line:
        for done in each(len(recordings), _Embedder, {"job": job}, where):
            recording = recordings[done.index]
            if done.unreadable is None:
                found[done.index] = done.arrays
            else:
                path = str(job.catalog.file(recording))
                quarantine.add([json.dumps([{"recording": recording.id, "path": path, "reason": done.unreadable}])])
            bad = len(quarantine.files)
            line.advance(recording.num_frames, f"{bad} files quarantined" if bad else "")
    if not found:
        raise ValueError(f"catalog {job.catalog.root}: none of its {len(recordings)} recordings can be read")
    rows = list(found[min(found)])
    return {row: _table(job.catalog, {i: found[i][row] for i in sorted(found)}) for row in rows}


def _table(catalog: Catalog, vectors: dict[int, np.ndarray]) -> pa.Table:
    """One row per frame, with the columns of `Embeddings.to_table` and the recording's facts."""
    recordings = [catalog.recordings[i] for i in vectors]
    of = np.repeat(np.arange(len(recordings), dtype=np.int32), [len(v) for v in vectors.values()])
    labels = catalog.frame_labels.get(LABELS, {})
    parts = [
        pa.array(labels[r.id], pa.int32()) if r.id in labels else pa.nulls(r.num_frames, pa.int32()) for r in recordings
    ]
    flat = np.concatenate(list(vectors.values()))

    def column(values: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(of), pa.array(values, pa.string()))

    return pa.table(
        {
            "video": column([r.id for r in recordings]),
            "frame": pa.array(np.concatenate([np.arange(len(v), dtype=np.int32) for v in vectors.values()])),
            "label": pa.concat_arrays(parts),
            "is_ego": pa.array(np.array([r.perspective == "ego" for r in recordings])[of]),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]),
            **{
                fact: pa.array([getattr(r, fact) for r in recordings], pa.string()).take(pa.array(of)) for fact in FACTS
            },
        }
    )


def _write(table: pa.Table, file: Path, facts: dict[str, str]) -> None:
    write_table(table.replace_schema_metadata({"crossview": json.dumps(facts)}), file)


def _ordered(catalog: Catalog) -> Catalog:
    """Ego before exo, each by path: ties in retrieval go to the first."""
    recordings = sorted(catalog.recordings, key=lambda r: (r.perspective != "ego", r.path, r.id))
    return replace(catalog, recordings=tuple(recordings))


def _cached(
    name: str, experiment: Experiment[Any], catalog: Catalog, where: Where, batch: int, weights: Path
) -> Catalog:
    return cache(
        name,
        experiment.method,
        catalog,
        experiment.data.catalog / "features",
        in_process=where.in_process,
        actors=where.actors,
        batch=batch,
        device=where.device,
        data=experiment.data,
        weights=weights,
    )


def _device(device: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _key(source: Path, catalog: Catalog) -> str:
    """Hash of what decides the tables: the checkpoint's weights, the recordings, their files and their labels."""
    facts = (source / "model.safetensors").stat()
    digest = hashlib.blake2b(
        f"{source.name} {facts.st_size} {facts.st_mtime_ns} {catalog.root}".encode(), digest_size=16
    )
    for recording in catalog.recordings:
        labels = catalog.frame_labels.get(LABELS, {}).get(recording.id)
        digest.update(f"{recording!r} {file_state(catalog.file(recording))}".encode())
        digest.update(b"" if labels is None else labels.tobytes())
    return digest.hexdigest()


def _kept(folder: Path, key: str, controls: bool) -> dict[str, Path]:
    """Tables that are there already, if they are all that is asked for."""
    index = folder / "rows.json"
    if not index.exists():
        return {}
    values = json.loads(index.read_text())
    files = {row: folder / file for row, file in values["rows"].items()}
    if values["key"] != key or not all(f.exists() for f in files.values()) or (controls and RANDOM_INIT not in files):
        return {}
    return files if controls else {TRAINED: files[TRAINED]}
