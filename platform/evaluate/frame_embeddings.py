"""Embeddings of every frame, as Parquet: the trained method's, and those that it has to beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Recording
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Arrays, Where
from crossview.platform.config import read
from crossview.platform.data.plan_builder import load_catalog
from crossview.platform.data.video_reader import model_input, size_px
from crossview.platform.evaluate.embedding_store import (
    LABELS,
    RANDOM_INIT,
    TRAINED,
    Job,
    device_name,
    embedded,
    kept,
    key_of,
    on_features,
    ordered,
    random_init,
    store,
    write,
)
from crossview.platform.run_folder import require

FACTS = ("dataset", "scene", "view", "subject", "action")


def embed(
    run: Path,
    *,
    split: str,
    catalog: Catalog | None = None,
    baselines: bool = True,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
    batch: int = 64,
) -> dict[str, Path]:
    """Tables of a split by row name in `run/embeddings/<split>`; those of the same checkpoint and data are kept.

    Rows: "trained", and with `baselines` the method's own and "random init" (the run's configuration and seed before
    its first step, with the same frozen parts). Ego recordings come first, each perspective sorted by path, as AE2
    orders them. `batch` is the frames per pass of a frozen part. Unreadable recordings are quarantined in that folder,
    and tables that lack one are made anew.
    """
    run = require(run)
    name, experiment = read(run)
    whole = catalog or load_catalog(experiment.data)
    chosen = ordered(whole.select(split))
    source, folder = checkpoint.resolve(run).resolve(), run / "embeddings" / split
    key, wanted = key_of(source, chosen), len(chosen.recordings)
    found = kept(folder, key, baselines)
    if found:
        return found
    where = Where(in_process, actors, device_name(device))
    if catalog is None:
        chosen = on_features(name, experiment, chosen, where, batch, source)
    tables = _tables(Job(source, chosen, experiment.data, batch, where.device, baselines), folder, where)
    # What was too slow or out of reach may be read next time: such tables are never kept.
    complete = len(pc.unique(tables[TRAINED]["video"])) == wanted
    return store(folder, tables, key if complete else None, {"checkpoint": source.name, "split": split})


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

    "label" is null where the catalog has no phases; "scene", "view" and the like are columns, and so is "split", null
    where the catalog has several protocols.
    """
    _, experiment = read(require(run))
    where = Where(in_process, actors, device_name(device))
    source = checkpoint.resolve(run).resolve()
    job = Job(source, ordered(catalog), experiment.data, batch, where.device, baselines=False)
    table = _tables(job, out.parent, where)[TRAINED]
    write(table, out, {"row": TRAINED, "checkpoint": job.checkpoint.name})
    return out


class _Embedder:
    """Every row's embedding of one recording, which is decoded and passed through frozen parts once for all of them."""

    def __init__(self, job: Job) -> None:
        self.job, self.device = job, torch.device(job.device)
        self.model = checkpoint.load(job.checkpoint, self.device)
        self.name, self.experiment = read(job.checkpoint)
        self.rows = {TRAINED: self.model.embed}
        if job.baselines:
            self.rows |= self.model.baselines()
            self.rows[RANDOM_INIT] = random_init(self.name, self.experiment, self.model).embed

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.catalog.recordings[index]
        size = size_px(self.experiment.method, recording)
        file = job.catalog.file(recording)
        x = model_input(self.model, file, recording, size, job.data, batch=job.batch, device=self.device)
        return {row: _vectors(function(x), row, recording) for row, function in self.rows.items()}


def _vectors(embedding: Tensor, row: str, recording: Recording) -> np.ndarray:
    """float32 (T, D) from (1, T, D)."""
    if embedding.ndim != 3 or embedding.shape[:2] != (1, recording.num_frames):
        raise ValueError(
            f"row {row!r} of {recording.id}: embedding of shape {tuple(embedding.shape)}; "
            f"it must be (1, {recording.num_frames}, D), one vector per frame"
        )
    return embedding[0].float().cpu().numpy()


def _tables(job: Job, folder: Path, where: Where) -> dict[str, pa.Table]:
    found = embedded(job, _Embedder, folder, where, "embedding")
    rows = list(found[min(found)])
    return {row: _table(job.catalog, {i: arrays[row] for i, arrays in found.items()}) for row in rows}


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
            "split": pa.array([catalog.split_of(r) for r in recordings], pa.string()).take(pa.array(of)),
            **{
                fact: pa.array([getattr(r, fact) for r in recordings], pa.string()).take(pa.array(of)) for fact in FACTS
            },
        }
    )
