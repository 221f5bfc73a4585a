"""Frames by number with PyAV."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.placing import placed
from crossview.datasets.video.seeking import numbered
from crossview.datasets.video.source import Source, Wanted, frames_in_file


class PyAV:
    """One thread; decodes from the nearest entry point of the frame index, or forward from the first frame without one.

    It decodes up to the last frame asked for and converts only the frames asked for.
    """

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`."""
        return placed(source, wanted, pixels, numbered(source, frames_in_file(source, wanted), time_limit_s))
