"""The clips of a split, for tasks that run a network on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.evaluation_clips import Windows
from crossview.datasets.video.frames import UnreadableVideo
from crossview.platform.evaluate.clip_embeddings import clip_tensor
from crossview.platform.evaluate.opened import OpenRun

BATCH = 64
"""Frames per pass of a frozen part."""


class ClipFiles:
    """`downstream.task.ClipReader` over files, in this process; clips that have been read stay in memory."""

    def __init__(self, run: OpenRun, catalog: Catalog, windows: dict[str, Windows]) -> None:
        self.run, self.catalog, self.windows = run, catalog, windows
        self.recordings = {r.id: r for r in catalog.recordings}
        self.unreadable: set[str] = set()
        """Ids of recordings that could not be read."""
        self._read: dict[tuple[str, int], Tensor] = {}

    def count(self, recording: str) -> int:
        """Clips of the recording with this id."""
        return len(self.windows[recording].frames)

    def read(self, recording: str, clips: Sequence[int]) -> Tensor | None:
        """Clips by number: (K, T, ...) in host memory; None if they cannot be read."""
        missing = [clip for clip in clips if (recording, clip) not in self._read]
        if missing:
            try:
                found = self._decoded(recording, missing)
            except UnreadableVideo:
                self.unreadable.add(recording)
                return None
            self._read |= {(recording, clip): found[k] for k, clip in enumerate(missing)}
        return torch.stack([self._read[recording, clip] for clip in clips])

    def _decoded(self, recording: str, clips: list[int]) -> Tensor:
        facts, frames = self.recordings[recording], self.windows[recording].frames[clips]
        view = self.run.experiment.method.sampling().view_for(facts.perspective)
        data = self.run.experiment.data
        return clip_tensor(self.run.trained, self.catalog, facts, frames, view, data, BATCH, self.run.device).cpu()
