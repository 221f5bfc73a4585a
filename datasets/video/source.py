"""Where the frames of a recording are, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crossview.datasets.video.frames import file_state
from crossview.datasets.video.framing import Framing


@dataclass(frozen=True)
class Source:
    """The file or folder that a recording's frames are in."""

    path: Path
    kind: Literal["video", "frames"] = "video"
    """A video file, or a folder of images."""
    index: Path | None = None
    """The file of its frame index; without one every read is a forward pass from the first frame."""
    first_frame: int = 0
    """Frame 0 of the recording is this frame of the file."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """One clip of a source."""

    frames: np.ndarray
    """int64 (T,), frame numbers of the recording, sorted, repeats allowed."""
    framing: Framing = field(default_factory=Framing)


def frames_in_file(source: Source, wanted: Sequence[Wanted]) -> np.ndarray:
    """Numbers in the file of all frames that are wanted: int64 (n,), sorted and unique."""
    return np.unique(np.concatenate([w.frames for w in wanted])) + source.first_frame


def source_state(source: Source) -> list[Any]:
    """Other values once the source's frames are others, for the names of what is computed from them.

    The state of a folder does not show that an image was written anew; the name of its index does, after cataloguing.
    """
    index = source.index.name if source.index is not None and source.kind == "frames" else ""
    return [source.first_frame, index, *file_state(source.path)]
