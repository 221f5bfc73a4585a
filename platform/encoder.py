"""A trained run as an encoder of files and frames: `crossview.load`. Needs neither Ray nor the training data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from crossview import storage
from crossview.datasets.catalog import Perspective
from crossview.datasets.sampling.spec import View
from crossview.datasets.video.conversion import of_rgb
from crossview.datasets.video.decode import probe
from crossview.datasets.video.image_listing import is_image_folder, listing
from crossview.datasets.video.source import Source
from crossview.errors import UserError
from crossview.methods.method import Method
from crossview.platform import checkpoint as checkpoints
from crossview.platform.config import Data, read
from crossview.platform.data.video_reader import in_rgb, video, whole_input

BATCH = 64
"""Frames per pass of a frozen part, as `crossview embed` computes them."""


class Encoder:
    """A checkpoint of a run, in eval mode; `embed` computes what `crossview embed` writes."""

    def __init__(self, source: Path, device: torch.device) -> None:
        self.name, self.experiment = read(source)
        self.device = device
        self.model: Method = checkpoints.load(source, device)

    def size_px(self, perspective: Perspective) -> int:
        """The frame size at which recordings of this perspective are embedded."""
        return self.experiment.method.sampling().view_for(perspective).size_px

    @torch.inference_mode()
    def embed(self, source: str | Path | Tensor | np.ndarray, perspective: Perspective = "exo") -> Tensor:
        """Frame embeddings, float32 on the CPU: (T, D) of a video or of frames uint8 (T, 3, H, W).

        A batch (B, T, 3, H, W) gives (B, T, D). Frames of another size than the run's are resized as decoded ones are;
        those of its size are taken as they are. A video is a file or a folder of images, which may be followed by a
        pattern for their names, such as ``take_1/*_rgb.jpg``. Raises UnreadableVideo for a video, and ValueError for
        other shapes. `perspective` chooses the frame size where a method has one for each.
        """
        view, data = self.experiment.method.sampling().view_for(perspective), self.experiment.data
        if isinstance(source, str | Path):
            return self._embedded(partial(_of_file, storage.as_path(source), view, data))
        frames = torch.as_tensor(source)
        if frames.dtype != torch.uint8 or frames.ndim not in (4, 5) or frames.shape[-3] != 3 or 0 in frames.shape:
            raise UserError(
                f"frames are {frames.dtype} of shape {tuple(frames.shape)}; give uint8 (T, 3, H, W), or (B, T, 3, H, W)"
            )
        if frames.ndim == 4:
            return self._embedded(partial(_of_frames, frames, view, data))
        return torch.stack([self._embedded(partial(_of_frames, one, view, data)) for one in frames])

    def _embedded(self, chunks: Any) -> Tensor:
        return self.model.embed(whole_input(self.model, chunks, self.device))[0].float().cpu()


def load(
    run: str | Path, device: str | torch.device = "cpu", *, checkpoint: Literal["latest", "best"] | int = "latest"
) -> Encoder:
    """The encoder of a run or checkpoint folder, local or a URI; of a run the latest checkpoint, the best, or a step's.

    Raises ValueError where there is none.
    """
    return Encoder(checkpoints.resolve(storage.as_path(run), str(checkpoint)), torch.device(device))


def _of_file(file: Path, view: View, data: Data) -> Iterable[Tensor]:
    """All frames of a video file, which is decoded once to count them, or of a folder of images, in chunks."""
    if is_image_folder(file):
        return video(Source(file, "frames"), len(listing(file).names), view, data, BATCH)
    return video(Source(file), probe(file).num_frames, view, data, BATCH)


def _of_frames(frames: Tensor, view: View, data: Data) -> Iterable[Tensor]:
    """Frames (T, 3, H, W) as the view is evaluated, in chunks."""
    framing, pixels = view.centred(*frames.shape[-2:]), data.pixels(view)
    for chunk in frames.cpu().split(BATCH):
        if chunk.shape[-2:] == (view.size_px, view.size_px):
            yield chunk
        else:
            pictures = [of_rgb(picture.permute(1, 2, 0).numpy(), framing, pixels) for picture in chunk]
            yield in_rgb(np.stack(pictures), pixels)
