"""The label of each frame of a recording, and of each step of several frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.sequences import UNLABELLED, Sequences
from crossview.errors import UserError

_ROUNDING_S = 1e-6


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
            if of is None:
                return np.full(stop - first, UNLABELLED, np.int64)
            return np.where(of[first:stop] < 0, UNLABELLED, of[first:stop]).astype(np.int64)  # background is none
        out = np.full(stop - first, UNLABELLED, np.int64)
        times_s = self._times_s(recording, first, stop)
        for start_s, end_s, label in self._spans.get(recording.id, ()):
            begin, end = np.searchsorted(times_s, [start_s - _ROUNDING_S, end_s - _ROUNDING_S])
            out[begin:end] = label
        return out

    def _times_s(self, recording: Recording, first: int, stop: int) -> np.ndarray:
        return self.catalog.instants(recording, np.arange(first, stop)) - recording.start_offset_s


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
