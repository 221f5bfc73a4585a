"""The plan of what comes before segments: which frames are observed of sample i, and what it anticipates."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.feature_plan import FeaturePlan, SequenceRow
from crossview.datasets.sampling.sequences import UNLABELLED, Past
from crossview.errors import UserError

_ROUNDING_S = 1e-6


class PastPlan(FeaturePlan):
    """The frames before each segment (`Past`), which one camera shows."""

    spec: Past
    views = 1

    def __init__(
        self, catalog: Catalog, spec: Past, seed: int, labels: Labels | None = None, *, test: bool = False
    ) -> None:
        super().__init__(catalog, spec, seed, labels, test=test)
        self.labels = labels or Labels(catalog, spec.labels, spec.label_options)
        self._turns = self._counted()
        self._back = {fps: self._distances(fps) for fps in {r.fps for r in catalog.recordings}}
        self._least = {fps: int(_nearest(round(spec.least_s * (spec.fps or fps)), fps, spec.fps)) for fps in self._back}
        self.steps = max(len(back) for back in self._back.values())
        self._kept = [i for i in range(len(self.units.recordings)) if self._observed(i) >= 0]
        self.undrawn = self._without(self._kept)
        self.rows_per_epoch = len(self._kept)
        if not self._kept:
            raise UserError(
                f"catalog {catalog.place}: none of its {len(self.units.recordings)} segments of kind {spec.unit!r} "
                f"begins {spec.least_s + spec.horizon_s:g} s after its recording or later (least_s + horizon_s)"
            )

    def _distances(self, fps: float) -> np.ndarray:
        """Of each observed frame from the segment's first, in frames of a recording of this rate: int64 (T,).

        In order of time. At another rate than the recording's, each instant is that of the nearest frame, the earlier
        of two.
        """
        seen = self.spec.fps or fps
        back = np.arange(round(self.spec.past_s * seen), -1, -1, dtype=np.int64) + round(self.spec.horizon_s * seen)
        return np.asarray(_nearest(back, fps, seen))

    @property
    def drawn(self) -> frozenset[int]:
        """Indices of the recordings that samples come from."""
        return frozenset(int(i) for i in self.units.recordings[self._kept])

    def _counted(self) -> list[int]:
        """Of each unit, how many before it have the same span: they share its labels, each has one of them."""
        assert self.units.segments is not None
        seen: dict[tuple[int, tuple[float, float]], int] = {}
        turns = []
        for recording, span in zip(self.units.recordings.tolist(), self.units.segments, strict=True):
            turns.append(seen.get((recording, span), 0))
            seen[recording, span] = turns[-1] + 1
        return turns

    def _observed(self, unit: int) -> int:
        """The last observed frame of the recording; negative where too little is before it, or it ends before it."""
        base = self.catalog.recordings[int(self.units.recordings[unit])]
        assert self.units.segments is not None
        if self.units.segments[unit][0] > base.end_s - base.start_offset_s + _ROUNDING_S:
            return -1  # the recording ends before the segment begins, whose first frame is not there
        last = int(self.units.first_frames[unit]) - int(self._back[base.fps][-1])
        return last if last >= self._least[base.fps] else -1

    def _target(self, kind: str, unit: int) -> np.ndarray:
        """The unit's own label, or of another kind one of those that its span has."""
        assert self.labels is not None
        assert self.units.segments is not None
        if kind == self.spec.unit:
            label = self.units.catalog.recordings[unit].action
            return np.asarray(self.labels.classes[kind].index(label), np.int64)
        base = self.catalog.recordings[int(self.units.recordings[unit])]
        return nth_class(self.labels.of(base, kind, 0.0, 0.0, self.units.segments[unit]), self._turns[unit])

    def row(self, i: int) -> SequenceRow:
        """Sample `i`, counted from 0 over all epochs."""
        unit = self._kept[self._place(i)]
        base = int(self.units.recordings[unit])
        back = self._back[self.catalog.recordings[base].fps]
        frames = int(self.units.first_frames[unit]) - back
        return SequenceRow(
            sample=i,
            seed=self._seed_of(i),
            recordings=(base,),
            unit=unit,
            frames=np.maximum(frames, 0)[None, :, None],
            count=(frames >= 0).astype(np.int64),
            targets={kind: self._target(kind, unit) for kind in self.spec.labels},
            span=(max(0, int(frames[0])), int(frames[-1]) + 1),
        )


def _nearest(frames: np.ndarray | int, fps: float, seen: float | None) -> np.ndarray | int:
    """Numbers of frames at the rate `seen` as whole numbers of frames at the rate `fps`, a half rounded up.

    Without `seen` they are the same. Rates are ratios of whole numbers, such as 30000/1001 for 29.97, so that no
    rounding error moves a frame.
    """
    ratio = Fraction(fps).limit_denominator(1001) / Fraction(seen or fps).limit_denominator(1001)
    return (2 * frames * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)


def nth_class(shown: np.ndarray, turn: int) -> np.ndarray:
    """One class of a multi-hot vector, in turn where there are several, -100 where there is none: int64 ()."""
    classes = np.flatnonzero(shown)
    return np.asarray(classes[turn % len(classes)] if len(classes) else UNLABELLED, np.int64)
