"""Which recordings are paired in one epoch: a table of recordings, one row per plan row, one column per slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.listing import Problems
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.sampling.windows import clocks_apart, overlap, run_together
from crossview.errors import UserError

MISSING = -1
"""A slot that no camera of the scene fills."""
_MIXED = (
    "; cameras that never ran together can only be trained on beside others, as a catalog of `data.mix` that has the "
    "pairing 'paired'"
)


def fits(recording: Recording, view: View) -> bool:
    """Whether the recording may serve as the view."""
    return view.perspective in ("any", recording.perspective)


class Singles:
    """Every recording of one perspective by itself."""

    def __init__(self, catalog: Catalog, sampling: Sampling) -> None:
        ((name, view),) = sampling.views.items()
        self._table = np.array([[i] for i in candidates(catalog, name, view)], np.int64)
        self.slots = (name,)
        self.drawn = frozenset(int(i) for i in self._table[:, 0])
        self.rows = len(self._table)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """int64 (rows, 1)."""
        del rng
        return self._table


class Pairs:
    """Two recordings that share an action ("unpaired") or a scene ("synchronized", "paired"), never the same file.

    The larger side of each action or scene gives one row per recording; the smaller side is dealt out in random order,
    again and again, so that every recording with a partner occurs in every epoch; `drawn` has these. Raises ValueError
    if no recording has one.
    """

    def __init__(self, catalog: Catalog, sampling: Sampling) -> None:
        key = "action" if sampling.pairing == "unpaired" else "scene"
        self.slots = tuple(sampling.views)
        sides = [candidates(catalog, name, view) for name, view in sampling.views.items()]
        recordings = catalog.recordings
        # Two recordings may name one file (two roles of it), and a file must not be paired with itself.
        numbers: dict[tuple[str, int], int] = {}
        self._files = np.array(
            [numbers.setdefault((r.path, r.first_frame), len(numbers)) for r in recordings], np.int64
        )
        grouped: dict[tuple[str, bool, str], tuple[list[int], list[int]]] = {}
        for side, indices in enumerate(sides):
            for i in indices:
                recording = recordings[i]
                dataset = "" if key == "action" else recording.dataset  # which a scene belongs to
                together = (dataset, recording.has_pixels, getattr(recording, key))
                grouped.setdefault(together, ([], []))[side].append(i)
        self._groups: list[tuple[np.ndarray, np.ndarray, bool]] = []
        for first, second in grouped.values():
            clocked = sampling.pairing == "synchronized"
            parts = _simultaneous(recordings, first, second) if clocked else [(first, second)]
            for part in parts:
                self._add(*part)
        self.rows = sum(len(longer) for longer, _, _ in self._groups)
        self.drawn = frozenset(int(i) for longer, shorter, _ in self._groups for i in (*longer, *shorter))
        if not self.rows and key == "action":
            (_, _, action), (first, second) = next(iter(grouped.items()))
            raise UserError(_no_partner(catalog, sampling, action, len(first), len(second)))
        if not self.rows:
            raise UserError(_no_pair(catalog, sampling, [members for members in grouped.values() if all(members)]))

    def _add(self, first: list[int], second: list[int]) -> None:
        """Take in recordings that may all be paired, except a file with itself."""
        swapped = len(second) > len(first)
        longer, shorter = (second, first) if swapped else (first, second)
        partners = [i for i in longer if any(self._files[i] != self._files[j] for j in shorter)]
        if partners:
            self._groups.append((np.array(partners), np.array(shorter), swapped))

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """int64 (rows, 2), columns in the order of the sampling's views."""
        return np.concatenate([self._pairs(rng, *group) for group in self._groups])

    def possible(self) -> np.ndarray:
        """Every pair that some epoch may have: int64 (pairs, 2), columns as in `epoch`."""
        found = [
            (j, i) if swapped else (i, j)
            for longer, shorter, swapped in self._groups
            for i in longer.tolist()
            for j in shorter.tolist()
            if self._files[i] != self._files[j]
        ]
        return np.array(found, np.int64)

    def _pairs(self, rng: np.random.Generator, longer: np.ndarray, shorter: np.ndarray, swapped: bool) -> np.ndarray:
        deals = -(-len(longer) // len(shorter))
        dealt = np.concatenate([rng.permutation(shorter) for _ in range(deals)])
        partner = dealt[: len(longer)].copy()
        turn = 0
        while (same := self._files[partner] == self._files[longer]).any():
            turn += 1  # use the next one dealt; the skipped file is in this row already
            partner[same] = np.roll(dealt, -turn)[: len(longer)][same]
        return np.stack([partner, longer] if swapped else [longer, partner], axis=1)


class Groups:
    """All cameras of a scene, `View.count` slots per view; more cameras than slots spread over several rows."""

    def __init__(self, catalog: Catalog, sampling: Sampling) -> None:
        for name, view in sampling.views.items():
            candidates(catalog, name, view)
        self._views = list(sampling.views.values())
        self.slots = tuple(name for name, view in sampling.views.items() for _ in range(view.count))
        scenes: dict[tuple[str, bool, str], list[list[int]]] = {}
        for i, recording in enumerate(catalog.recordings):
            for v, view in enumerate(self._views):
                if fits(recording, view):  # a camera fills a slot of the first view that it fits
                    scenes.setdefault(recording.take, [[] for _ in self._views])[v].append(i)
                    break
        self._scenes = list(scenes.values())
        members = [[i for of_view in cameras for i in of_view] for cameras in self._scenes]
        self.drawn = frozenset(i for cameras in members for i in cameras)
        if len(self.slots) > 1:
            problems = Problems()
            for cameras in members:
                _check_clock(catalog, cameras, problems)
            problems.refuse()
        self._rows = [
            max(-(-len(cameras) // view.count) for cameras, view in zip(scene, self._views, strict=True))
            for scene in self._scenes
        ]
        self.rows = sum(self._rows)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """int64 (rows, slots), MISSING where the scene has too few cameras."""
        table = np.full((self.rows, len(self.slots)), MISSING, np.int64)
        row = 0
        for scene, rows in zip(self._scenes, self._rows, strict=True):
            column = 0
            for cameras, view in zip(scene, self._views, strict=True):
                order = rng.permutation(cameras) if len(cameras) > view.count else np.array(cameras, np.int64)
                count = min(len(cameras), view.count)
                for k in range(rows if count else 0):
                    chosen = order.take(range(k * count, (k + 1) * count), mode="wrap")
                    table[row + k, column : column + count] = np.sort(chosen)
                column += view.count
            row += rows
        return table


def _simultaneous(
    recordings: Sequence[Recording], first: list[int], second: list[int]
) -> Iterable[tuple[list[int], list[int]]]:
    """A scene's two sides in parts within which every recording of one side runs while each of the other does.

    A scene whose cameras all run together is one part; a recording without a contemporary is in none.
    """
    parts: dict[tuple[int, ...], list[int]] = {}
    for i in first:
        others = tuple(j for j in second if run_together([recordings[i], recordings[j]]))
        parts.setdefault(others, []).append(i)
    return [(members, list(others)) for others, members in parts.items() if others]


def _check_clock(catalog: Catalog, cameras: list[int], problems: Problems) -> None:
    """Add a problem if the cameras of a scene, which share rows, have no common instant."""
    found = [catalog.recordings[i] for i in cameras]
    if run_together(found):
        return
    if clocks_apart(found):
        problems.add(
            f"catalog {catalog.place}: the cameras {', '.join(r.view for r in found)} of scene {found[0].scene!r} have "
            "no common clock, as the dataset says: train with a method whose pairing is 'paired' or 'unpaired'"
        )
        return
    first_s, last_s = overlap(found)
    furthest = max(found, key=lambda r: abs(r.start_offset_s))
    problems.add(
        f"catalog {catalog.place}: the cameras {', '.join(r.view for r in found)} of scene {found[0].scene!r} have no "
        f"common instant (the last starts at {first_s:.1f} s, the first ends at {last_s:.1f} s)"
        f"{_milliseconds(furthest, [r for r in found if r is not furthest])}: correct start_offset_s{_MIXED}"
    )


def clock_error(camera: Recording, others: Sequence[Recording]) -> str:
    """That a camera never runs while others of its scene do, and what may be wrong with its start_offset_s."""
    if clocks_apart([camera, *others]):
        names = _first_three([r.view for r in (camera, *others)])
        return f"scene {camera.scene!r}: the clocks of {names} ({camera.path}) are not common, as the dataset says"
    return (
        f"scene {camera.scene!r}: camera {camera.view} ({camera.path}) runs from {camera.start_s:.1f} to "
        f"{camera.end_s:.1f} s, {_first_three([_span(group) for group in _without_gaps(others)])}"
        f"{_milliseconds(camera, others)}"
    )


def _without_gaps(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """Groups of cameras, in order of time, of which some camera runs at every instant of the group's span."""
    groups: list[list[Recording]] = []
    for recording in sorted(recordings, key=lambda r: r.start_s):
        if groups and recording.start_s <= max(r.end_s for r in groups[-1]):
            groups[-1].append(recording)
        else:
            groups.append([recording])
    return groups


def _span(group: Sequence[Recording]) -> str:
    first_s, last_s = min(r.start_s for r in group), max(r.end_s for r in group)
    return f"{_first_three([r.view for r in group])} from {first_s:.1f} to {last_s:.1f} s"


def _first_three(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def _milliseconds(camera: Recording, others: Sequence[Recording]) -> str:
    """A hint if the clocks would agree with its offset, or all of them, read as milliseconds."""
    if abs(camera.start_offset_s) < 10:
        return ""
    meant = replace(camera, start_offset_s=camera.start_offset_s / 1000)
    scaled = [replace(r, start_offset_s=r.start_offset_s / 1000) for r in others]
    if not run_together([meant, *others]) and not run_together([meant, *scaled]):
        return ""
    return (
        f"; start_offset_s counts seconds: is {camera.start_offset_s:g} in milliseconds, and {meant.start_offset_s:g} "
        "meant?"
    )


def candidates(catalog: Catalog, name: str, view: View) -> list[int]:
    """Indices of the recordings that fit a view; raises ValueError if there are none."""
    found = [i for i, recording in enumerate(catalog.recordings) if fits(recording, view)]
    if not found:
        here = sorted({str(r.perspective) for r in catalog.recordings}) or ["no recording at all"]
        raise UserError(
            f"catalog {catalog.place}: view {name!r} asks for {view.perspective!r} recordings, but the catalog holds "
            f"{', '.join(here)}; add such recordings to the catalog, or correct its perspective column"
        )
    return found


def _no_pair(catalog: Catalog, sampling: Sampling, scenes: Sequence[tuple[list[int], list[int]]]) -> str:
    """Why no scene gives a pair; `scenes` have cameras for both views."""
    what = f"catalog {catalog.place}: no scene has two cameras for the views {_named(sampling)}"
    needs = f"which the method's pairing {sampling.pairing!r} needs"
    apart = [(i, j) for first, second in scenes for i in first for j in second if i != j]
    if sampling.pairing != "synchronized" or not apart:
        return f"{what}, {needs}: give the cameras of a take one scene"
    recordings = catalog.recordings
    pair = sorted((recordings[k] for k in apart[0]), key=lambda r: abs(r.start_offset_s))
    return (
        f"{what} that run at one time, {needs}; {clock_error(pair[1], [pair[0]])}: give the cameras of a take one "
        f"clock by start_offset_s{_MIXED}"
    )


def _named(sampling: Sampling) -> str:
    return ", ".join(f"{name} ({view.perspective})" for name, view in sampling.views.items())


def _no_partner(catalog: Catalog, sampling: Sampling, action: str, first: int, second: int) -> str:
    counts: Iterable[str] = (f"{n} for {v}" for n, v in zip((first, second), sampling.views, strict=True))
    return (
        f"catalog {catalog.place}: action {action!r} has {' and '.join(counts)}, so no two different files to pair; "
        "pairing 'unpaired' needs one for each view of every action: add a recording, drop the action, or merge it"
    )
