"""Cataloguing on a cluster: a pool of Ray actors, each of which reads one file at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from crossview.datasets.catalog import Quarantined
from crossview.datasets.catalog.probing import Attempt, Outcome, Spread
from crossview.datasets.video.indexing import VideoInfo

if TYPE_CHECKING:
    from crossview.platform.cluster.map_recordings import Arrays


def on_ray(actors: int) -> Spread:
    """Reads files on so many CPUs of the cluster, whose nodes all see them and the catalog's folder."""

    def spread(attempt: Attempt, files: Sequence[str]) -> Iterator[tuple[int, Outcome]]:
        # Here, since it imports torch, which a command that only asks for help does not need.
        from crossview.platform.cluster.map_recordings import Where, each

        for done in each(len(files), _Reader, {"attempt": attempt, "files": list(files)}, Where(actors=actors)):
            facts = json.loads(done.arrays["outcome"].tobytes())
            yield done.index, VideoInfo(**facts) if "num_frames" in facts else Quarantined(**facts)

    return spread


class _Reader:
    """Reads one file per call."""

    def __init__(self, attempt: Attempt, files: list[str]) -> None:
        self.attempt, self.files = attempt, files

    def __call__(self, index: int) -> Arrays:
        said = json.dumps(asdict(self.attempt(self.files[index])))
        return {"outcome": np.frombuffer(said.encode(), np.uint8)}
