"""Exact frames from video files: frame k is the k-th frame, in presentation order, of a sequential decode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from crossview import storage
from crossview.datasets.video.child import call, lent
from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.decord_decoder import Decord
from crossview.datasets.video.frames import TIME_LIMIT_S
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.image_folder import ImageFolder
from crossview.datasets.video.indexing import VideoInfo, scan
from crossview.datasets.video.pyav_decoder import PyAV
from crossview.datasets.video.source import Source, Wanted
from crossview.datasets.video.torchcodec_decoder import TorchCodec, require
from crossview.errors import UserError


def probe(path: Path, *, time_limit_s: float = TIME_LIMIT_S) -> VideoInfo:
    """Decode the whole file once, without keeping pixels, and count its frames; raises UnreadableVideo."""
    return scan(path, time_limit_s=time_limit_s)[0]


def decode(
    path: Path | str,
    frames: np.ndarray,
    *,
    size_px: int | None = None,
    pixels: Pixels = "rgb",
    decoder: str = "pyav",
    time_limit_s: float = TIME_LIMIT_S,
) -> np.ndarray:
    """`read_clips` of one clip of a file without an index: int64 (n,), sorted and unique -> uint8 (n, ...).

    size_px None keeps the displayed size (cut to even for "yuv420"), else frames are resized to size_px x size_px
    whatever their aspect.
    """
    frames = np.asarray(frames, dtype=np.int64)
    if frames.ndim != 1 or not len(frames) or frames[0] < 0 or bool(np.any(np.diff(frames) <= 0)):
        raise UserError(f"{path}: frames are {frames}; they must be one or more sorted unique indices from 0")
    if size_px is not None and pixels == "yuv420" and size_px % 2:
        raise UserError(f"{path}: size_px is {size_px}; it must be even for yuv420 (4:2:0 chroma)")
    clip = Wanted(frames, Framing(size=None if size_px is None else (size_px, size_px)))
    source = Source(storage.as_path(path))
    return read_clips(source, [clip], pixels=pixels, decoder=decoder, time_limit_s=time_limit_s)[0]


def read_clips(
    source: Source,
    wanted: Sequence[Wanted],
    *,
    pixels: Pixels = "rgb",
    decoder: str = "pyav",
    time_limit_s: float = TIME_LIMIT_S,
    into: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Clips of one source, which a child process opens once and reads forward, over what no clip needs by seeking.

    Returns uint8 per clip: "rgb" (T, H, W, 3); "yuv420" (T, H * 3 // 2, W), planar I420, always BT.601 limited range;
    `into` has arrays of these shapes that are filled and returned, at the cost of one copy less.
    Raises UnreadableVideo if the source is damaged, has too few frames, or reading takes longer than `time_limit_s`
    for each 1800 frames that have to be decoded, and whatever the decoder raises, or if it crashes or hangs.
    """
    if decoder not in DECODERS:
        raise UserError(f"decoder is {decoder!r}; choose from {', '.join(DECODERS)}")
    files = [source.path] if source.kind == "video" else []
    files += [source.index] if source.index else []
    if into is None:
        return call(source.path, files, time_limit_s, _read, source, wanted, pixels, decoder, time_limit_s)
    with lent(source.path, files, time_limit_s, _read, source, wanted, pixels, decoder, time_limit_s) as clips:
        for place, clip in zip(into, clips, strict=True):
            place[:] = clip
    return list(into)


def _read(
    source: Source, wanted: Sequence[Wanted], pixels: Pixels, decoder: str, time_limit_s: float
) -> list[np.ndarray]:
    chosen = ImageFolder() if source.kind == "frames" else DECODERS[decoder]
    return chosen.read(source, wanted, pixels=pixels, time_limit_s=time_limit_s)


def check_decoder(decoder: str) -> None:
    """Raise UserError where the package of a decoder is not installed."""
    if isinstance(DECODERS[decoder], TorchCodec):
        require()


class Decoder(Protocol):
    """One way to read frames."""

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`."""


DECODERS: dict[str, Decoder] = {
    "pyav": PyAV(),
    "decord": Decord(),
    "torchcodec": TorchCodec(),
    "torchcodec_cuda": TorchCodec("cuda"),
}
