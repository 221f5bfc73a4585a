"""Embeddings of every frame, as Parquet: those of the trained method and of its baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Recording
from crossview.platform.cluster.map_recordings import Arrays
from crossview.platform.data.video_reader import model_input
from crossview.platform.evaluate.embedding_store import (
    LABELS,
    RunJob,
    Tables,
    embedded,
    on_features,
    write,
)
from crossview.platform.evaluate.facts import ordered
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED, Baselines, OpenRun

FACTS = ("dataset", "scene", "view", "subject", "action")


def embed(
    run: OpenRun, *, split: str, catalog: Catalog | None = None, baselines: Baselines = "all", batch: int = 64
) -> dict[str, Path]:
    """Tables of a split by row name in the run's `embeddings/<split>`; reused for the same checkpoint and data.

    Rows: "trained", and of `baselines` the method's own and "random init" (the run's configuration and seed before
    its first step, with the same frozen parts). Ego recordings come first, each perspective sorted by path, as AE2
    orders them. `batch` is the number of frames per pass of a frozen part. Unreadable recordings are quarantined in
    that folder, and tables that lack one are computed again.
    """
    chosen = ordered((catalog or run.catalog).select(split))
    folder = run.path / "embeddings" / split
    stored, wanted, count = Tables(run, chosen, folder), run.rows(baselines), len(chosen.recordings)
    found = stored.kept()
    missing = tuple(row for row in wanted if row not in found)
    if missing:
        if catalog is None:
            chosen = on_features(run, chosen, batch)
        tables = _tables(RunJob(chosen, run.experiment.data, batch, run.where.device, run, missing), folder)
        # What was too slow or unreachable may be readable next time: such tables are never reused.
        complete = len(pc.unique(next(iter(tables.values()))["video"])) == count
        found = stored.add(tables, {"checkpoint": run.checkpoint.name, "split": split}, reusable=complete)
    return {row: found[row] for row in wanted}


def export(run: OpenRun, catalog: Catalog, out: Path, *, batch: int = 64) -> Path:
    """The trained method's embeddings of every recording of any catalog, as one table in the file `out`.

    "label" is null if the catalog has no phases; "scene", "view" and the like are columns, and so is "split", which is
    null if the catalog has several protocols.
    """
    job = RunJob(ordered(catalog), run.experiment.data, batch, run.where.device, run, (TRAINED,))
    table = _tables(job, out.parent)[TRAINED]
    write(table, out, {"row": TRAINED, "checkpoint": run.checkpoint.name})
    return out


class _Embedder:
    """Every row's embedding of one recording, which is decoded and passed through frozen parts once for all of them."""

    def __init__(self, job: RunJob) -> None:
        self.job, self.device, self.model = job, torch.device(job.device), job.run.trained
        self.sampling = job.run.experiment.method.sampling()
        known = {TRAINED: self.model.embed} | self.model.baselines()
        if RANDOM_INIT in job.rows:
            known[RANDOM_INIT] = job.run.random_init.embed
        self.rows = {row: known[row] for row in job.rows}

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.catalog.recordings[index]
        view = self.sampling.view_for(recording.perspective)
        x = model_input(self.model, job.catalog, recording, view, job.data, batch=job.batch, device=self.device)
        return {row: _vectors(function(x), row, recording) for row, function in self.rows.items()}


def _vectors(embedding: Tensor, row: str, recording: Recording) -> np.ndarray:
    """float32 (T, D) from (1, T, D)."""
    if embedding.ndim != 3 or embedding.shape[:2] != (1, recording.num_frames):
        raise ValueError(
            f"row {row!r} of {recording.id}: embedding of shape {tuple(embedding.shape)}; "
            f"it must be (1, {recording.num_frames}, D), one vector per frame"
        )
    return embedding[0].float().cpu().numpy()


def _tables(job: RunJob, folder: Path) -> dict[str, pa.Table]:
    found = embedded(job, _Embedder, folder, job.run.where, "embedding")
    rows = list(found[min(found)])
    return {row: _table(job.catalog, {i: arrays[row] for i, arrays in found.items()}) for row in rows}


def _table(catalog: Catalog, vectors: dict[int, np.ndarray]) -> pa.Table:
    """One row per frame, with the columns of `FrameTable.to_table` and the recording's facts."""
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
