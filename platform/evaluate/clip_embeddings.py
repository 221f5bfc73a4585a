"""Embeddings of a split's evaluation clips, as Parquet: those of the trained method and of its baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Perspective, Recording
from crossview.datasets.sampling.evaluation_clips import Windows, evaluation_clips
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.frames import UnreadableVideo
from crossview.datasets.video.source import Wanted
from crossview.downstream.clip_table import ClipTable
from crossview.errors import UserError
from crossview.methods.method import Method
from crossview.platform.cluster.map_recordings import Arrays
from crossview.platform.config import Data
from crossview.platform.data.feature_files import read_features
from crossview.platform.data.frame_cache import frame_cache
from crossview.platform.data.video_reader import in_rgb
from crossview.platform.evaluate.embedding_store import (
    RunJob,
    Tables,
    embedded,
    on_features,
)
from crossview.platform.evaluate.facts import ordered
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED, Baselines, OpenRun


def embed_clips(
    run: OpenRun, *, split: str, per_scene: int, baselines: Baselines = "all", batch: int = 64
) -> dict[str, Path]:
    """Tables of `ClipTable` of a split by row name in the run's `embeddings/<split>/clips`.

    Rows and order are those of `frame_embeddings.embed`, and tables are cached the same way; a baseline is its frame
    embedding averaged over the clip. "start_s" is the clip's start on the scene's clock. Each recording is decoded once
    for all of its clips and rows. `batch` is the number of frames per pass of a frozen part.
    """
    chosen = ordered(run.catalog.select(split))
    folder = run.path / "embeddings" / split / "clips"
    stored, wanted, count = Tables(run, chosen, folder, per_scene), run.rows(baselines), len(chosen.recordings)
    found = stored.kept()
    missing = tuple(row for row in wanted if row not in found)
    if missing:
        windows = clip_windows(chosen, run.experiment.method.sampling(), per_scene)
        chosen = on_features(run, chosen, batch)
        job = _Job(chosen, run.experiment.data, batch, run.where.device, run, missing, windows)
        arrays = embedded(job, _Embedder, folder, run.where, "embedding clips")
        recordings = [chosen.recordings[i] for i in arrays]
        tables = {row: _table(recordings, windows, [of[row] for of in arrays.values()]) for row in missing}
        facts = {"checkpoint": run.checkpoint.name, "split": split}
        found = stored.add(tables, facts, reusable=len(recordings) == count)
    return {row: found[row] for row in wanted}


def clip_windows(catalog: Catalog, sampling: Sampling, per_scene: int) -> dict[str, Windows]:
    """The evaluation clips of every recording, by its id, with the length and rate that the method trains on."""
    views: dict[Perspective, View] = {r.perspective: sampling.view_for(r.perspective) for r in catalog.recordings}
    found = evaluation_clips(catalog, views, per_scene)
    return {r.id: windows for r, windows in zip(catalog.recordings, found, strict=True)}


@dataclass(frozen=True)
class _Job(RunJob):
    windows: dict[str, Windows]
    """By recording id."""


class _Embedder:
    """Every row's embeddings of one recording's clips."""

    def __init__(self, job: _Job) -> None:
        self.job, self.device, self.model = job, torch.device(job.device), job.run.trained
        self.sampling = job.run.experiment.method.sampling()
        known: dict[str, Callable[[Tensor], Tensor]] = {TRAINED: self.model.embed_clip}
        for row, baseline in self.model.baselines().items():
            known[row] = lambda clips, baseline=baseline: baseline(clips).mean(1)  # type: ignore[misc]
        if RANDOM_INIT in job.rows:
            known[RANDOM_INIT] = job.run.random_init.embed_clip
        self.rows = {row: known[row] for row in job.rows}

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.catalog.recordings[index]
        frames = job.windows[recording.id].frames
        view = self.sampling.view_for(recording.perspective)
        clips = clip_tensor(self.model, job.catalog, recording, frames, view, job.data, job.batch, self.device)
        return {row: _vectors(function(clips), row, recording, len(frames)) for row, function in self.rows.items()}


@torch.no_grad()
def clip_tensor(
    model: Method,
    catalog: Catalog,
    recording: Recording,
    frames: np.ndarray,
    view: View,
    data: Data,
    batch: int,
    device: torch.device,
) -> Tensor:
    """The clips `frames`, int64 (K, T), as `Method.embed_clip` takes them: (K, T, 3, H, W) or features (K, T, N, D).

    The frozen part, if the method has one, processes each frame once. Raises UnreadableVideo.
    """
    pixels = clip_frames(catalog, recording, frames, view, data)
    return _frozen(model, pixels, batch, device)[_places(frames)]


def clip_frames(catalog: Catalog, recording: Recording, frames: np.ndarray, view: View, data: Data) -> Tensor:
    """The distinct frames among `frames`, ascending: uint8 (n, 3, H, W), or float16 (n, N, D) from a features file.

    They are framed as the view is evaluated. Raises UnreadableVideo. Features, and frames that `data.cache_frames`
    keeps, are read memory-mapped.
    """
    wanted = np.unique(frames)
    if recording.kind == "features":
        return torch.from_numpy(read_features(catalog.file(recording), recording)[wanted])
    if wanted[-1] >= recording.num_frames:
        raise UnreadableVideo(
            f"{catalog.file(recording)}: frame {wanted[-1]} was requested, but the recording has {recording.num_frames}"
        )
    source, pixels = catalog.source(recording), data.pixels(view)
    framing = view.centred(recording.height_px, recording.width_px)
    if data.cache_frames:
        return in_rgb(frame_cache(source, recording, framing, pixels, data)[wanted], pixels)
    clip, limit_s = [Wanted(wanted, framing)], data.time_limit_s
    (pictures,) = read_clips(source, clip, pixels=pixels, decoder=data.decoder, time_limit_s=limit_s)
    return in_rgb(pictures, pixels)


def _places(frames: np.ndarray) -> Tensor:
    """The position of each frame among the distinct ones: int64 (K, T)."""
    return torch.from_numpy(np.unique(frames, return_inverse=True)[1].reshape(frames.shape))


def _frozen(model: Method, pixels: Tensor, batch: int, device: torch.device) -> Tensor:
    """The input of the rows, (n, ...): features of the frozen part if the method has one, computed once for all."""
    if pixels.dtype != torch.uint8:
        return pixels.to(device)
    parts = []
    for chunk in pixels.split(batch):
        try:
            frozen = model.frozen_features(chunk.unsqueeze(0).to(device))
        except UserError:  # e.g. they exceed float16: every row computes its own
            frozen = None
        if frozen is None:
            return pixels.to(device)
        parts.append(frozen[0])
    return torch.cat(parts)


def _vectors(embedding: Tensor, row: str, recording: Recording, clips: int) -> np.ndarray:
    """float32 (K, D)."""
    if embedding.ndim != 2 or len(embedding) != clips:
        raise ValueError(
            f"row {row!r} of {recording.id}: clip embedding of shape {tuple(embedding.shape)}; it must be "
            f"({clips}, D), one vector per clip"
        )
    return embedding.float().cpu().numpy()


def _table(recordings: list[Recording], windows: dict[str, Windows], vectors: list[np.ndarray]) -> pa.Table:
    """One row per clip."""
    of = np.repeat(np.arange(len(recordings)), [len(v) for v in vectors])
    several = len({r.dataset for r in recordings}) > 1  # then scenes of one name are not the same scene

    def column(values: list[str]) -> np.ndarray:
        return np.asarray(values, np.str_)[of]

    clips = ClipTable(
        vectors=np.concatenate(vectors),
        recording=column([r.id for r in recordings]),
        scene=column([f"{r.dataset}/{r.scene}" if several else r.scene for r in recordings]),
        view=column([r.view for r in recordings]),
        perspective=column([r.perspective for r in recordings]),
        subject=column([r.subject for r in recordings]),
        action=column([r.action for r in recordings]),
        instant=np.concatenate([windows[r.id].instant for r in recordings]),
    )
    starts = pa.array(np.concatenate([windows[r.id].start_s for r in recordings]))
    return clips.to_table().append_column("start_s", starts)
