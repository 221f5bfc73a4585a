"""The plan: which frames of which recordings make sample i of a run, before any file is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.pairing import MISSING, Groups, Pairs, Singles
from crossview.datasets.sampling.spec import Sampling
from crossview.datasets.sampling.units import Units
from crossview.datasets.sampling.windows import Cut, Starts, common_frames, frames_of, proportional
from crossview.datasets.video.framing import Region
from crossview.errors import UserError

_FRAMES, _ORDER, _SEED, _REGION = 1, 2, 3, 4  # keep the streams of random numbers apart


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one recording."""

    view: str
    """Name in `Sampling.views`."""
    recording: int
    """Index into the catalog's recordings."""
    frames: np.ndarray
    """int64 (T,), sorted, with repeats where the recording is short."""
    length: int | None = None
    """Frames that count, where windows differ in length."""
    region: Region | None = None
    """Part of the displayed picture that the clip shows; None is all of it."""
    segment: tuple[float, float] | None = None
    """Start and end in s of the labelled segment that it is drawn for; None where that is the whole recording."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Clip)
            and (self.view, self.recording, self.length) == (other.view, other.recording, other.length)
            and (self.region, self.segment) == (other.region, other.segment)
            and np.array_equal(self.frames, other.frames)
        )

    def __hash__(self) -> int:
        return hash((self.view, self.recording, self.frames.tobytes()))


@dataclass(frozen=True)
class Row:
    """What travels together, so that each of its files is opened once and read forward once."""

    sample: int
    """Row of the plan, counted over all epochs."""
    seed: int
    """63-bit hash of the plan's seed and `sample`, for noise that belongs to the sample."""
    clips: tuple[tuple[Clip | None, ...], ...]
    """clips[window][slot]; None if a scene has no camera for the slot."""


