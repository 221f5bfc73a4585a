"""Class scores of recordings for the teacher store: from a trained run, or from any timm image classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.evaluation_clips import Windows
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.spec import Sampling, View
from crossview.errors import UserError
from crossview.methods.base_config import Base
from crossview.platform.cluster.map_recordings import Arrays, Where
from crossview.platform.config import Data
from crossview.platform.data.backbone_features import backbone
from crossview.platform.evaluate.clip_embeddings import clip_frames, clip_tensor, clip_windows
from crossview.platform.evaluate.embedding_store import Job, RunJob, embedded
from crossview.platform.evaluate.opened import device_name, open_run

_LOGITS = "logits"


def scores_of_run(
    run: Path,
    catalog: Catalog,
    folder: Path,
    *,
    kind: str | None = None,
    clips: int = 10,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
) -> dict[str, np.ndarray]:
    """A trained classifier's logits (C,) by recording id, averaged over `clips` evenly spaced clips of each.

    kind: label kind of the classifier to use, if the run has several. Unreadable recordings are quarantined in
    `folder` and left out.
    """
    opened = open_run(run, in_process=in_process, actors=actors, device=device)
    job = _RunJob(
        catalog,
        opened.experiment.data,
        64,
        opened.where.device,
        opened,
        rows=(),
        windows=clip_windows(catalog, opened.experiment.method.sampling(), clips),
        kind=kind,
    )
    return _by_recording(catalog, embedded(job, _RunScorer, folder, opened.where, "scoring"))


def scores_of_classifier(
    name: str,
    weights: str,
    catalog: Catalog,
    folder: Path,
    *,
    classes: int = 1000,
    frames: int = 10,
    in_process: bool = False,
    actors: int = 1,
    device: str = "auto",
) -> dict[str, np.ndarray]:
    """An image classifier's logits (C,) by recording id, averaged over `frames` evenly spaced frames of each.

    name: timm's. weights: "hub", or a .safetensors or .pt file with all of the model's weights and its classifier's.
    """
    base = backbone(name, weights)
    where = Where(in_process, actors, device_name(device))
    view = View(perspective="any", frames=1, fps=1.0, size_px=base.size_px)
    job = _ClassifierJob(
        catalog,
        Data(catalog=folder),
        64,
        where.device,
        windows=clip_windows(catalog, Sampling(views={"frame": view}, pairing="single"), frames),
        base=base,
        classes=classes,
    )
    classifier(base, classes)  # errors in the weights surface here, not in every worker
    return _by_recording(catalog, embedded(job, _ClassifierScorer, folder, where, "scoring"))


def classifier(base: Base, classes: int) -> nn.Module:
    """The timm model with a classifier of `classes` outputs; raises ValueError if the weights do not fit it."""
    hub = base.weights == "hub"
    try:
        model: nn.Module = timm.create_model(base.model, pretrained=hub, num_classes=classes)
    except Exception as error:  # the hub's client raises many kinds of errors
        raise UserError(
            f"timm:{base.model}: cannot be built with the hub's weights ({type(error).__name__}: {error}); pass "
            "--weights FILE with a local .safetensors or .pt file"
        ) from error
    if not hub:
        file = Path(base.weights)
        try:
            state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
            model.load_state_dict(state)
        except Exception as error:  # missing, damaged, pickled code, or another shape: each raises its own error
            raise UserError(
                f"{file}: these weights do not fit timm:{base.model} with {classes} classes "
                f"({type(error).__name__}: {str(error).splitlines()[0]}); all tensors must match, also the classifier's"
            ) from error
    return model.eval()


@dataclass(frozen=True)
class _RunJob(RunJob):
    windows: dict[str, Windows]
    """By recording id."""
    kind: str | None


@dataclass(frozen=True)
class _ClassifierJob(Job):
    windows: dict[str, Windows]
    base: Base
    classes: int


class _RunScorer:
    """The mean of one recording's clip logits."""

    def __init__(self, job: _RunJob) -> None:
        self.job, self.device, self.model = job, torch.device(job.device), job.run.trained
        self.sampling = job.run.experiment.method.sampling()

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.catalog.recordings[index]
        view = self.sampling.view_for(recording.perspective)
        frames = job.windows[recording.id].frames
        clips = clip_tensor(self.model, job.catalog, recording, frames, view, job.data, job.batch, self.device)
        found = self.model.class_logits(clips)
        kind = job.kind or (next(iter(found)) if len(found) == 1 else None)
        if kind not in found:
            raise UserError(
                f"{job.run.checkpoint}: its classifiers are {', '.join(found) or 'none'}; name one of them with "
                "--kind, or choose a run that was trained to classify"
            )
        return {_LOGITS: found[kind].float().mean(0).cpu().numpy()}


class _ClassifierScorer:
    """The mean of one recording's frame logits."""

    def __init__(self, job: _ClassifierJob) -> None:
        self.job, self.device = job, torch.device(job.device)
        self.model = classifier(job.base, job.classes).to(self.device)
        self.mean, self.std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (job.base.mean, job.base.std))

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.catalog.recordings[index]
        frames = job.windows[recording.id].frames
        view = View(perspective="any", frames=1, size_px=job.base.size_px, geometry=SQUASH)
        pixels = clip_frames(job.catalog, recording, frames, view, job.data)
        logits = self.model((pixels.to(self.device).float() / 255 - self.mean) / self.std)
        return {_LOGITS: logits.mean(0).float().cpu().numpy()}


def _by_recording(catalog: Catalog, arrays: dict[int, Arrays]) -> dict[str, np.ndarray]:
    return {catalog.recordings[index].id: found[_LOGITS] for index, found in arrays.items()}
