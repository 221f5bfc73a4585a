"""What a frozen encoder embeds of each recording of a plan: steps of features, or clips."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossview.datasets.sampling.plan import Clip, Plan
from crossview.datasets.sampling.sequence_plan import SequencePlan, Stretch
from crossview.datasets.video.frames import UnreadableVideo
from crossview.downstream.trainer import Trainer
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.embedding_files import clip_key
from crossview.platform.data.feature_files import read_features
from crossview.platform.data.row_decoder import RowDecoder
from crossview.platform.data.video_reader import in_rgb

STEPS, CLIPS = 256, 16
"""Steps, or clips, that are embedded at once; bounds memory."""
Stretches = dict[int, list[Stretch]]
"""By recording."""


@dataclass(frozen=True)
class Part:
    """Some of a recording's steps or clips."""

    places: np.ndarray
    """int64 (m,), among the recording's keys."""
    first_frames: np.ndarray
    """int64 (m,)."""
    frames: Tensor
    """Of steps (m, n, D), of clips (m, T, ...)."""


class Inputs(ABC):
    """What is embedded of each recording of a plan."""

    noun: str
    facts: dict[str, Any]
    """What decides them, as JSON keeps it."""
    recordings: list[int]
    """Indices into the catalog's recordings."""

    @abstractmethod
    def count(self, recording: int) -> int:
        """How many a recording has, for the progress line."""

    @abstractmethod
    def keys(self, recording: int) -> np.ndarray:
        """Each once and in order, as `embedding_files` has them."""

    @abstractmethod
    def parts(self, recording: int) -> Iterator[Part | UnreadableVideo]:
        """All of a recording that can be read, and why the rest cannot, which is raised where that is all of it."""

    @abstractmethod
    def embed(self, model: Trainer, frames: Tensor) -> Tensor:
        """A part's frames -> (m, D)."""


class Steps(Inputs):
    """Steps that stretches of a plan's recordings are cut into."""

    noun = "steps"

    def __init__(self, plan: SequencePlan, stretches: Stretches) -> None:
        self._catalog, self._stretches = plan.catalog, stretches
        self.recordings = sorted(stretches)
        spec = plan.spec
        self.facts = {"chunk": spec.chunk, "chunk_range": spec.chunk_range and list(spec.chunk_range)}

    def count(self, recording: int) -> int:
        """Of all its stretches."""
        return len(self.keys(recording))

    def keys(self, recording: int) -> np.ndarray:
        """First frame and number of frames: int64 (K, 2)."""
        return steps_of(self._stretches[recording])

    def parts(self, recording: int) -> Iterator[Part]:
        """Steps of one number of frames each, (m, n, D)."""
        facts, steps = self._catalog.recordings[recording], self.keys(recording)
        array = read_features(self._catalog.file(facts), facts)
        flat = array.reshape(len(array), -1)
        for size in np.unique(steps[:, 1]).tolist():
            rows = np.flatnonzero(steps[:, 1] == size)
            for some in np.array_split(rows, -(-len(rows) // STEPS)):
                frames = flat[steps[some, :1] + np.arange(size)]  # (m, n, D)
                yield Part(some, steps[some, 0], torch.from_numpy(frames).float())

    def embed(self, model: Trainer, frames: Tensor) -> Tensor:
        """Each as one clip."""
        return model.embed_steps(frames)


class Clips(Inputs):
    """Clips of a plan whose units have only so many."""

    noun = "clips"

    def __init__(self, plan: Plan, data: Data) -> None:
        self._plan, self._data = plan, data
        self._units = np.bincount(plan.units.recordings)
        self.recordings = sorted(plan.drawn)
        (view,) = plan.sampling.views.values()
        facts = {"view": asdict(view), "windows": plan.sampling.windows, "draws": plan.sampling.draws}
        self.facts = json.loads(json.dumps(facts | {"seed": plan.seed}))

    def count(self, recording: int) -> int:
        """Equal ones too."""
        rows = self._plan.sampling.rows_per_unit
        assert rows is not None
        return int(self._units[recording]) * rows * self._plan.sampling.windows

    def keys(self, recording: int) -> np.ndarray:
        """int64 (K,)."""
        return np.array(sorted(self._by_key(recording)))

    def _by_key(self, recording: int) -> dict[int, Clip]:
        return {clip_key(clip): clip for clip in self._plan.clips_of(recording)}

    def parts(self, recording: int) -> Iterator[Part | UnreadableVideo]:
        """Clips that are near to each other, so that the file is read forward."""
        clips = [clip for _, clip in sorted(self._by_key(recording).items())]
        order = sorted(range(len(clips)), key=lambda place: clips[place].frames[0])
        for first in range(0, len(order), CLIPS):
            yield from self._parts(recording, clips, order[first : first + CLIPS])

    def _parts(self, recording: int, clips: list[Clip], places: list[int]) -> Iterator[Part | UnreadableVideo]:
        """Together, or where that fails each by itself: what does not reach the damage is read, as in training."""
        try:
            yield self._part(recording, clips, places)
        except UnreadableVideo as error:
            failed = len(places) == 1
            for place in [] if failed else places:
                try:
                    yield self._part(recording, clips, [place])
                except UnreadableVideo:
                    failed = True
            if failed:
                yield error

    def _part(self, recording: int, clips: list[Clip], places: list[int]) -> Part:
        (slot,) = self._decoder.slots
        wanted = [clips[place] for place in places]
        stored = np.zeros((len(places), *slot.shape), slot.dtype)
        self._decoder.read(recording, wanted, list(stored))
        shown = torch.from_numpy(stored)
        if shown.dtype == torch.uint8:
            shown = in_rgb(stored.reshape(-1, *stored.shape[2:]), self._decoder.pixels).unflatten(0, stored.shape[:2])
        return Part(np.array(places), np.array([clip.frames[0] for clip in wanted]), shown)

    @cached_property
    def _decoder(self) -> RowDecoder:
        return RowDecoder(self._plan, self._data, Shard(start_step=0, stop_step=0, batch=1, micro_batch=1))

    def embed(self, model: Trainer, frames: Tensor) -> Tensor:
        """As the model does in training."""
        assert model.encoder is not None
        return model.encoder(frames)


def steps_of(stretches: list[Stretch]) -> np.ndarray:
    """First frame and number of frames of every step, each once and in order: int64 (K, 2)."""
    return np.unique(np.concatenate([stretch.steps() for stretch in stretches]), axis=0)
