"""Plans over recordings of features: what `Sequences` and `Past` have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.sequences import Past, Sequences
from crossview.datasets.sampling.units import Units
from crossview.errors import UserError

ORDER, _SEED = 2, 3
"""Keep the streams of random numbers apart; 1 is that of what a sample draws."""


@dataclass(frozen=True, eq=False)
class SequenceRow:
    """One sample."""

    sample: int
    seed: int
    recordings: tuple[int, ...]
    """Index into the catalog's recordings, of each camera."""
    unit: int
    """Index into the plan's units, of the first camera."""
    frames: np.ndarray
    """int64 (V, T, n): frames of the recordings; the last of a step's repeat where it has fewer."""
    count: np.ndarray
    """int64 (T,), frames of each step; 0 where there is none, before the recording begins."""
    targets: dict[str, np.ndarray]
    """By kind, int64 (T,) of steps or () of the sample."""
    span: tuple[int, int]
    """The first camera's frames that the steps cover: first, and one after the last."""


class FeaturePlan(ABC):
    """An endless sequence of samples; row i is a pure function of (catalog, spec, seed, i).

    In training an epoch is every sample in a seeded order; with `test` it is every sample once, in the catalog's order,
    as evaluated. Raises UserError if there is none.
    """

    spec: Sequences | Past
    rows_per_epoch: int
    pooled = True
    steps: int
    """Steps of a sample, at most."""
    frames_per_step = 1
    views: int
    embedded: Path | None = None
    """Folder of embeddings of all its steps, which are read in place of features."""
    undrawn: dict[str, int]
    """Units of each camera that no sample shows, such as segments that begin too early; only cameras with some."""

    def __init__(
        self, catalog: Catalog, spec: Sequences | Past, seed: int, labels: Labels | None = None, *, test: bool = False
    ) -> None:
        if seed < 0:
            raise UserError(f"seed is {seed}; it must be 0 or more")
        pictures = next((r for r in catalog.recordings if r.has_pixels), None)
        if pictures is not None:
            raise UserError(
                f"catalog {catalog.place}: {pictures.id} is a video; this trainer reads features of frames: compute "
                f"them with `crossview embed timm:NAME --catalog {catalog.place} --out FOLDER`, or catalog published "
                "ones"
            )
        self.catalog, self.spec, self.seed, self.test = catalog, spec, seed, test
        self.units = Units.of(catalog, spec.unit)
        self.labels = labels
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def _rng(self, *place: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, *place))))

    def _seed_of(self, i: int) -> int:
        state = np.random.SeedSequence((self.seed, i, _SEED)).generate_state(1, np.uint64)
        return int(state[0] >> np.uint64(1))

    def _without(self, kept: Iterable[int]) -> dict[str, int]:
        """`undrawn` where samples show the units `kept`."""
        views = [recording.view for recording in self.units.catalog.recordings]
        return dict(sorted((Counter(views) - Counter(views[i] for i in kept)).items()))

    def _place(self, i: int) -> int:
        """Which of the epoch's samples row i is."""
        if i < 0:
            raise IndexError(f"row {i}: rows count from 0")
        epoch, place = divmod(i, self.rows_per_epoch)
        if self.test:
            return place
        if epoch != self._epoch:
            self._order, self._epoch = self._rng(epoch, ORDER).permutation(self.rows_per_epoch), epoch
        return int(self._order[place])

    @abstractmethod
    def row(self, i: int) -> SequenceRow:
        """Sample `i`, counted from 0 over all epochs."""

    @property
    @abstractmethod
    def drawn(self) -> frozenset[int]:
        """Indices of the recordings that samples come from."""
