"""A run with everything settled before its first step: configuration, catalogs, plan and model, each made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.tables import ADDED
from crossview.datasets.sampling.coverage import plan_warnings
from crossview.datasets.sampling.feature_plan import FeaturePlan
from crossview.datasets.teachers.store import FOLDER, check_store
from crossview.datasets.video.decode import check_decoder
from crossview.downstream.encoder import ClipEncoder
from crossview.errors import UserError
from crossview.methods.trained import Trained
from crossview.platform import checkpoint, config, run_folder
from crossview.platform.cluster.resources import joined
from crossview.platform.config import Data, Encoder, Experiment, is_trainer, method_names, to_dict
from crossview.platform.data.cameras import seen_by
from crossview.platform.data.decoder import AnyPlan
from crossview.platform.data.frame_cache import check_cacheable
from crossview.platform.data.plan_builder import build_plan, load_catalogs
from crossview.platform.models import bare_encoder, build_model
from crossview.platform.progress import warn
from crossview.platform.train.batch_layout import Reach, shares
from crossview.platform.train.blocks import check_blocks
from crossview.platform.train.device import device_of
from crossview.platform.train.lr_schedule import total_steps
from crossview.platform.train.profiler import check_profile
from crossview.platform.train.trackers import check_tracker


@dataclass(frozen=True)
class Initial:
    """A model before its first step, with the state of torch's generator that training continues from."""

    model: Trained
    rng: Tensor


@dataclass(frozen=True)
class ResolvedRun:
    """What every part of training is handed; nothing of it is read or built again in this process."""

    folder: Path
    method: str
    experiment: Experiment[Any]
    catalogs: tuple[Catalog, ...]
    """All splits, as `plan_builder.load_catalogs` gives them; none in a worker, which has the plan."""
    plan: AnyPlan
    info: dict[str, Any]
    """What run.json holds."""
    initial: Initial | None = None
    """None where training starts from a checkpoint, or in another process, which builds its own."""

    @property
    def total_steps(self) -> int:
        """Optimiser steps from the first to the last."""
        return total_steps(self.experiment.optim, self.plan.rows_per_epoch)

    def for_workers(self) -> ResolvedRun:
        """What travels to the workers' processes."""
        return replace(self, catalogs=(), initial=None)

    def reach(self) -> Reach:
        """`Method.reach` of the run's model."""
        if self.initial is not None:
            return self.initial.model.reach()
        return build_model(self.method, self.experiment).reach()

    def on_features(self, cached: Callable[[Catalog, Path], Catalog]) -> ResolvedRun:
        """The run on cached features; `cached` gives those of a catalog, called with the folder that it is kept in."""
        data = self.experiment.data
        folders = (data.catalog, *(source.catalog for source in data.mix))
        found = [cached(catalog, folder) for catalog, folder in zip(self.catalogs, folders, strict=True)]
        return replace(self, plan=build_plan(self.experiment, found, self.catalogs[0]))

    def with_recordings_noted(self) -> ResolvedRun:
        """Note in run.json which recordings the plan draws from; later, refuse others: samples would differ too."""
        catalog = self.plan.catalog
        facts = [_decisive(recording) for recording in catalog.recordings]
        now = _hash(facts)
        if "recordings" not in self.info:
            noted = replace(self, info={**self.info, "recordings": now})
            run_folder.write_json(self.folder / "run.json", noted.info)
            return noted
        splits = [catalog.split_of(r) for r in catalog.recordings]
        # Crossview 0.3 counted the split among a recording's facts, in the second place.
        before = [
            {"dataset": f["dataset"], "split": split, **{k: v for k, v in f.items() if k != "dataset"}}
            for f, split in zip(facts, splits, strict=True)
        ]
        if self.info["recordings"] not in (now, _hash(before)):
            raise UserError(
                f"{self.folder}: the recordings to train on now ({len(facts)}) are not those that the run started "
                "with: the catalog was made again, or files were fixed or damaged in between. Restore them, or start a "
                f"new run from these weights with `crossview train {self.method} --from {self.folder} --init-from "
                f"{self.folder}`"
            )
        return self


_ADDED = {f.name: f.default for f in fields(Recording) if f.name in ADDED}


def _decisive(recording: Recording) -> dict[str, Any]:
    """What decides the samples, which a copy of the file keeps; values that 0.5 implied are left out, as it did."""
    facts = asdict(recording)
    return {
        name: value
        for name, value in facts.items()
        if name not in ("path", "kind", "index") and not (name in _ADDED and value == _ADDED[name])
    }


def _hash(facts: list[dict[str, Any]]) -> str:
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def check_new(method: str, experiment: Experiment[Any], tell: Callable[[str], None]) -> ResolvedRun:
    """A run that has no folder yet, with absolute paths; raises ValueError for all that can be refused beforehand.

    Prints what of the catalogs is never drawn.
    `tell` is told what of the weights that it starts from is not taken over.
    """
    begin = checkpoint.resolve(experiment.init_from).resolve() if experiment.init_from else None
    encoder = settled(experiment.encoder, method)
    experiment = replace(experiment, data=_absolute(experiment.data), init_from=begin, encoder=encoder)
    check_decoder(experiment.data.decoder)
    _check_cached(method, experiment)
    catalogs = load_catalogs(experiment.data)
    plan = build_plan(experiment, catalogs)
    if not isinstance(plan, FeaturePlan):
        check_cacheable(plan.sampling, experiment.data)
        check_store(experiment.data.catalog / FOLDER, plan.sampling.scores, plan.sampling.boxes)
    warn(plan_warnings(plan))
    shares(experiment.optim, experiment.compute)
    check_profile(experiment.compute, total_steps(experiment.optim, plan.rows_per_epoch))
    check_tracker(experiment.track)
    device = None if joined() else device_of(experiment.compute)  # joined to a cluster, its workers compute elsewhere
    # Bad weights are found here, and fetched once rather than by every worker.
    initial = initialised(method, experiment, tell)
    check_blocks(initial.model, experiment.compute, device)
    return ResolvedRun(Path(), method, experiment, catalogs, plan, {}, initial)


