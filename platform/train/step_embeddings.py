"""Steps that a frozen encoder embeds, embedded once before a trainer trains on them."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossview import storage
from crossview.datasets.sampling.sequence_plan import SequencePlan, Stretch
from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.trainer import Trainer
from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Arrays, Where, each
from crossview.platform.data.feature_files import read_features
from crossview.platform.data.step_files import FACTS, holds_steps, write_steps
from crossview.platform.data.unreadable import Quarantine
from crossview.platform.progress import Progress
from crossview.platform.run_folder import provenance, write_json
from crossview.platform.train.device import device_of, wants_gpu
from crossview.platform.train.resolve import ResolvedRun, initialised

FOLDER = "embedded"
"""Of a run, while it trains."""
STEPS = 256
"""Steps that are embedded at once; bounds memory."""
Stretches = dict[int, list[Stretch]]
"""By recording."""


def on_embeddings(run: ResolvedRun, *, in_process: bool) -> ResolvedRun:
    """The run on its steps' embeddings, of which those that are missing are computed; else the same run.

    That is where the encoder never changes, and embeds fewer steps than training shows; otherwise it embeds those of
    every batch. Raises UserError where the run's folder has embeddings of another encoder or of other steps.
    """
    plan = run.plan
    if run.experiment.encoder.run is None or not isinstance(plan, SequencePlan):
        return run
    model = _model(run)
    if not model.embeds_once:
        return run
    stretches = plan.stretches()
    if stretches is None or not _saves(plan, stretches, run.total_steps * run.experiment.optim.batch):
        return run
    folder = run.folder / FOLDER
    assert model.encoder is not None
    _claim(folder, run, model.encoder)
    _embed(run, model, folder, stretches, in_process=in_process)
    plan = copy.copy(plan)
    plan.embedded = folder
    return replace(run, plan=plan)


def discard_embeddings(run: ResolvedRun) -> None:
    """Remove them, once training is done."""
    if isinstance(run.plan, SequencePlan) and run.plan.embedded is not None:
        storage.remove(run.folder / FOLDER)


def _saves(plan: SequencePlan, stretches: Stretches, samples: int) -> bool:
    """Whether all steps that may be shown are fewer than those of so many samples."""
    found = [stretch for of in stretches.values() for stretch in of]
    usual = [len(stretch.steps()) for stretch in found if stretch.chunk == plan.spec.chunk]
    return sum(len(stretch.steps()) for stretch in found) < samples * plan.views * float(np.mean(usual or [0]))


def _model(run: ResolvedRun) -> Trainer:
    """The run's model at any checkpoint: a frozen encoder is the same at all of them."""
    found = checkpoint.latest(run.folder)
    if found is not None:
        model = checkpoint.restore(found, run.method, run.experiment, "cpu")
    else:
        model = (run.initial or initialised(run.method, run.experiment)).model
    assert isinstance(model, Trainer)
    return model


def _claim(folder: Path, run: ResolvedRun, encoder: ClipEncoder) -> None:
    """Note what computes the embeddings; raises UserError where others are there."""
    spec = run.experiment.sampling()
    facts = {
        "encoder": str(run.experiment.encoder.run),
        "weights": run.experiment.encoder.weights,
        "fingerprint": _fingerprint(encoder),
        "width": encoder.width,
        "chunk": spec.chunk,
        "chunk_range": spec.chunk_range and list(spec.chunk_range),
    }
    file, fix = folder / FACTS, f"remove {folder}, and `crossview resume {run.folder}` embeds again"
    if storage.is_file(file):
        theirs = storage.read_json(file, fix)
        if wrong := [name for name, value in facts.items() if theirs.get(name) != value]:
            raise UserError(
                f"{file}: the embeddings here have {wrong[0]} {theirs.get(wrong[0])!r}, and this run's have "
                f"{facts[wrong[0]]!r}: they are another run's; {fix}"
            )
        return
    storage.make_folder(folder)
    write_json(file, facts | {"commit": provenance()["commit"]})


def _fingerprint(encoder: ClipEncoder) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _embed(run: ResolvedRun, model: Trainer, folder: Path, stretches: Stretches, *, in_process: bool) -> None:
    """Compute what is missing, in this process or on as many Ray actors as there are workers."""
    recordings, compute, data = run.plan.catalog.recordings, run.experiment.compute, run.experiment.data
    steps = {index: steps_of(of) for index, of in sorted(stretches.items())}
    width = model.encoder.width if model.encoder else 0
    missing = [i for i, of in steps.items() if not holds_steps(folder, recordings[i], of, width)]
    if not missing:
        return
    counts = {i: len(steps[i]) for i in missing}
    device = device_of(compute).type if in_process else "cuda" if wants_gpu(compute) else "cpu"
    options: dict[str, Any] = {"run": run.for_workers(), "folder": folder, "device": device}
    options["stretches"] = [(i, stretches[i]) for i in missing]
    if in_process:
        options["model"] = model
    quarantine = Quarantine(run.folder, len(recordings), data.max_quarantined)
    with Progress("embedding", sum(counts.values()), "steps") as line:
        for done in each(len(missing), Embedder, options, Where(in_process, compute.workers, device)):
            recording = recordings[missing[done.index]]
            if done.unreadable is not None:
                path = str(run.plan.catalog.file(recording))
                quarantine.add([json.dumps([{"recording": recording.id, "path": path, "reason": done.unreadable}])])
            line.advance(counts[missing[done.index]])


def steps_of(stretches: list[Stretch]) -> np.ndarray:
    """First frame and number of frames of every step, each once and in order: int64 (K, 2)."""
    return np.unique(np.concatenate([stretch.steps() for stretch in stretches]), axis=0)


class Embedder:
    """Embeds and writes one recording's steps."""

    def __init__(
        self,
        run: ResolvedRun,
        folder: Path,
        device: str,
        stretches: list[tuple[int, list[Stretch]]],
        model: Trainer | None = None,
    ) -> None:
        self.run, self.folder, self.stretches, self.device = run, folder, stretches, torch.device(device)
        self.model = (model or _model(run)).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        """Of the `index`-th recording."""
        catalog, (number, stretches) = self.run.plan.catalog, self.stretches[index]
        recording = catalog.recordings[number]
        array = read_features(catalog.file(recording), recording)
        flat, steps = array.reshape(len(array), -1), steps_of(stretches)
        vectors: np.ndarray | None = None
        for size in np.unique(steps[:, 1]).tolist():
            rows = np.flatnonzero(steps[:, 1] == size)
            for some in np.array_split(rows, -(-len(rows) // STEPS)):
                clips = torch.from_numpy(flat[steps[some, :1] + np.arange(size)])  # (m, n, D)
                found = self.model.embed_steps(clips.to(self.device).float()).cpu().numpy()
                if vectors is None:
                    vectors = np.empty((len(steps), found.shape[1]), np.float32)
                vectors[some] = found
        assert vectors is not None
        if not np.isfinite(vectors).all():
            first = int(steps[~np.isfinite(vectors).all(1)][0, 0])
            raise UserError(
                f"{self.run.experiment.encoder.run}: the embedding of {recording.id} from frame {first} on is not "
                f"finite; check the losses of that run, and {catalog.file(recording)}"
            )
        write_steps(self.folder, recording, steps, vectors)
        return {}
