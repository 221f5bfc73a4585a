"""What a frozen encoder embeds, steps or clips, embedded once before a trainer trains on it."""

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
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.sequence_plan import SequencePlan
from crossview.datasets.video.frames import UnreadableVideo
from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.trainer import Trainer
from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Arrays, Where, each
from crossview.platform.data.embedding_files import (
    FACTS,
    holds_embeddings,
    is_embedded,
    write_embeddings,
    write_reason,
)
from crossview.platform.data.unreadable import Quarantine
from crossview.platform.progress import Progress
from crossview.platform.run_folder import provenance, write_json
from crossview.platform.train.device import device_of, wants_gpu
from crossview.platform.train.encoder_inputs import Clips, Inputs, Part, Steps, Stretches
from crossview.platform.train.resolve import ResolvedRun, initialised

FOLDER = "embedded"
"""Of a run, while it trains."""


def on_embeddings(run: ResolvedRun, *, in_process: bool) -> ResolvedRun:
    """The run on its steps' or clips' embeddings, of which those that are missing are computed; else the same run.

    That is where the encoder never changes, and embeds fewer of them than training shows; otherwise it embeds those of
    every batch. Raises UserError where the run's folder has embeddings of another encoder or of other steps or clips.
    """
    plan = run.plan
    endless = isinstance(plan, Plan) and plan.sampling.rows_per_unit is None
    if run.experiment.encoder.run is None or not isinstance(plan, SequencePlan | Plan) or endless:
        return run
    model = _model(run)
    if not model.embeds_once:
        return run
    inputs = _inputs(run)
    if inputs is None:
        return run
    folder = run.folder / FOLDER
    assert model.encoder is not None
    _claim(folder, run, model.encoder, inputs)
    _embed(run, model, folder, inputs, in_process=in_process)
    plan = copy.copy(plan)
    plan.embedded = folder
    return replace(run, plan=plan)


def discard_embeddings(run: ResolvedRun) -> None:
    """Remove them, once training is done."""
    if isinstance(run.plan, SequencePlan | Plan) and run.plan.embedded is not None:
        storage.remove(run.folder / FOLDER)


def _inputs(run: ResolvedRun) -> Inputs | None:
    """What is embedded; None where it is as much as training shows."""
    plan, samples = run.plan, run.total_steps * run.experiment.optim.batch
    if isinstance(plan, SequencePlan):
        stretches = plan.stretches()
        return Steps(plan, stretches) if stretches is not None and _saves(plan, stretches, samples) else None
    assert isinstance(plan, Plan)
    rows = plan.sampling.rows_per_unit
    assert rows is not None
    return Clips(plan, run.experiment.data) if rows * plan.rows_per_epoch < samples else None


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


def _claim(folder: Path, run: ResolvedRun, encoder: ClipEncoder, inputs: Inputs) -> None:
    """Note what computes the embeddings; raises UserError where others are there."""
    facts = {
        "encoder": str(run.experiment.encoder.run),
        "weights": run.experiment.encoder.weights,
        "fingerprint": _fingerprint(encoder),
        "width": encoder.width,
        **inputs.facts,
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


def _embed(run: ResolvedRun, model: Trainer, folder: Path, inputs: Inputs, *, in_process: bool) -> None:
    """Compute what is missing, in this process or on as many Ray actors as there are workers."""
    recordings, compute, data = run.plan.catalog.recordings, run.experiment.compute, run.experiment.data
    width = model.encoder.width if model.encoder else 0
    missing = [
        i
        for i in inputs.recordings
        if not (is_embedded(folder, recordings[i]) and holds_embeddings(folder, recordings[i], inputs.keys(i), width))
    ]
    if not missing:
        return
    counts = {i: inputs.count(i) for i in missing}
    device = device_of(compute).type if in_process else "cuda" if wants_gpu(compute) else "cpu"
    options: dict[str, Any] = {"run": run.for_workers(), "folder": folder, "device": device}
    options |= {"inputs": inputs, "missing": missing}
    if in_process:
        options["model"] = model
    quarantine = Quarantine(run.folder, len(recordings), data.max_quarantined)
    with Progress("embedding", sum(counts.values()), inputs.noun) as line:
        for done in each(len(missing), Embedder, options, Where(in_process, compute.workers, device)):
            recording = recordings[missing[done.index]]
            if done.unreadable is not None:
                write_reason(folder, recording, done.unreadable)
                path = str(run.plan.catalog.file(recording))
                quarantine.add([json.dumps([{"recording": recording.id, "path": path, "reason": done.unreadable}])])
            line.advance(counts[missing[done.index]])


class Embedder:
    """Embeds and writes one recording's steps or clips."""

    def __init__(
        self,
        run: ResolvedRun,
        folder: Path,
        device: str,
        inputs: Inputs,
        missing: list[int],
        model: Trainer | None = None,
    ) -> None:
        self.run, self.folder, self.device = run, folder, torch.device(device)
        self.inputs, self.missing = inputs, missing
        self.model = (model or _model(run)).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        """Of the `index`-th recording that is missing; one that is unreadable in part is written as far as it goes."""
        number = self.missing[index]
        recording, keys = self.run.plan.catalog.recordings[number], self.inputs.keys(number)
        assert self.model.encoder is not None
        vectors = np.full((len(keys), self.model.encoder.width), np.nan, np.float32)
        unreadable: UnreadableVideo | None = None
        for part in self.inputs.parts(number):
            if isinstance(part, UnreadableVideo):
                unreadable = unreadable or part
            else:
                vectors[part.places] = self._embedded(number, part)
        write_embeddings(self.folder, recording, keys, vectors)
        if unreadable is not None:
            raise unreadable
        return {}

    def _embedded(self, number: int, part: Part) -> np.ndarray:
        """float32 (m, D), in the precision of a training step; raises UserError where a value is not finite."""
        dtype = getattr(torch, self.run.experiment.compute.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            vectors = self.inputs.embed(self.model, part.frames.to(self.device)).float().cpu().numpy()
        finite = np.isfinite(vectors).all(1)
        if not finite.all():
            catalog = self.run.plan.catalog
            recording = catalog.recordings[number]
            raise UserError(
                f"{self.run.experiment.encoder.run}: the embedding of {recording.id} from frame "
                f"{part.first_frames[~finite][0]} on is not finite; check the losses of that run, and "
                f"{catalog.file(recording)}"
            )
        return vectors
