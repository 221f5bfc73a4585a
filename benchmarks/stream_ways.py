"""Ways from video files to clips: the field's habits, written fresh, Crossview in one process, and the limit.

Each takes a plan and a number of its rows, and gives every clip of them once.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from crossview.datasets.sampling.plan import Clip, Plan
from crossview.platform.config import Data
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.data.row_decoder import RowDecoder

WORKERS = 2
"""Of the peers' DataLoaders, and decode actors of Ray Data."""
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Request:
    """One clip."""

    path: Path
    frames: np.ndarray
    size_px: int


def requests(plan: Plan, row: int) -> list[Request]:
    """The clips of a row, window by window."""
    found: list[Clip] = [clip for clips in plan.row(row).clips for clip in clips if clip is not None]
    return [
        Request(
            plan.catalog.file(plan.catalog.recordings[clip.recording]),
            clip.frames,
            plan.sampling.views[clip.view].size_px,
        )
        for clip in found
    ]


def decord_clip(request: Request) -> torch.Tensor:
    """As in VideoMAE's data set: a reader opened for this clip, a seek, pictures resized with PIL, float RGB.

    float32 (3, T, H, W), normalised.
    """
    import decord

    reader = decord.VideoReader(str(request.path), num_threads=1)
    reader.seek(0)
    pictures = reader.get_batch(list(request.frames)).asnumpy()
    size = request.size_px, request.size_px
    resized = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BILINEAR)) for p in pictures]
    video = torch.from_numpy(np.stack(resized)).float().div(255).sub(MEAN).div(STD)
    return video.permute(3, 0, 1, 2)


def torchcodec_clip(request: Request) -> torch.Tensor:
    """A decoder opened for this clip, exact seeking, resized in torch: uint8 (T, 3, H, W)."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(request.path), num_ffmpeg_threads=1, seek_mode="exact")
    pictures = decoder.get_frames_at(indices=request.frames.tolist()).data
    size = (request.size_px, request.size_px)
    return torch.nn.functional.interpolate(pictures, size, mode="bilinear", antialias=True)


class Rows(Dataset[list[torch.Tensor]]):
    """Rows of the plan, read clip by clip."""

    def __init__(self, plan: Plan, rows: int, read: Callable[[Request], torch.Tensor]) -> None:
        self.plan, self.rows, self.read = plan, rows, read

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> list[torch.Tensor]:
        return [self.read(request) for request in requests(self.plan, row)]


def data_loader(read: Callable[[Request], torch.Tensor], plan: Plan, rows: int) -> Iterator[int]:
    """Clips of each row, through torch's DataLoader."""
    yield from map(len, DataLoader(Rows(plan, rows, read), batch_size=None, num_workers=WORKERS))


def rows_decoded(plan: Plan, rows: int) -> Iterator[int]:
    """What a decode actor of Crossview does: rows of YUV planes at the method's size."""
    decoder = RowDecoder(plan, Data(catalog=plan.catalog.root), shard(rows))
    for row in range(rows):
        decoder.decode(np.array([row]))
        yield len(requests(plan, row))


def in_process(plan: Plan, rows: int) -> Iterator[int]:
    """Crossview without Ray: decoding in a thread, RGB at the consumer."""
    data = Data(catalog=plan.catalog.root)
    with Stream(plan, data, shard(rows), device=torch.device("cpu"), run_dir=None, in_process=True) as stream:
        for row, _ in enumerate(stream):
            yield len(requests(plan, row))


def shard(rows: int, batch: int = 1) -> Shard:
    """So many rows in batches."""
    return Shard(start_step=0, stop_step=rows // batch, batch=batch, micro_batch=batch)


def limit(plan: Plan, rows: int) -> Iterator[int]:
    """The limit: decode the groups of pictures that hold the frames asked for, once per row, and do nothing else."""
    for row in range(rows):
        wanted = requests(plan, row)
        for path in sorted({request.path for request in wanted}):
            asked = np.unique(np.concatenate([request.frames for request in wanted if request.path == path]))
            decode_groups(path, asked)
        yield len(wanted)


def decode_groups(path: Path, frames: np.ndarray) -> None:
    """Decode each group of pictures from its key frame up to the last of `frames` in it; seek over those between."""
    keys, times = entry_points(path)
    spans: list[tuple[int, int, int]] = []  # first group, last group, last frame
    for frame in frames.tolist():
        group = bisect_right(keys, frame) - 1
        if spans and group <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], group, frame)
        else:
            spans.append((group, group, frame))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for first, _, frame in spans:
            if first > 0:
                container.seek(times[keys[first]], stream=stream)
            until = times[frame]
            for packet in container.demux(stream):
                if any((picture.pts or 0) >= until for picture in stream.decode(packet)):
                    break


@cache
def entry_points(path: Path) -> tuple[list[int], list[int]]:
    """Frame numbers of the key frames, and every frame's time stamp; from the packets, before anything is measured."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.pts is not None]
    times = sorted(int(p.pts) for p in packets if p.pts is not None)
    keys = sorted(int(p.pts) for p in packets if p.is_keyframe and p.pts is not None)
    number = {pts: k for k, pts in enumerate(times)}
    return [number[pts] for pts in keys], times


def has_torchcodec() -> bool:
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        import torchcodec.decoders  # noqa: F401

        return True
    return False
