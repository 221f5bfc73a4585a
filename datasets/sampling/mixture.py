"""Plans of several catalogs as one: rows of each in fixed shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor
from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.plan import Clip, Plan, Row
from crossview.errors import UserError


class Mixture:
    """An endless sequence of rows, drawn in turn from plans with the same views; row i is a pure function as `Plan`'s.

    Of any n rows, plan k has its share to within one row for each plan. An epoch is one pass over the first plan. Paths
    of the further catalogs are absolute. Raises ValueError if two catalogs have a recording of one name.
    """

    def __init__(self, plans: Sequence[Plan], shares: Sequence[float], seed: int) -> None:
        sampling = plans[0].sampling
        if sampling.labels or sampling.scores or sampling.boxes:
            raise UserError("mixture: labels, scores and boxes belong to one catalog; leave data.mix out")
        slots = {plan.slots for plan in plans}
        if len(slots) > 1 or len(plans) != len(shares):
            raise UserError(f"mixture: {len(plans)} plans with {len(shares)} shares and slots {sorted(slots)}")
        self.plans, self._shares = list(plans), [share / sum(shares) for share in shares]
        self.seed = seed
        self.sampling, self.slots = plans[0].sampling, plans[0].slots
        self.labels = plans[0].labels
        self.catalog = _joined([plan.catalog for plan in plans])
        self._first = np.cumsum([0, *(len(plan.catalog.recordings) for plan in plans[:-1])])
        self.rows_per_epoch = round(plans[0].rows_per_epoch / self._shares[0])

    def row(self, i: int) -> Row:
        """Sample `i`, counted from 0 over all epochs."""
        if i < 0:
            raise IndexError(f"row {i}: rows count from 0")
        source, own = self.source(i)
        row = self.plans[source].row(own)
        clips = tuple(tuple(self._moved(clip, source) for clip in window) for window in row.clips)
        return Row(i, row.seed, clips)

    def source(self, i: int) -> tuple[int, int]:
        """Which plan gives row i, and which of its own rows that is."""
        left = 1.0
        for k in range(len(self.plans) - 1, 0, -1):
            share = self._shares[k] / left
            before = floor(i * share)
            if floor((i + 1) * share) > before:
                return k, before
            i -= before
            left -= self._shares[k]
        return 0, i

    def _moved(self, clip: Clip | None, source: int) -> Clip | None:
        return clip and replace(clip, recording=clip.recording + int(self._first[source]))


def _joined(catalogs: Sequence[Catalog]) -> Catalog:
    first = catalogs[0]
    recordings = list(first.recordings)
    for catalog in catalogs[1:]:
        recordings += [_absolute(catalog, r) for r in catalog.recordings]
    segments = tuple(segment for catalog in catalogs for segment in catalog.segments)
    splits = {r.id: split for c in catalogs for r in c.recordings if (split := c.split_of(r)) is not None}
    protocols = {"mixture": splits} if splits else {}
    return Catalog(first.root, tuple(recordings), segments, protocols=protocols, folder=first.folder)


def _absolute(catalog: Catalog, recording: Recording) -> Recording:
    """With paths that another catalog's root and folder change nothing of."""
    index = str((catalog.folder or Path()) / recording.index) if recording.index else ""
    return replace(recording, path=str(catalog.file(recording).resolve()), index=index)
