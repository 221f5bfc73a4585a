"""Rows of a plan become arrays: what any decoding process does, with neither torch nor ray."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview.datasets.sampling.feature_plan import FeaturePlan
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError
from crossview.platform.config import Data

Arrays = dict[str, np.ndarray]
AnyPlan = Plan | Mixture | FeaturePlan

MAX_TRIES = 1000
"""Rows tried in place of one that cannot be read."""
_REPLACEMENT = 2  # keeps this use of the plan's seed apart from the plan's own


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The rows of the plan that one worker executes.

    Global step g consists of rows [g * batch, (g + 1) * batch), cut into micro batches that are dealt to the ranks in
    turn: so what is together in a pass is the same for any number of ranks. The shard's k-th row is yielded k-th.
    """

    start_step: int
    stop_step: int
    batch: int
    """Rows per step, over all ranks."""
    micro_batch: int
    """Rows per yielded batch."""
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UserError(f"shard: rank {self.rank} of {self.world}; it must be from 0 to {self.world - 1}")
        if not 0 <= self.start_step <= self.stop_step:
            raise UserError(f"shard: steps {self.start_step} to {self.stop_step}; the first must not exceed the last")
        if self.micro_batch < 1 or self.batch < 1 or self.batch % (self.world * self.micro_batch):
            raise UserError(
                f"shard: batch {self.batch} does not divide into {self.world} workers x micro batches of "
                f"{self.micro_batch}; choose a batch that is a multiple of {self.world * self.micro_batch}"
            )

    @property
    def share(self) -> int:
        """Rows per step on this rank."""
        return self.batch // self.world

    @property
    def length(self) -> int:
        """Rows of this rank in all its steps."""
        return (self.stop_step - self.start_step) * self.share

    def rows(self, k: np.ndarray) -> np.ndarray:
        """Rows of the plan for positions in the shard: int64 (n,) -> int64 (n,)."""
        step, within = np.divmod(np.asarray(k, np.int64), self.share)
        turn, place = np.divmod(within, self.micro_batch)
        return (self.start_step + step) * self.batch + (turn * self.world + self.rank) * self.micro_batch + place


class Decoder(ABC):
    """Decodes rows of a shard; called by Ray Data with positions in it, or directly.

    A row with an unreadable file is replaced by the first readable one of a sequence of the same epoch's rows that is a
    pure function of (plan, row); the failure is reported in the column "quarantine" (JSON). Whether a row is readable
    follows from its own frames, so what is replaced does not depend on what was read before, and is the same in every
    worker and after a resume.
    """

    pixels: Pixels = "rgb"
    """How frames travel, if they are pictures."""
    group = False
    """Whether all cameras of a row are in one array."""

    def __init__(self, plan: AnyPlan, data: Data, shard: Shard) -> None:
        self.plan, self.data, self.shard = plan, data, shard
        self._failed: dict[int, int] = {}
        """Recordings that could not be read, and up to which frame."""

    @abstractmethod
    def empty(self, rows: int) -> Arrays:
        """Zeros in the shapes of `rows` rows: (rows, windows, ...)."""

    @abstractmethod
    def _place(self, out: Arrays, k: int, row: Any, reports: list[dict[str, Any]]) -> None:
        """A row of the plan into place k; raises UnreadableVideo, having reported the file if it is new."""

    @abstractmethod
    def _clear(self, out: Arrays, k: int) -> None:
        """Remove from place k what was read of a row before one of its files turned out to be unreadable."""

    def __call__(self, positions: Arrays) -> Arrays:
        """Arrays for positions in the shard, under "id"; what Ray Data calls.

        An error of the user's input travels in the column "quarantine" too: Ray would wrap it beyond recognition.
        """
        try:
            return self.decode(positions["id"])
        except (UserError, OSError) as error:
            out = self.empty(len(positions["id"]))
            return out | {"quarantine": np.array([json.dumps([{"error": str(error)}])] * len(out["sample"]), object)}

    def decode(self, positions: np.ndarray) -> Arrays:
        """Arrays for positions in the shard."""
        ids = self.shard.rows(positions)
        out = self.empty(len(ids))
        reports = [self._fill(out, k, int(i)) for k, i in enumerate(ids)]
        return out | {"quarantine": np.array([json.dumps(r) if r else "" for r in reports], dtype=object)}

    def _fill(self, out: Arrays, k: int, sample: int) -> list[dict[str, Any]]:
        """Row `sample` into place k; returns what was found unreadable on the way."""
        row: Any = self.plan.row(sample)
        for window in range(out["sample"].shape[1]):
            out["sample"][k, window] = sample
            out["seed"][k, window] = (row.seed + window * 0x9E3779B97F4A7C15) % 2**63
        reports: list[dict[str, Any]] = []
        allowed = self.data.max_quarantined * len(self.plan.catalog.recordings)
        rng, tried = np.random.default_rng((self.plan.seed, sample, _REPLACEMENT)), 0
        first = sample - sample % self.plan.rows_per_epoch
        while True:
            try:
                self._place(out, k, row, reports)
                return reports
            except UnreadableVideo:
                tried += 1
                self._clear(out, k)
                if tried > MAX_TRIES or len(self._failed) > allowed:
                    return [*reports, {"lost": sample}]  # the consumer stops the run
                row = self.plan.row(first + int(rng.integers(self.plan.rows_per_epoch)))

    def _failure(self, recording: int, last: int, error: UnreadableVideo, reports: list[dict[str, Any]]) -> None:
        """Report a recording that could not be read up to frame `last`, the first time."""
        facts = self.plan.catalog.recordings[recording]
        if recording not in self._failed:
            path = str(self.plan.catalog.file(facts))
            reports.append({"recording": facts.id, "path": path, "reason": str(error)})
        self._failed[recording] = min(last, self._failed.get(recording, last))
