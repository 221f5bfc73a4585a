"""What decord and torchcodec have to do alike: nearly the pictures of a sequential decode, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seek_videos
import videos

from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.indexing import scan
from crossview.datasets.video.source import Source, Wanted
from crossview.errors import UserError


def indexed(folder: Path, **changes: np.ndarray) -> Source:
    """A file of 60 frames with its index, or with one that says otherwise."""
    file = videos.write(folder / "x.mp4", frames=60)
    index = replace(scan(file, time_limit_s=60.0)[1], **changes)  # type: ignore[arg-type]
    index.write(folder / "x.npz")
    return Source(file, index=folder / "x.npz")


def check_kind(decoder: str, kind: str, folder: Path, refusal: str | None, apart: float, *, unindexed: bool) -> None:
    """Mean difference of each picture of a kind of `seek_videos` below `apart`, or UserError with `refusal`."""
    file = seek_videos.KINDS[kind](folder)
    index = scan(file, time_limit_s=60.0)[1]
    index.write(folder / "x.npz")
    wanted = [Wanted(np.unique(np.linspace(0, len(index.pts) - 1, n).astype(int))) for n in (3, 7)]
    for source in (Source(file, index=folder / "x.npz"), *([Source(file)] if unindexed else [])):
        if refusal is not None:
            with pytest.raises(UserError, match=refusal):
                read_clips(source, wanted, decoder=decoder)
            continue
        found = read_clips(source, wanted, decoder=decoder)
        for clip, expected in zip(found, read_clips(Source(file), wanted), strict=True):
            assert np.abs(clip.astype(int) - expected).mean(axis=(1, 2, 3)).max() < apart


def check_framings(decoder: str, folder: Path) -> None:
    """Clips of several lengths and framings, of a recording that begins within its file."""
    source = replace(indexed(folder), first_frame=10)
    wanted = [
        Wanted(np.array([0, 30, 30, 41])),
        Wanted(np.array([5, 49]), Framing(size=(32, 48))),
        Wanted(np.array([5, 7]), Framing(size=(64, 48))),
    ]
    found = read_clips(source, wanted, decoder=decoder)
    for clip, expected, w in zip(found, read_clips(source, wanted), wanted, strict=True):
        assert [videos.barcode(picture) for picture in clip] == (w.frames + 10).tolist()
        assert clip.shape == expected.shape
        assert np.abs(clip.astype(int) - expected).mean() < 3  # chroma is scaled before or after the conversion