class Plan:
    """An endless sequence of rows; row i is a pure function of (catalog, sampling, seed, i).

    The catalog is one split's (`Catalog.select`): whatever shares an action or a scene may share a row.
    An epoch visits every recording that the views can use, in a seeded order of its own. `single`: a row per recording.
    `unpaired`, `synchronized`, `paired`: per action or scene a row per recording of its larger side. `group`: a row per
    scene, more where a scene has more cameras than slots. Recordings without a second file of their action, or a second
    camera of their scene, which for `synchronized` must run at the same time, stay out of pairs: `drawn` has the
    indices of those that are in rows, and `coverage.plan_warnings` says why the others are not.
    With `Sampling.unit`, segments of recordings are in the place of recordings; with `Sampling.draws`, what a row shows
    of one depends on it and on which of its draws the epoch shows.
    `labels` come from the whole dataset where `catalog` is a part of it.
    Raises ValueError if the catalog cannot give what the sampling asks for.
    """

    embedded: Path | None = None
    """Folder of embeddings of all its clips, which are read in place of frames."""

    def __init__(self, catalog: Catalog, sampling: Sampling, seed: int, labels: Labels | None = None) -> None:
        if seed < 0:
            raise UserError(f"seed is {seed}; it must be 0 or more")
        for recording in catalog.recordings:
            if recording.num_frames < 1 or recording.fps <= 0:
                raise UserError(
                    f"{catalog.file(recording)}: {recording.num_frames} frames at {recording.fps} fps in the catalog; "
                    "both must be above 0: catalog the file again or drop it"
                )
        self.catalog = catalog
        self.labels = labels or Labels(catalog, sampling.labels, sampling.label_options)
        self.sampling = sampling
        self.seed = seed
        self.units = Units.of(catalog, sampling.unit)
        kinds: dict[str, type[Singles | Pairs | Groups]] = {"single": Singles, "group": Groups}
        self._cameras = kinds.get(sampling.pairing, Pairs)(self.units.catalog, sampling)
        self.slots: tuple[str, ...] = self._cameras.slots
        self.rows_per_epoch: int = self._cameras.rows
        self.drawn = frozenset(int(self.units.recordings[i]) for i in self._cameras.drawn)
        self._epoch = -1
        self._table = np.empty((0, 0), np.int64)

    def row(self, i: int) -> Row:
        """Sample `i`, counted from 0 over all epochs."""
        if i < 0:
            raise IndexError(f"row {i}: rows count from 0")
        epoch, place = divmod(i, self.rows_per_epoch)
        units = self._rows_of(epoch)[place]
        row_seed = int(np.random.SeedSequence((self.seed, i, _SEED)).generate_state(1, np.uint64)[0] >> np.uint64(1))
        draws = self.sampling.draws
        draw = i if draws is None else self._draw(int(units[0]), epoch % draws)
        return Row(i, row_seed, self._clips(units, draw))

    def clips_of(self, recording: int) -> list[Clip]:
        """Every clip that the rows of any epoch show of a recording, where `Sampling.rows_per_unit` is a number."""
        draws = self.sampling.rows_per_unit
        assert draws is not None
        first, stop = np.searchsorted(self.units.recordings, (recording, recording + 1)).tolist()
        units = [unit for unit in range(first, stop) if unit in self._cameras.drawn]
        rows = [self._clips(np.array([unit]), self._draw(unit, draw)) for unit in units for draw in range(draws)]
        return [clip for row in rows for window in row for clip in window if clip is not None]

    def _draw(self, unit: int, draw: int) -> int:
        """In place of a row's number, one that its rows in other epochs may share."""
        return draw * len(self.units.recordings) + unit

    def _clips(self, units: np.ndarray, draw: int) -> tuple[tuple[Clip | None, ...], ...]:
        """What a row shows of its units int64 (slots,), a pure function of these, the seed and `draw`."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, draw, _FRAMES))))
        starts = Starts(self.sampling.window_stride, rng)
        windows = [self._window(units, starts, rng) for _ in range(self.sampling.windows)]
        return tuple(self._cut_out(window, (self.seed, draw, w)) for w, window in enumerate(windows))

    def _rows_of(self, epoch: int) -> np.ndarray:
        """Recordings of one epoch in its order, int64 (rows, slots); only the last epoch asked for is kept."""
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch, _ORDER))))
            self._table = rng.permutation(self._cameras.epoch(rng))
            self._epoch = epoch
        return self._table

    def _window(self, recordings: np.ndarray, starts: Starts, rng: np.random.Generator) -> tuple[Clip | None, ...]:
        """One clip per slot."""
        present = [int(i) for i in recordings if i != MISSING]
        catalog = self.units.catalog
        found = [catalog.recordings[i] for i in present]
        views = [self.sampling.views[slot] for slot in self.slots]
        cut = Cut.draw(self.sampling, views[0], starts, rng)
        counts = [self.sampling.max_frames(view) for view in views]
        if self.sampling.pairing in ("synchronized", "group"):
            frames = common_frames(catalog, found, views[0], cut, counts[0])
        elif self.sampling.pairing == "paired":
            anchor = frames_of(catalog, found[0], views[0], cut, counts[0], rng)
            frames = [anchor, proportional(catalog, anchor, found[0], found[1], counts[1])]
        else:
            facts = zip(found, views, counts, strict=True)
            frames = [frames_of(catalog, recording, view, cut, count, rng) for recording, view, count in facts]
        drawn = iter(zip(present, frames, strict=True))
        return tuple(
            None if i == MISSING else self._clip(slot, *next(drawn), cut.length)
            for slot, i in zip(self.slots, recordings, strict=True)
        )

    def _clip(self, slot: str, unit: int, frames: np.ndarray, length: int | None) -> Clip:
        units = self.units
        segment = units.segments[unit] if units.segments else None
        return Clip(slot, int(units.recordings[unit]), frames + units.first_frames[unit], length, segment=segment)

    def _cut_out(self, clips: tuple[Clip | None, ...], window: tuple[int, int, int]) -> tuple[Clip | None, ...]:
        """The clips of one window with their regions, drawn apart from frames."""
        return tuple(clip and self._with_region(clip, (*window, slot)) for slot, clip in enumerate(clips))

    def _with_region(self, clip: Clip, place: tuple[int, int, int, int]) -> Clip:
        facts, view = self.catalog.recordings[clip.recording], self.sampling.views[clip.view]
        geometry = view.geometry
        if facts.kind == "features" or geometry.fit != "crop":
            return clip
        if not geometry.drawn:
            return replace(clip, region=geometry.centre(facts.height_px, facts.width_px, view.size_px))
        seed, draw, window, slot = place
        own = (seed, draw, window, 0 if geometry.shared else slot, _REGION)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(own)))
        return replace(clip, region=geometry.region(facts.height_px, facts.width_px, view.size_px, rng))
