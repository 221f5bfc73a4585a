"""One whole recording as a method's input: every frame, in order, decoded once with bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossview import storage
from crossview.datasets.catalog import Recording
from crossview.datasets.video.decode import UnreadableVideo, decode, on_this_node, sequential, yuv420
from crossview.methods.method import Method
from crossview.methods.recipe import MethodConfig
from crossview.platform.config import Data
from crossview.platform.data.color import yuv420_to_rgb

MAX_DECODED_BYTES = 512 * 1024**2
"""Pictures of a pass of decord, which holds them all."""


def size_px(config: MethodConfig, recording: Recording) -> int:
    """The frame size at which the method was trained on recordings of this perspective."""
    views = list(config.sampling().views.values())
    fitting = [v for v in views if v.perspective in (recording.perspective, "any")] or views
    sizes = {v.size_px for v in fitting}
    if len(sizes) > 1:
        raise ValueError(
            f"recording {recording.id}: the method's {recording.perspective} views have sizes {sorted(sizes)}; "
            "whole recordings are embedded at one size: give these views one size_px"
        )
    return sizes.pop()


def video(file: Path, recording: Recording, size: int, data: Data, frames: int) -> Iterator[Tensor]:
    """All frames in chunks of `frames`, as in training: uint8 (n, 3, H, W); raises UnreadableVideo.

    PyAV reads the file forward once, decord in passes of MAX_DECODED_BYTES; `data.limit_s` says how
    long that may take.
    """
    limit_s = data.limit_s(recording.num_frames)
    if data.decoder == "decord":
        for pixels in _by_decord(file, recording, size, frames, limit_s):
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return
    planes: list[np.ndarray] = []
    count = 0
    for frame, _ in sequential(file, limit_s):
        planes.append(yuv420(frame, (size, size)))
        count += 1
        if len(planes) == frames or count == recording.num_frames:
            yield yuv420_to_rgb(torch.from_numpy(np.stack(planes)))
            planes = []
        if count == recording.num_frames:
            return
    raise UnreadableVideo(f"{file}: a sequential decode finds {count} of the catalog's {recording.num_frames} frames")


def _by_decord(file: Path, recording: Recording, size: int, frames: int, limit_s: float) -> Iterator[np.ndarray]:
    """uint8 (n, H, W, 3): its child process is started once per pass, which holds many chunks."""
    per_pass = max(frames, MAX_DECODED_BYTES // (size * size * 3) // frames * frames)
    for first in range(0, recording.num_frames, per_pass):
        wanted = np.arange(first, min(first + per_pass, recording.num_frames))
        pixels = decode(file, wanted, size_px=size, pixels="rgb", decoder="decord", time_limit_s=limit_s)
        pixels = np.array(pixels)  # torch wants memory that could be written
        yield from (pixels[k : k + frames] for k in range(0, len(pixels), frames))


class UnusableFeatures(ValueError):  # noqa: N818 - it says what they are
    """The method's frozen features cannot be handed over as they would be cached."""


@torch.inference_mode()
def clips(
    model: Method, file: Path, recording: Recording, size: int, data: Data, *, batch: int, device: torch.device
) -> Iterator[Tensor]:
    """All frames in order: frozen features float16 (1, n, N, D) where the method has some, else uint8 (1, n, 3, H, W).

    Chunks of `batch` frames are cut from frame 0 on, so that they do not depend on who computes them. Raises
    UnusableFeatures where the method cannot give its frozen features as float16.
    """
    for chunk in video(file, recording, size, data, batch):
        clip = chunk.unsqueeze(0).to(device)
        try:
            frozen = model.frozen_features(clip)
        except ValueError as error:  # they exceed float16, say
            raise UnusableFeatures(str(error)) from error
        yield clip if frozen is None else frozen.to(torch.float16)


def model_input(
    model: Method, file: Path, recording: Recording, size: int, data: Data, *, batch: int, device: torch.device
) -> Tensor:
    """What `Method.embed` takes: features (1, T, N, D), read where they are cached, or video (1, T, 3, H, W).

    It is video where the method has no frozen features, or its features cannot be cached.
    """
    if recording.kind == "features":
        return read_features(file, recording).unsqueeze(0).to(device)
    try:
        return torch.cat(list(clips(model, file, recording, size, data, batch=batch, device=device)), dim=1)
    except UnusableFeatures:
        return torch.cat(list(video(file, recording, size, data, batch))).unsqueeze(0).to(device)


def read_features(file: Path, recording: Recording) -> Tensor:
    """The float16 (L, N, D) array of a features file; raises UnreadableVideo where it is cut or of another shape."""
    here = on_this_node(file)
    try:
        array = np.load(here, mmap_mode="c", allow_pickle=False)  # "c": torch wants memory that could be written
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableVideo(f"{file}: not a readable array ({error}); delete it to have it rebuilt") from error
    return torch.from_numpy(array.reshape(_checked(file, recording, array.shape, array.dtype)))


def _checked(file: Path, recording: Recording, shape: tuple[int, ...], kind: np.dtype[Any]) -> tuple[int, ...]:
    """The shape as (L, N, D); a file of (L, D) has N = 1."""
    if kind != np.float16 or len(shape) not in (2, 3) or shape[0] != recording.num_frames:
        raise UnreadableVideo(
            f"{file}: {kind} {shape}; features of {recording.id} must be float16 "
            f"({recording.num_frames}, N, D): delete the file to have it rebuilt"
        )
    return shape if len(shape) == 3 else (shape[0], 1, shape[1])


def feature_shape(file: Path, recording: Recording) -> tuple[int, ...]:
    """(L, N, D) of a features file; of a remote one, which cannot be cut, only the head is fetched.

    Raises FileNotFoundError where there is none, and else as `read_features`.
    """
    if storage.is_local(file):
        if not file.exists():
            raise FileNotFoundError(file)
        return tuple(read_features(file, recording).shape)
    head = io.BytesIO(storage.head(file))
    try:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, kind = readers[np.lib.format.read_magic(head)](head)
    except (KeyError, ValueError) as error:
        raise UnreadableVideo(f"{file}: not a readable array ({error}); delete it to have it rebuilt") from error
    return _checked(file, recording, shape, kind)
