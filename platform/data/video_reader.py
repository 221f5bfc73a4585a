"""One whole recording as a method's input: every frame, in order, decoded once with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.spec import View
from crossview.datasets.video.consecutive import consecutive
from crossview.datasets.video.conversion import CONVERT, Pixels
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.frames import as_unreadable
from crossview.datasets.video.orientation import displayed_size
from crossview.datasets.video.source import Source, Wanted
from crossview.errors import UserError
from crossview.methods.method import Method
from crossview.platform.config import Data
from crossview.platform.data.color import yuv420_to_rgb
from crossview.platform.data.feature_files import read_features

MAX_DECODED_BYTES = 512 * 1024**2
"""Pictures of a pass of a decoder that holds them all."""


def video(source: Source, num_frames: int, view: View, data: Data, frames: int) -> Iterator[Tensor]:
    """The first `num_frames` frames in chunks of `frames`, as the view is evaluated: uint8 (n, 3, H, W).

    Raises UnreadableVideo. PyAV reads a file forward once, the others in passes of MAX_DECODED_BYTES.
    """
    if data.decoder != "pyav":
        passes = _in_passes(source, num_frames, view, data.decoder, frames, data.time_limit_s)
        yield from (in_rgb(pixels, "rgb") for pixels in passes)
        return
    pixels, pictures = data.pixels(view), list[np.ndarray]()
    for count, frame in enumerate(consecutive(source, num_frames, data.time_limit_s), 1):
        with as_unreadable(source.path):
            pictures.append(CONVERT[pixels](frame, view.centred(*displayed_size(frame)), None))
        if len(pictures) == frames or count == num_frames:
            yield in_rgb(np.stack(pictures), pixels)
            pictures = []


def in_rgb(pictures: np.ndarray, pixels: Pixels) -> Tensor:
    """Pictures as `read_clips` gives them: uint8 (n, ...) -> (n, 3, H, W)."""
    stored = torch.from_numpy(np.array(pictures))  # torch wants memory that could be written
    return yuv420_to_rgb(stored) if pixels == "yuv420" else stored.permute(0, 3, 1, 2)


def _in_passes(
    source: Source, num_frames: int, view: View, decoder: str, frames: int, limit_s: float
) -> Iterator[np.ndarray]:
    """uint8 (n, H, W, 3): the file is opened once per pass, which holds many chunks."""
    height, width = displayed_size(next(consecutive(source, 1, limit_s)))
    per_pass = max(frames, MAX_DECODED_BYTES // (height * width * 3) // frames * frames)
    framing = view.centred(height, width)
    for first in range(0, num_frames, per_pass):
        wanted = Wanted(np.arange(first, min(first + per_pass, num_frames)), framing)
        (pixels,) = read_clips(source, [wanted], pixels="rgb", decoder=decoder, time_limit_s=limit_s)
        yield from (pixels[k : k + frames] for k in range(0, len(pixels), frames))


class UnusableFeatures(UserError):  # noqa: N818 - it says what they are
    """The method's frozen features cannot be handed over as they would be cached."""


@torch.inference_mode()
def frozen_parts(model: Method, chunks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Chunks uint8 (n, 3, H, W) as frozen features float16 (1, n, N, D), where the method has some, else (1, n, ...).

    Raises UnusableFeatures where the method cannot give its frozen features as float16.
    """
    for chunk in chunks:
        clip = chunk.unsqueeze(0).to(device)
        try:
            frozen = model.frozen_features(clip)
        except UserError as error:  # they exceed float16, say
            raise UnusableFeatures(str(error)) from error
        yield clip if frozen is None else frozen.to(torch.float16)


def clips(
    model: Method, source: Source, num_frames: int, view: View, data: Data, *, batch: int, device: torch.device
) -> Iterator[Tensor]:
    """`frozen_parts` of all frames in order.

    Chunks of `batch` frames are cut from frame 0 on, so that they do not depend on who computes them.
    """
    return frozen_parts(model, video(source, num_frames, view, data, batch), device)


def whole_input(model: Method, chunks: Callable[[], Iterable[Tensor]], device: torch.device) -> Tensor:
    """What `Method.embed` takes of one recording: frozen features (1, T, N, D), else video (1, T, 3, H, W).

    It is video where the method has no frozen features, or where they cannot be cached. `chunks` gives the frames from
    the first on, anew at each call.
    """
    try:
        return torch.cat(list(frozen_parts(model, chunks(), device)), dim=1)
    except UnusableFeatures:
        return torch.cat(list(chunks())).unsqueeze(0).to(device)


def model_input(
    model: Method, catalog: Catalog, recording: Recording, view: View, data: Data, *, batch: int, device: torch.device
) -> Tensor:
    """`whole_input` of a recording of a catalog; cached features are read."""
    if recording.kind == "features":
        return torch.from_numpy(read_features(catalog.file(recording), recording)).unsqueeze(0).to(device)
    source = catalog.source(recording)
    return whole_input(model, lambda: video(source, recording.num_frames, view, data, batch), device)
