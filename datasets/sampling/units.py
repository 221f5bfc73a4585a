"""What the rows of a plan are drawn from: whole recordings, or the labelled segments in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.errors import UserError

RECORDING = "recording"
"""The unit that is a whole recording; any other is a name of segments."""
_SAME = 0.5
"""Share of the shorter of two cameras' segments with one label that they have in common, at least, to be one event."""


@dataclass(frozen=True, eq=False)
class Units:
    """A catalog of what is drawn, and where its recordings are in the catalog that is read."""

    catalog: Catalog
    recordings: np.ndarray
    """int64 (n,), index of the recording that a unit is, or is a part of."""
    first_frames: np.ndarray
    """int64 (n,), the recording's frame that is frame 0 of the unit."""
    segments: tuple[tuple[float, float], ...] | None
    """Start and end in s, as the catalog's segments have them; None for whole recordings."""

    @staticmethod
    def of(catalog: Catalog, unit: str) -> Units:
        """The catalog's recordings, or the segments of name `unit`; raises UserError if it has none of that name.

        A segment is a span of its recording, whose action is its label; two of one span and label are two units, as
        when a span has two nouns and so its verb twice. Segments of a scene's cameras with one label that overlap by
        more than half are one event, and share a scene as its views do.
        """
        if unit == RECORDING:
            count = len(catalog.recordings)
            return Units(catalog, np.arange(count), np.zeros(count, np.int64), None)
        places = {recording.id: i for i, recording in enumerate(catalog.recordings)}
        found = sorted((places[s.recording], s.start_s, s.end_s, s.label) for s in catalog.segments if s.name == unit)
        if not found:
            kinds = sorted({segment.name for segment in catalog.segments})
            fix = f"kinds of segments here: {', '.join(kinds)}. Choose one of them, or 'recording'"
            if not kinds:
                fix = "nothing here is labelled with segments: take a split that is, or choose 'recording'"
            raise UserError(
                f"catalog {catalog.place}: it has no segments of kind {unit!r} here, and the method's unit is one; "
                f"{fix}"
            )
        spans = [_span(catalog, catalog.recordings[i], start_s, end_s, label) for i, start_s, end_s, label in found]
        recordings = _by_event(spans)
        return Units(
            Catalog(catalog.root, recordings, folder=catalog.folder),
            np.array([i for i, *_ in found], np.int64),
            np.array(
                [r.first_frame - catalog.recordings[i].first_frame for r, (i, *_) in zip(spans, found, strict=True)]
            ),
            tuple((start_s, end_s) for _, start_s, end_s, _ in found),
        )


def _span(catalog: Catalog, recording: Recording, start_s: float, end_s: float, label: str) -> Recording:
    """The frames that a segment shows, at least one."""
    edges = recording.start_offset_s + np.array([start_s, end_s])
    first, stop = catalog.frames_at(recording, edges).tolist()
    if end_s > recording.end_s - recording.start_offset_s:
        stop = recording.num_frames
    return replace(
        recording,
        action=label,
        first_frame=recording.first_frame + first,
        num_frames=max(1, stop - first),
        start_offset_s=float(catalog.instants(recording, np.array([first]))[0]),
        first_s=0.0,
    )


def _by_event(spans: list[Recording]) -> tuple[Recording, ...]:
    """Spans in their order, in scenes of their own or with the same event in other cameras."""
    events: dict[tuple[str, str, str], dict[str, list[Recording]]] = {}  # by label, those by their scene
    counts: Counter[tuple[str, str]] = Counter()
    out = []
    for span in spans:
        of_label = events.setdefault((span.dataset, span.scene, span.action), {})
        scene = next((name for name, event in of_label.items() if _joins(span, event)), None)
        if scene is None:
            scene = f"{span.scene}#{counts[span.dataset, span.scene]}"
            counts[span.dataset, span.scene] += 1
        of_label.setdefault(scene, []).append(span)
        out.append(replace(span, scene=scene))
    return tuple(out)


def _joins(span: Recording, event: list[Recording]) -> bool:
    """Whether a span shows an event of other cameras."""
    if span.own_clock or any(span.view == other.view or other.own_clock for other in event):
        return False
    first = event[0]
    common_s = min(span.end_s, first.end_s) - max(span.start_s, first.start_s)
    return common_s > _SAME * min(span.end_s - span.start_s, first.end_s - first.start_s)
