"""Frames by number with torchcodec, an optional package that brings torch into the process that reads."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from av.video.frame import VideoFrame

from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.frame_index import FrameIndex, fingerprint
from crossview.datasets.video.frames import Limit, as_unreadable, on_this_node, opened, too_few
from crossview.datasets.video.orientation import orientation
from crossview.datasets.video.placing import placed
from crossview.datasets.video.seeking import current_index
from crossview.datasets.video.source import Source, Wanted, frames_in_file
from crossview.errors import UserError


@dataclass(frozen=True)
class TorchCodec:
    """RGB only. Seeks where the frame index has entry points and reads forward from the first frame otherwise.

    With an index, every frame's time stamp is compared with it, since torchcodec's own scan counts packets, which need
    not be the frames that a decode gives.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    """What decodes; "cuda" is the GPU's own decoder, from which pictures are copied back."""

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`; raises UserError without torchcodec, FFmpeg or the device."""
        if pixels != "rgb":
            raise UserError(f"decoder 'torchcodec' yields 'rgb', not {pixels!r}; take decoder 'pyav'")
        frames = frames_in_file(source, wanted)
        index = current_index(source, frames)
        if _mirrored(source.path, fingerprint(source.path), time_limit_s):
            raise UserError(
                f"{source.path}: decoder 'torchcodec' does not mirror its pictures as the file says; take decoder "
                "'pyav', or make a copy with `crossview prepare`"
            )
        reader = self._opened(source.path)
        return placed(source, wanted, pixels, _pictures(source.path, reader, frames, index, time_limit_s))

    def _opened(self, path: Path) -> Any:
        try:
            from torchcodec.decoders import VideoDecoder
        except ImportError as error:
            raise _missing(str(error)) from error
        if self.device == "cuda" and not sys.modules["torch"].cuda.is_available():  # which torchcodec has imported
            raise UserError("decoder 'torchcodec_cuda' needs a GPU, and torch finds none here; take 'torchcodec'")
        file = str(on_this_node(path).absolute())  # no URL, whatever its name
        try:
            with as_unreadable(path):
                return VideoDecoder(
                    file, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC", device=self.device
                )
        except UserError as error:
            if "libtorchcodec" in str(error):  # its libraries are loaded at first use
                raise UserError(
                    "decoder 'torchcodec' needs FFmpeg's shared libraries (versions 4 to 8), and finds none here; "
                    "install FFmpeg, for example with `apt install ffmpeg`, or take decoder 'pyav'"
                ) from error
            raise


def require() -> None:
    """Raise UserError where torchcodec is not installed; it is not imported."""
    if importlib.util.find_spec("torchcodec") is None:
        raise _missing("it is not installed")


def _missing(why: str) -> UserError:
    return UserError(
        f"decoder 'torchcodec' needs the package torchcodec ({why}); install it with "
        "`pip install 'crossview[torchcodec]'`, or take decoder 'pyav'"
    )


@lru_cache(maxsize=4096)
def _mirrored(path: Path, _fingerprint: str, time_limit_s: float) -> bool:
    with opened(path, time_limit_s) as (container, stream):
        first = next(container.decode(stream), None)
    return first is not None and orientation(first).mirrored


def _pictures(
    path: Path, reader: Any, frames: np.ndarray, index: FrameIndex | None, time_limit_s: float
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames int64 (n,), sorted and unique, with their numbers."""
    if frames[-1] >= len(reader):
        raise too_few(path, int(frames[-1]), len(reader), "torchcodec")
    seeks = index is not None and len(index.entry_frames) > 0
    wanted = set(frames.tolist())
    limit = Limit(path, time_limit_s)
    for number in frames.tolist() if seeks else range(int(frames[-1]) + 1):
        with as_unreadable(path):
            found = reader.get_frame_at(number)
        limit.frame_read()
        if number in wanted:
            _check(path, number, float(found.pts_seconds), index)
            with as_unreadable(path):
                frame = VideoFrame.from_ndarray(found.data.cpu().numpy(), format="rgb24")
            yield number, frame
        limit.resume()


def _check(path: Path, number: int, shown_s: float, index: FrameIndex | None) -> None:
    if index is None:
        return
    expected_s = float(index.pts[number] * index.time_base)
    if abs(shown_s - expected_s) > 0.5 * float(index.time_base):
        raise UserError(
            f"{path}: decoder 'torchcodec' returns a wrong frame here (frame {number} from {shown_s:g} s, but it is at "
            f"{expected_s:g} s); take decoder 'pyav', or make a copy with `crossview prepare`"
        )
