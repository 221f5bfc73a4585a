"""What a clip is labelled with: classes of segments, actions and perspectives as multi-hot vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crossview.datasets.catalog.catalog import Catalog
from crossview.datasets.catalog.classes import check_actions
from crossview.datasets.catalog.recording import Recording
from crossview.errors import UserError

PERSPECTIVES = ("exo", "ego")
_ROUNDING_S = 1e-6
"""Times of frames are rounded: a segment that ends where a clip begins, or begins where it ends, is not shown."""


class Labels:
    """Classes of each kind as the catalog's class table numbers them, alike in every part of the catalog.

    Kinds are names of segments, "perspective" (exo 0, ego 1) and "action", which is `Recording.action` where no segment
    has that name. Raises ValueError if the table has another number of classes than the method counts on, and for
    an action that it does not have. `options` set the counts, for that error.
    """

    def __init__(self, catalog: Catalog, counts: Mapping[str, int], options: Mapping[str, str] | None = None) -> None:
        self.classes = {kind: classes_of(catalog, kind) for kind in counts}
        for kind, count in counts.items():
            found = self.classes[kind]
            if len(found) != count:
                option = (options or {}).get(kind)
                asked = f"--{option} is {count}" if option else f"the method asks for {count}"
                fix = f"pass --{option} {len(found)}" if option else f"have it ask for {len(found)}"
                raise UserError(
                    f"catalog {catalog.place}: labels of kind {kind!r} have {len(found)} classes "
                    f"({', '.join(found[:6])}{', ...' if len(found) > 6 else ''}), but {asked}; {fix}, or correct the "
                    "catalog"
                )
        numbers = {kind: {name: i for i, name in enumerate(names)} for kind, names in self.classes.items()}
        self._spans: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
        for segment in catalog.segments:
            if segment.name in numbers and segment.end_s > segment.start_s:
                span = (segment.start_s, segment.end_s, numbers[segment.name][segment.label])
                self._spans.setdefault((segment.name, segment.recording), []).append(span)
        self._numbers = numbers
        self._by_recording = "action" in numbers and not any(kind == "action" for kind, _ in self._spans)
        if self._by_recording:
            check_actions(self.classes, catalog.recordings, f"catalog {catalog.place}")

    def of(
        self,
        recording: Recording,
        kind: str,
        first_s: float,
        last_s: float,
        segment: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """1 for every class that is shown from one frame to another, by their times in the file in s: uint8 (C,).

        With `segment`, its start and end in s, only those of segments with the same start and end.
        """
        out = np.zeros(len(self.classes[kind]), np.uint8)
        if kind == "perspective":
            out[PERSPECTIVES.index(recording.perspective)] = 1
        elif kind == "action" and self._by_recording:
            if recording.action in self._numbers[kind]:  # else it is unlabelled, as withheld test labels are
                out[self._numbers[kind][recording.action]] = 1
        else:
            first_s, end_s = first_s + _ROUNDING_S, last_s + 1 / recording.fps - _ROUNDING_S
            for begin_s, stop_s, number in self._spans.get((kind, recording.id), ()):
                shown = begin_s < end_s and stop_s > first_s if segment is None else (begin_s, stop_s) == segment
                if shown:
                    out[number] = 1
        return out


def classes_of(catalog: Catalog, kind: str) -> tuple[str, ...]:
    """The classes of one kind by number, as the catalog's table has them."""
    if kind == "perspective":
        return PERSPECTIVES
    table = catalog.all_classes()
    if kind not in table:
        known = sorted({name for name in table if "/" not in name} | {"action", "perspective"})
        raise UserError(
            f"catalog {catalog.place}: it has no labels of kind {kind!r}; kinds here: {', '.join(known)}. Label the "
            "recordings with segments of that name, or choose another kind"
        )
    return table[kind]
