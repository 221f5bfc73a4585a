"""Plans over recordings of features: which frames make the steps of sample i, and what they are labelled with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.pairing import Pairs, Singles
from crossview.datasets.sampling.sequences import UNLABELLED, Past, Sequences
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.sampling.units import RECORDING, Units
from crossview.datasets.sampling.windows import overlap
from crossview.errors import UserError

_DRAW, _ORDER, _SEED = 1, 2, 3  # keep the streams of random numbers apart
_ROUNDING_S = 1e-6


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


class FeaturePlan:
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
            self._order, self._epoch = self._rng(epoch, _ORDER).permutation(self.rows_per_epoch), epoch
        return int(self._order[place])

    def row(self, i: int) -> SequenceRow:
        """Sample `i`, counted from 0 over all epochs."""
        raise NotImplementedError

    @property
    def drawn(self) -> frozenset[int]:
        """Indices of the recordings that samples come from."""
        return frozenset(int(i) for i in self.units.recordings)


class SequencePlan(FeaturePlan):
    """Labelled spans as sequences of steps (`Sequences`).

    A span is of one recording, or what synchronized cameras have in common of it. In training with two cameras each of
    the perspective with more of them is paired with one of the other, anew in every epoch, and of a span of several
    sequences one is drawn; otherwise each sequence is a sample.
    """

    spec: Sequences

    def __init__(
        self, catalog: Catalog, spec: Sequences, seed: int, labels: Labels | None = None, *, test: bool = False
    ) -> None:
        super().__init__(catalog, spec, seed, labels, test=test)
        self.pooled, self.steps = spec.pooled, spec.steps
        self.frames_per_step = 1 if spec.pooled else spec.frames_per_step
        self.views = len(spec.views)
        self._targets = StepTargets(catalog, spec, labels)
        views = {f"{side}{k}": View(perspective=side, frames=1) for k, side in enumerate(spec.views)}
        sampling = Sampling(views=views, pairing="single" if len(views) == 1 else "synchronized")
        self._spans = self._labelled_spans()
        kept = [i for i, (first, stop) in enumerate(self._spans) if stop > first]
        if not kept:
            raise UserError(
                f"catalog {catalog.place}: none of its {len(catalog.recordings)} recordings here has labels of kind "
                f"{spec.kind!r}; label them, or choose another split or kind"
            )
        part = Catalog(catalog.root, tuple(self.units.catalog.recordings[i] for i in kept), folder=catalog.folder)
        cameras = (Singles if len(views) == 1 else Pairs)(part, sampling)
        self._kept, self._cameras = np.array(kept), cameras
        self.undrawn = self._without(kept)
        self._samples = self._evaluated() if test or len(views) == 1 else None
        self.rows_per_epoch = cameras.rows if self._samples is None else len(self._samples)
        self._pairs_epoch, self._pairs = -1, np.empty((0, 2), np.int64)

    @property
    def drawn(self) -> frozenset[int]:
        """Indices of the recordings that samples come from."""
        return frozenset(int(self.units.recordings[self._kept[i]]) for i in self._cameras.drawn)

    def row(self, i: int) -> SequenceRow:
        """Sample `i`, counted from 0 over all epochs."""
        rng = self._rng(i, _DRAW)
        if self._samples is not None:
            units, chunk, piece = self._samples[self._place(i)]
        else:
            epoch, place = divmod(i, self.rows_per_epoch)
            if epoch != self._pairs_epoch:
                order = self._rng(epoch, _ORDER)
                self._pairs = self._kept[order.permutation(self._cameras.epoch(order))]
                self._pairs_epoch = epoch
            units, chunk = tuple(self._pairs[place].tolist()), self.spec.chunk
            piece = int(rng.integers(self._pieces(units, chunk)))
        first, stop = self._piece(units, chunk, piece)
        if not self.test:
            chunk = self._drawn_chunk(stop - first, chunk, rng)
        return self._row(i, units, first, stop, chunk)

    def _evaluated(self) -> list[tuple[tuple[int, ...], int, int]]:
        """Units of each camera, frames per step and which of the span's sequences: all of them, in order."""
        chunks = (self.spec.test_chunks if self.test else ()) or (self.spec.chunk,)
        samples = [
            (units, chunk, piece)
            for units in self._evaluated_units()
            for chunk in chunks
            for piece in range(self._pieces(units, chunk))
        ]
        if not samples:
            cameras = ", ".join(sorted({r.view for r in self.catalog.recordings}))
            raise UserError(
                f"catalog {self.catalog.place}: no scene here has the cameras {', '.join(self.spec.test_views)} "
                f"(test_views); cameras here: {cameras}"
            )
        return samples

    def _evaluated_units(self) -> list[tuple[int, ...]]:
        if self.views == 1:
            return [(int(self._kept[i]),) for i in self._cameras.epoch(self._rng(0))[:, 0]]
        scenes: dict[tuple[str, bool, str], list[int]] = {}
        for i in self._kept.tolist():
            scenes.setdefault(self.units.catalog.recordings[i].take, []).append(i)
        found = (self._evaluated_pair(members) for members in scenes.values())
        return [pair for pair in found if pair is not None]

    def _evaluated_pair(self, members: list[int]) -> tuple[int, ...] | None:
        """One unit per view: those that are named, or the first of each perspective by name; None if one is missing."""
        recordings = self.units.catalog.recordings
        chosen: list[int] = []
        for k, side in enumerate(self.spec.views):
            name = self.spec.test_views[k] if self.spec.test_views else None
            fitting = [
                i
                for i in sorted(members, key=lambda i: recordings[i].view)
                if i not in chosen
                and (recordings[i].view == name if name else side in ("any", recordings[i].perspective))
            ]
            if not fitting:
                return None
            chosen.append(fitting[0])
        first_s, last_s = overlap([recordings[i] for i in chosen])
        return tuple(chosen) if first_s <= last_s else None

    def _labelled_spans(self) -> list[tuple[int, int]]:
        """By unit, its frames from the first to one after the last that has a label, counted in the unit."""
        spans = []
        for unit, recording in enumerate(self.units.catalog.recordings):
            if self.spec.unit != RECORDING:
                spans.append((0, recording.num_frames))
                continue
            labelled = np.flatnonzero(self._targets.frames(int(self.units.recordings[unit]), 0, None) != UNLABELLED)
            spans.append((int(labelled[0]), int(labelled[-1]) + 1) if len(labelled) else (0, 0))
        return spans

    def _common(self, units: tuple[int, ...]) -> tuple[int, int]:
        """Frames of the first camera's unit that all cameras show."""
        first, stop = self._spans[units[0]]
        catalog, recordings = self.units.catalog, self.units.catalog.recordings
        for other in units[1:]:
            here, there = recordings[units[0]], recordings[other]
            ends = np.array([0, there.num_frames - 1])
            edges = catalog.frames_at(here, catalog.instants(there, ends)).tolist()
            first, stop = max(first, edges[0]), min(stop, edges[1] + 1)
        return first, max(stop, first + 1)

    def _pieces(self, units: tuple[int, ...], chunk: int) -> int:
        first, stop = self._common(units)
        return -(-(stop - first) // (chunk * self.spec.max_steps))

    def _piece(self, units: tuple[int, ...], chunk: int, piece: int) -> tuple[int, int]:
        first, stop = self._common(units)
        size = chunk * self.spec.max_steps
        return first + piece * size, min(first + (piece + 1) * size, stop)

    def _drawn_chunk(self, frames: int, chunk: int, rng: np.random.Generator) -> int:
        if self.spec.chunk_range is None or rng.random() >= self.spec.chunk_drawn:
            return chunk
        low, high = self.spec.chunk_range
        low = max(low, -(-frames // self.spec.max_steps))
        return max(low, min(high, int(np.exp(rng.uniform(np.log(low), np.log(max(low, high) + 1))))))

    def _row(self, i: int, units: tuple[int, ...], first: int, stop: int, chunk: int) -> SequenceRow:
        steps = -(-(stop - first) // chunk)
        whole = first + np.arange(steps * chunk, dtype=np.int64).reshape(steps, chunk)  # (T, n)
        shown = np.minimum(whole, stop - 1)
        catalog, recordings = self.units.catalog, self.units.catalog.recordings
        instants = catalog.instants(recordings[units[0]], shown.ravel()) if len(units) > 1 else None
        frames = []
        for k, unit in enumerate(units):
            own = shown if k == 0 else catalog.frames_at(recordings[unit], instants).reshape(shown.shape)  # type: ignore[arg-type]
            frames.append(own + self.units.first_frames[unit])
        base = int(self.units.recordings[units[0]])
        begin = int(self.units.first_frames[units[0]])
        labels = self._targets.frames(base, begin + first, begin + stop)
        return SequenceRow(
            sample=i,
            seed=self._seed_of(i),
            recordings=tuple(int(self.units.recordings[unit]) for unit in units),
            unit=units[0],
            frames=np.stack(frames),
            count=np.minimum(stop - whole[:, 0], chunk),
            targets={self.spec.kind: majority(labels, chunk, self.spec.classes)},
            span=(begin + first, begin + stop),
        )

    def frame_labels(self, row: SequenceRow) -> np.ndarray:
        """The label of each frame of a row's span, -100 where there is none: int64 (stop - first,)."""
        return self._targets.frames(row.recordings[0], *row.span)


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


class StepTargets:
    """The label of each frame of a recording, from segments or frame labels of one kind."""

    def __init__(self, catalog: Catalog, spec: Sequences, labels: Labels | None) -> None:
        self.catalog = catalog
        self._by_frame = catalog.frame_labels.get(spec.kind)
        self._spans: dict[str, list[tuple[float, float, int]]] = {}
        if self._by_frame is not None:
            self._check(self._by_frame.items(), spec)
            return
        known = labels or Labels(catalog, spec.labels, spec.label_options)
        numbers = {name: number for number, name in enumerate(known.classes[spec.kind])}
        for segment in sorted(catalog.segments, key=lambda s: (s.start_s, s.end_s)):
            if segment.name == spec.kind:
                span = (segment.start_s, segment.end_s, numbers[segment.label])
                self._spans.setdefault(segment.recording, []).append(span)

    def _check(self, labels: Iterable[tuple[str, np.ndarray]], spec: Sequences) -> None:
        for recording, of in labels:
            if len(of) and int(of.max()) >= spec.classes:
                option = f"--{spec.option}" if spec.option else "classes"
                raise UserError(
                    f"catalog {self.catalog.place}: {recording} has the {spec.kind!r} label {int(of.max())}, but "
                    f"{option} is {spec.classes}; classes count from 0: pass {option} {int(of.max()) + 1} or more"
                )

    def frames(self, index: int, first: int, stop: int | None) -> np.ndarray:
        """Of frames first to stop of a recording, -100 where there is none: int64 (stop - first,)."""
        recording = self.catalog.recordings[index]
        stop = recording.num_frames if stop is None else stop
        if self._by_frame is not None:
            of = self._by_frame.get(recording.id)
            return np.full(stop - first, UNLABELLED, np.int64) if of is None else of[first:stop].astype(np.int64)
        out = np.full(stop - first, UNLABELLED, np.int64)
        times_s = self._times_s(recording, first, stop)
        for start_s, end_s, label in self._spans.get(recording.id, ()):
            begin, end = np.searchsorted(times_s, [start_s - _ROUNDING_S, end_s - _ROUNDING_S])
            out[begin:end] = label
        return out

    def _times_s(self, recording: Recording, first: int, stop: int) -> np.ndarray:
        return self.catalog.instants(recording, np.arange(first, stop)) - recording.start_offset_s


def _nearest(frames: np.ndarray | int, fps: float, seen: float | None) -> np.ndarray | int:
    """Numbers of frames at the rate `seen` as whole numbers of frames at the rate `fps`, a half rounded up.

    Without `seen` they are the same. Rates are ratios of whole numbers, such as 30000/1001 for 29.97, so that no
    rounding error moves a frame.
    """
    ratio = Fraction(fps).limit_denominator(1001) / Fraction(seen or fps).limit_denominator(1001)
    return (2 * frames * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)


def majority(labels: np.ndarray, chunk: int, classes: int) -> np.ndarray:
    """The commonest label of every `chunk` frames, the smallest of several; frames of -100 do not count.

    int64 (L,) -> (ceil(L / chunk),); -100 where no frame of a chunk has a label.
    """
    steps = -(-len(labels) // chunk)
    padded = np.full(steps * chunk, UNLABELLED, np.int64)
    padded[: len(labels)] = labels
    known = padded >= 0
    place = np.repeat(np.arange(steps), chunk)[known] * classes + padded[known]
    counts = np.bincount(place, minlength=steps * classes).reshape(steps, classes)
    return np.where(counts.any(1), counts.argmax(1), UNLABELLED)


def nth_class(shown: np.ndarray, turn: int) -> np.ndarray:
    """One class of a multi-hot vector, in turn where there are several, -100 where there is none: int64 ()."""
    classes = np.flatnonzero(shown)
    return np.asarray(classes[turn % len(classes)] if len(classes) else UNLABELLED, np.int64)


def plan_of(
    catalog: Catalog, spec: Sequences | Past, seed: int, labels: Labels | None = None, *, test: bool = False
) -> FeaturePlan:
    """The plan of a spec."""
    if isinstance(spec, Past):
        return PastPlan(catalog, spec, seed, labels, test=test)
    return SequencePlan(catalog, spec, seed, labels, test=test)