def saved(folder: Path) -> ResolvedRun:
    """The run in a folder, as its run.json says."""
    found = config.saved(run_folder.require(folder))
    catalogs = load_catalogs(found.experiment.data)
    plan = build_plan(found.experiment, catalogs)
    return ResolvedRun(folder, found.method, found.experiment, catalogs, plan, found.info)


def initialised(method: str, experiment: Experiment[Any], tell: Callable[[str], None] | None = None) -> Initial:
    """The model before its first step, a function of the experiment alone.

    `tell` is told what of the weights that it starts from is not taken over. Raises ValueError where these do not fit.
    """
    torch.manual_seed(experiment.seed)
    model = _initial_model(method, experiment, tell)
    return Initial(model, torch.get_rng_state())


def _initial_model(name: str, experiment: Experiment[Any], tell: Callable[[str], None] | None) -> Trained:
    if experiment.init_from is None:
        return build_model(name, experiment, pretrained=True, encoder=_loaded_encoder(experiment.encoder))
    source = checkpoint.resolve(experiment.init_from)
    model = build_model(name, experiment)
    try:
        left_out = model.start_from(checkpoint.read_weights(source))
    except UserError as error:
        raise UserError(
            f"init_from is {source}; its weights do not fit this configuration of {name} ({error}): configure the "
            "network as that run's, or leave --init-from out"
        ) from error
    if tell:
        for line in left_out:
            tell(f"from {source.parent.parent.name}: {line}")
    return model


def settled(encoder: Encoder, name: str) -> Encoder:
    """A trainer's encoder with its checkpoint's absolute path, and its method's configuration beside it.

    Raises ValueError where the run is not a method's, or `name` is a method.
    """
    if encoder.run is None:
        return encoder
    if not is_trainer(name):
        raise UserError(
            f"encoder.run is {encoder.run}, but {name} is a method, which has no other encoder: leave it out"
        )
    source = checkpoint.resolve(encoder.run).resolve()
    method, experiment = config.read(source)
    if is_trainer(method):
        raise UserError(
            f"encoder.run is {encoder.run}, a run of the downstream trainer {method!r}; pass one of a method: "
            f"{', '.join(method_names())}"
        )
    saved = {"name": method, "method": to_dict(method, experiment)["method"], "cameras": seen_by(source)}
    return replace(encoder, run=source, saved=saved)


def _loaded_encoder(encoder: Encoder) -> ClipEncoder | None:
    """A trainer's encoder before the first step: with the run's weights, or of these only what never was trained."""
    bare = bare_encoder(encoder)
    if bare is None:
        return None
    assert encoder.run is not None
    weights = checkpoint.read_weights(encoder.run)
    if encoder.weights == "random":
        frozen = checkpoint.frozen_state(bare.method)
        weights = {
            name: weights.get(name, value) if name in frozen else value
            for name, value in bare.method.state_dict().items()
        }
    bare.method.load_state_dict(weights, strict=True)
    return bare


def frozen_part(method: str, experiment: Experiment[Any]) -> tuple[str, Any, Path | None]:
    """Whose frozen features a run may train on, its configuration, and the checkpoint that has the frozen weights.

    A trainer's are those of its encoder.
    """
    if is_trainer(method):
        encoder = settled(experiment.encoder, method)
        return (*encoder.method(), encoder.run)
    begin = experiment.init_from
    return method, experiment.method, checkpoint.resolve(begin) if begin else None


def _check_cached(name: str, experiment: Experiment[Any]) -> None:
    """Raise ValueError where a trainer cannot read clips as its encoder's cached features."""
    if not experiment.data.cache_features or not is_trainer(name):
        return
    if not getattr(experiment.method, "fixed_clips", False):
        raise UserError(
            f"data.cache_features is on, but clips of {name} are cropped or augmented by chance, or are features "
            "already: leave it out, or train without crops and augmentation"
        )
    if experiment.encoder.run is None:
        return  # the trainer itself refuses that
    _, encoder = experiment.encoder.method()
    for perspective in ("ego", "exo"):
        kept, asked = (s.view_for(perspective) for s in (encoder.sampling(), experiment.sampling()))
        if (kept.size_px, kept.geometry) != (asked.size_px, asked.geometry):
            raise UserError(
                f"data.cache_features keeps frames as the encoder embeds them, {kept.size_px} px with {kept.geometry}, "
                f"but clips of {name} are {asked.size_px} px with {asked.geometry}: leave it out, or set "
                "method.size-px and method.geometry to the encoder's"
            )


def _absolute(data: Data) -> Data:
    """Workers run elsewhere: a relative path would mean another folder there."""
    mix = tuple(replace(source, catalog=source.catalog.resolve()) for source in data.mix)
    return replace(data, catalog=data.catalog.resolve(), root=data.root.resolve() if data.root else None, mix=mix)
