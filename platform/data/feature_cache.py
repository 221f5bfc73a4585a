"""A method's frozen features, computed once per recording and read as memory-mapped arrays from then on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossview import storage
from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.geometry import SQUASH, Geometry
from crossview.datasets.video.frames import UnreadableVideo
from crossview.datasets.video.source import Source, source_state
from crossview.errors import UserError
from crossview.methods.method import Method, build
from crossview.methods.recipe import MethodConfig
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Arrays, Where, Work, each
from crossview.platform.config import Data
from crossview.platform.data.feature_files import feature_shape
from crossview.platform.data.unreadable import Quarantine
from crossview.platform.data.video_reader import clips
from crossview.platform.progress import Progress


def cache(
    method_name: str,
    method_config: MethodConfig,
    catalog: Catalog,
    out: Path,
    *,
    in_process: bool = False,
    actors: int = 1,
    batch: int = 64,
    device: str = "cpu",
    data: Data | None = None,
    seed: int = 0,
    weights: Path | None = None,
    model: Method | None = None,
) -> Catalog:
    """The catalog of the method's frozen features, with the same ids, labels, protocols and classes.

    Only what is missing is computed; all protocols and splits share the files.

    Files are float16 (L, N, D) in `out/<key>`, where the key is a hash of the method, what of its config decides the
    features, the frozen weights themselves, frame sizes and decoder; a file's name holds its video's size and time. So
    nothing stale is ever read, and catalogs that overlap share files. A cut file is rebuilt. Unreadable videos are
    quarantined in that folder and left out. Raises ValueError above `data.max_quarantined`, and for a method without
    frozen features. Actors must see `out` under the same path. Frozen parts come from the checkpoint `weights`,
    else from the config; this process uses `model`, where it has them built already.
    """
    data = data or Data(catalog=out)
    nothing = Catalog(catalog.root, (), folder=catalog.folder)
    job = _Job(method_name, method_config, nothing, [], data, batch, seed, weights)
    folder = out.resolve() / _key(method_name, method_config, model or job.model(torch.device("cpu")), data)
    storage.make_folder(folder)
    kept = [replace(r, kind="features", path=_file_name(catalog.source(r), r)) for r in catalog.recordings]
    missing = [i for i, r in enumerate(kept) if not is_complete(folder / r.path, r)]
    if missing:
        todo = replace(nothing, recordings=tuple(catalog.recordings[i] for i in missing))
        files = [folder / kept[i].path for i in missing]
        options = {"job": replace(job, todo=todo, files=files), "device": device}
        if in_process and model is not None:
            options["model"] = model
        lost = compute(todo, _Writer, options, folder, len(kept), data, Where(in_process, actors, device))
        kept = [r for r in kept if r.id not in lost]
    _check_shapes(folder, kept)
    ids = {r.id for r in kept}
    features = replace(catalog.keep(lambda r: r.id in ids), root=folder, recordings=tuple(kept))
    features.save(folder / f"catalog-{_hash([[r.path for r in kept], features.protocols])[:12]}")
    return features


@dataclass(frozen=True)
class _Job:
    """What every process needs in order to compute the same features."""

    name: str
    config: MethodConfig
    todo: Catalog
    files: list[Path]
    """Where the features of each of `todo`'s recordings belong."""
    data: Data
    batch: int
    seed: int
    weights: Path | None

    def model(self, device: torch.device) -> Method:
        """The method whose frozen features are computed, in eval mode."""
        if self.weights is not None:
            return checkpoint.load(self.weights, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build(self.name, self.config).to(device).eval()


def compute(
    todo: Catalog, make: Callable[..., Work], options: dict[str, Any], out: Path, total: int, data: Data, where: Where
) -> set[str]:
    """Do the work for every recording of `todo`; returns the ids of unreadable ones, which are quarantined in `out`.

    Raises ValueError where more than `data.max_quarantined` of `total` recordings are.
    """
    quarantine = Quarantine(out, total, data.max_quarantined)
    quarantine.files = {}  # what failed before is tried again: the file may have been fixed
    lost: set[str] = set()
    with Progress("frozen features", sum(r.num_frames for r in todo.recordings), "frames") as line:
        for done in each(len(todo.recordings), make, options, where):
            recording = todo.recordings[done.index]
            if done.unreadable is not None:
                lost.add(recording.id)
                report = {"recording": recording.id, "path": str(todo.file(recording)), "reason": done.unreadable}
                quarantine.add([json.dumps([report])])
            line.advance(recording.num_frames, f"{len(lost)} files quarantined" if lost else "")
    return lost


class _Writer:
    """Computes and writes one recording's features."""

    def __init__(self, job: _Job, device: str, model: Method | None = None) -> None:
        self.job, self.device = job, torch.device(device)
        self.model = model or job.model(self.device)

    def __call__(self, index: int) -> Arrays:
        job, recording = self.job, self.job.todo.recordings[index]
        source, view = job.todo.file(recording), job.config.sampling().view_for(recording.perspective)
        where, count = job.todo.source(recording), recording.num_frames
        parts = clips(self.model, where, count, view, job.data, batch=job.batch, device=self.device)
        write_file(job.files[index], recording, source, (self._checked(part) for part in parts))
        return {}

    def _checked(self, clip: Tensor) -> Tensor:
        if clip.dtype != torch.float16:
            raise UserError(
                f"data.cache_features is on, but {self.job.name} has no frozen features to cache; "
                "pass --data.no-cache-features"
            )
        return clip


def write_file(target: Path, recording: Recording, source: Path, parts: Iterable[Tensor]) -> None:
    """Features of a whole recording, in parts float16 (1, n, N, D), as one array (L, N, D); whole or not at all.

    Raises UnreadableVideo where they are not as many as the recording has frames.
    """
    storage.write(target, lambda partial: _write_parts(partial, recording, source, parts), once=True)


def _write_parts(file: Path, recording: Recording, source: Path, parts: Iterable[Tensor]) -> None:
    array: np.memmap[Any, Any] | None = None
    first = 0
    for clip in parts:
        part = clip[0].cpu().numpy()  # (n, N, D)
        if array is None:
            shape = (recording.num_frames, *part.shape[1:])
            array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        array[first : first + len(part)] = part
        first += len(part)
    if array is None or first != recording.num_frames:
        raise UnreadableVideo(f"{source}: {first} frames came of the {recording.num_frames} that the catalog states")
    array.flush()
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _key(name: str, config: MethodConfig, model: Method, data: Data) -> str:
    """Hash of what decides the features apart from the videos; the folder's name."""
    part = config.features_key() if hasattr(config, "features_key") else config
    views = {n: v.evaluated() for n, v in config.sampling().views.items()}
    sizes = {n: (v.perspective, v.size_px, *_shape(v.geometry)) for n, v in views.items()}
    return f"{name}-{_hash([_plain(part), sizes, data.decoder, _frozen_fingerprint(model)])[:16]}"


def _shape(geometry: Geometry) -> list[dict[str, Any]]:
    """What `_key` holds of it: nothing where frames are squashed, as all were once."""
    return [] if geometry == SQUASH else [asdict(geometry)]


def _frozen_fingerprint(model: Method) -> str:
    """Hash of the frozen parameters, and of buffers beside no trained one: a file's weights may change."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(checkpoint.frozen_state(model).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=20).hexdigest()


def _file_name(source: Source, recording: Recording) -> str:
    """Readable, and different once the video is another."""
    tail = _hash([recording.id, recording.num_frames, *source_state(source)])[:10]
    return f"{recording.file_stem}-{tail}.npy"


def is_complete(file: Path, recording: Recording) -> bool:
    """Whether a file of the recording's features is there and whole; a cut one is removed."""
    try:
        feature_shape(file, recording)
    except FileNotFoundError:
        return False
    except UnreadableVideo:
        file.unlink()
        return False
    return True


def _check_shapes(folder: Path, recordings: list[Recording]) -> None:
    """One (N, D) per folder, as the stream needs."""
    shapes = {feature_shape(folder / r.path, r)[1:]: r.id for r in recordings}
    if len(shapes) > 1:
        raise UserError(
            f"{folder}: features of different shapes per frame, {shapes}; give the views one size_px, or train on video"
        )
