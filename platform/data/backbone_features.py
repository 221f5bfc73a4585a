"""A catalog of a backbone's frame features, made from one of videos: what methods train on whose input is features."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from torch import Tensor

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.spec import View
from crossview.errors import UserError
from crossview.methods.backbone import Pooled
from crossview.methods.base_config import Base
from crossview.platform.cluster.map_recordings import Arrays, Where
from crossview.platform.config import Data
from crossview.platform.data.feature_cache import compute, is_complete, write_file
from crossview.platform.data.video_reader import video
from crossview.platform.run_folder import write_json


def backbone(name: str, weights: str = "hub", size_px: int | None = None, chunk: int = 64) -> Base:
    """Any timm model by name with the frame size and colours that its weights were trained with."""
    if not timm.is_model(name):
        raise UserError(f"timm:{name}: timm has no such model; see timm.list_models()")
    facts = timm.get_pretrained_cfg(name)
    if facts is None:
        return Base(model=name, weights=weights, size_px=size_px or 224, chunk=chunk)
    mean, std = (tuple(float(v) for v in values) for values in (facts.mean, facts.std))
    size = size_px or facts.input_size[-1]
    return Base(model=name, weights=weights, size_px=size, mean=mean, std=std, chunk=chunk)  # type: ignore[arg-type]


def write_features(base: Base, catalog: Catalog, out: Path, where: Where, data: Data) -> Catalog:
    """The pooled features of every frame as float16 (L, 1, D) files in `out/files`, and their catalog in `out`.

    Ids, labels, protocols and classes stay. Complete files are kept, so an interrupted command can be resumed; a folder
    holds one backbone. Unreadable videos are quarantined in `out` and left out; raises ValueError above
    `data.max_quarantined`.
    """
    _claim(out, base)
    files = out / "files"
    kept = [replace(r, kind="features", path=f"files/{r.file_stem}.npy") for r in catalog.recordings]
    missing = [i for i, r in enumerate(kept) if not is_complete(out / r.path, r)]
    todo = replace(catalog, recordings=tuple(catalog.recordings[i] for i in missing))
    storage.make_folder(files)
    job = _Job(base, todo, [out / kept[i].path for i in missing], data, where.device)
    lost = compute(todo, _Writer, {"job": job}, out, len(kept), data, where) if missing else set()
    found = replace(catalog, root=out.resolve(), recordings=tuple(kept)).keep(lambda r: r.id not in lost)
    found.save(out)
    return found


def _claim(out: Path, base: Base) -> None:
    """Mark the folder as this backbone's; raises ValueError where it holds another's features."""
    file = out / "backbone.json"
    mine = {k: v for k, v in json.loads(json.dumps(vars(base))).items() if k != "chunk"}
    if (
        file.exists()
        and (theirs := storage.read_json(file, "name another folder with --out, or remove this one")) != mine
    ):
        option = next(k for k in mine if theirs.get(k) != mine[k])
        raise UserError(
            f"{out}: it holds features made with {option}={theirs.get(option)}, asked for is {mine[option]}; a folder "
            "holds one backbone: name another with --out, or remove this one"
        )
    storage.make_folder(out)
    write_json(file, mine)


@dataclass(frozen=True)
class _Job:
    """What every process needs in order to compute the same features."""

    base: Base
    todo: Catalog
    files: list[Path]
    """Where the features of each of `todo`'s recordings belong."""
    data: Data
    device: str


class _Writer:
    """Computes and writes one recording's features."""

    def __init__(self, job: _Job) -> None:
        self.job, self.device = job, torch.device(job.device)
        self.model = Pooled(job.base).to(self.device)

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.todo.recordings[index]
        source = job.todo.file(recording)
        view = View(perspective="any", frames=1, size_px=job.base.size_px, geometry=SQUASH)
        chunks = video(job.todo.source(recording), recording.num_frames, view, job.data, job.base.chunk)
        write_file(job.files[index], recording, source, (self._features(chunk) for chunk in chunks))
        return {}

    def _features(self, frames: Tensor) -> Tensor:
        """uint8 (n, 3, H, W) -> float16 (1, n, 1, D)."""
        features: Tensor = self.model(frames[None].to(self.device)).half()
        if not features.isfinite().all():
            raise UserError(f"timm:{self.job.base.model}: features exceed float16 or are not finite; take another")
        return features
