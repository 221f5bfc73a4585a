"""The plan of labelled spans: which frames make the steps of sample i, and what they are labelled with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.feature_plan import ORDER, FeaturePlan, SequenceRow
from crossview.datasets.sampling.pairing import Pairs, Singles
from crossview.datasets.sampling.sequences import UNLABELLED, Sequences
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.sampling.step_targets import StepTargets, majority
from crossview.datasets.sampling.units import RECORDING
from crossview.datasets.sampling.windows import overlap
from crossview.errors import UserError

_DRAW = 1  # keeps the stream of random numbers apart from those of the base


@dataclass(frozen=True, order=True)
class Stretch:
    """Consecutive frames of a recording that are cut into steps."""

    first: int
    stop: int
    """One after the last."""
    chunk: int
    """Frames per step; the last may have fewer."""

    def steps(self) -> np.ndarray:
        """First frame and number of frames of each: int64 (T, 2)."""
        starts = np.arange(self.first, self.stop, self.chunk, dtype=np.int64)
        return np.stack([starts, np.minimum(self.stop - starts, self.chunk)], 1)


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
        self.pooled, self.steps = spec.pooled, spec.max_steps
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
                order = self._rng(epoch, ORDER)
                self._pairs = self._kept[order.permutation(self._cameras.epoch(order))]
                self._pairs_epoch = epoch
            units, chunk = tuple(self._pairs[place].tolist()), self.spec.chunk
            piece = int(rng.integers(self._pieces(units, chunk)))
        first, stop = self._piece(units, chunk, piece)
        if not self.test:
            chunk = self._drawn_chunk(stop - first, chunk, rng)
        return self._row(i, units, first, stop, chunk)

    def stretches(self) -> dict[int, list[Stretch]] | None:
        """By recording, everything that rows of any epoch cut into steps; two cameras' steps are each one's own.

        None where a camera's steps are not of consecutive frames, as those of a second one of another rate.
        """
        samples = self._samples
        if samples is None:
            assert isinstance(self._cameras, Pairs)
            pairs = [tuple(pair) for pair in self._kept[self._cameras.possible()].tolist()]
            samples = [(pair, self.spec.chunk, k) for pair in pairs for k in range(self._pieces(pair, self.spec.chunk))]
        found: dict[int, set[Stretch]] = {}
        for units, chunk, piece in samples:
            first, stop = self._piece(units, chunk, piece)
            frames = self._frames(units, np.arange(first, stop))  # (V, L)
            if (np.diff(frames) != 1).any():
                return None
            for unit, own in zip(units, frames, strict=True):
                of = found.setdefault(int(self.units.recordings[unit]), set())
                of |= {Stretch(int(own[0]), int(own[-1]) + 1, size) for size in self._sizes(stop - first, chunk)}
        return {recording: sorted(of) for recording, of in found.items()}

    def _sizes(self, frames: int, chunk: int) -> list[int]:
        """Every number of frames per step that a row of so many frames may have."""
        if self.test or self.spec.chunk_range is None:
            return [chunk]
        low, high = self._chunk_range(frames, self.spec.chunk_range)
        return sorted({*range(low, high + 1), *([chunk] if self.spec.chunk_drawn < 1 else [])})

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
        low, high = self._chunk_range(frames, self.spec.chunk_range)
        return max(low, min(high, int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))))

    def _chunk_range(self, frames: int, chunks: tuple[int, int]) -> tuple[int, int]:
        """The part of the range in which so many frames are not more steps than there may be."""
        low = max(chunks[0], -(-frames // self.spec.max_steps))
        return low, max(low, chunks[1])

    def _row(self, i: int, units: tuple[int, ...], first: int, stop: int, chunk: int) -> SequenceRow:
        steps = -(-(stop - first) // chunk)
        whole = first + np.arange(steps * chunk, dtype=np.int64).reshape(steps, chunk)  # (T, n)
        frames = self._frames(units, np.minimum(whole, stop - 1))
        base = int(self.units.recordings[units[0]])
        begin = int(self.units.first_frames[units[0]])
        labels = self._targets.frames(base, begin + first, begin + stop)
        return SequenceRow(
            sample=i,
            seed=self._seed_of(i),
            recordings=tuple(int(self.units.recordings[unit]) for unit in units),
            unit=units[0],
            frames=frames,
            count=np.minimum(stop - whole[:, 0], chunk),
            targets={self.spec.kind: majority(labels, chunk, self.spec.classes)},
            span=(begin + first, begin + stop),
        )

    def _frames(self, units: tuple[int, ...], shown: np.ndarray) -> np.ndarray:
        """Frames of each camera's recording at frames of the first one's unit: int64 (...) -> (V, ...)."""
        catalog, recordings = self.units.catalog, self.units.catalog.recordings
        instants = catalog.instants(recordings[units[0]], shown.ravel()) if len(units) > 1 else None
        frames = []
        for k, unit in enumerate(units):
            own = shown if k == 0 else catalog.frames_at(recordings[unit], instants).reshape(shown.shape)  # type: ignore[arg-type]
            frames.append(own + self.units.first_frames[unit])
        return np.stack(frames)

    def frame_labels(self, row: SequenceRow) -> np.ndarray:
        """The label of each frame of a row's span, -100 where there is none: int64 (stop - first,)."""
        return self._targets.frames(row.recordings[0], *row.span)

    def annotated(self, row: SequenceRow) -> int:
        """Frames of the row's unit that have a label, and those that have one after its recording has ended.

        The latter are what the camera that shows most of the event has more, at the first camera's rate.
        """
        unit = self.units.catalog.recordings[row.unit]
        shown = self._labelled(row.unit)
        base = self.catalog.recordings[row.recordings[0]]
        if unit.own_clock or not len(shown) or shown[-1] + 1 < base.num_frames:
            return len(shown)
        return max(len(shown), round(self._longest_s[unit.take] * unit.fps))

    @cached_property
    def _longest_s(self) -> dict[tuple[str, bool, str], float]:
        """By event, how much of it is labelled on the camera that shows most of it."""
        longest: dict[tuple[str, bool, str], float] = {}
        for unit, recording in enumerate(self.units.catalog.recordings):
            shown_s = len(self._labelled(unit)) / recording.fps
            longest[recording.take] = max(longest.get(recording.take, 0.0), shown_s)
        return longest

    def _labelled(self, unit: int) -> np.ndarray:
        """Frames of a unit's recording that it has and that have a label: int64 (n,)."""
        first = int(self.units.first_frames[unit])
        stop = first + self.units.catalog.recordings[unit].num_frames
        labels = self._targets.frames(int(self.units.recordings[unit]), first, stop)
        return first + np.flatnonzero(labels != UNLABELLED)
