"""The catalog: which recordings exist and what is known about them, as Parquet tables in one folder."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from crossview import storage
from crossview.datasets.catalog.classes import (
    Classes,
    check_frame_labels,
    check_segments,
    class_rows,
    classes_from,
    shown,
)
from crossview.datasets.catalog.format_1 import read_recordings
from crossview.datasets.catalog.protocols import Protocols, choose, protocol_rows, protocols_from
from crossview.datasets.catalog.recording import Quarantined, Recording, Segment
from crossview.datasets.catalog.tables import (
    ADDED,
    CLASSES,
    FRAME_LABELS,
    PROTOCOLS,
    QUARANTINED,
    RECORDINGS,
    SEGMENTS,
    read_rows,
    read_saved,
    write_rows,
)
from crossview.datasets.video.frame_index import cached_index
from crossview.datasets.video.source import Source
from crossview.errors import UserError

FORMAT = 3
"""Of the tables, in catalog.json; format 1 is that of Crossview 0.1 to 0.3, format 2 of 0.4 and 0.5."""
INDICES = "frame_index"
"""Folder of the files' frame indices, in the catalog's."""


@dataclass(frozen=True)
class Catalog:
    """Recordings with their labels, the splits that protocols give them, and the numbers of classes.

    `frame_labels[name][recording id]` is an int32 array of one label per frame, e.g. name="phase".
    """

    root: Path
    """Folder that the recordings' paths are relative to."""
    recordings: tuple[Recording, ...]
    segments: tuple[Segment, ...] = ()
    frame_labels: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    """Files that belong to the dataset and are no recordings, because they are unreadable."""
    protocols: Protocols = field(default_factory=dict)
    """By name, the split of each recording that takes part; the first is the dataset's own default."""
    classes: Classes = field(default_factory=dict)
    """The names of each kind that the dataset declares, by their number; see `all_classes`."""
    notes: tuple[str, ...] = ()
    """What was found of the dataset, listed and missing, and dropped from its annotations: a sentence each."""
    folder: Path | None = None
    """Where the tables are, which the paths of frame indices are relative to; None before they are written."""

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for recording in self.recordings:
            known = seen.setdefault(recording.file_stem, recording.id)
            if known != recording.id:
                raise UserError(
                    f"catalog {self.place}: recordings {known!r} and {recording.id!r} would have one file name, "
                    f"{recording.file_stem}; rename a scene or a view"
                )
        if len(seen) < len(self.recordings):
            raise UserError(_twice(self))
        where = f"catalog {self.place}"
        check_segments(self.classes, self.segments, where)
        for name, by_recording in self.frame_labels.items():
            for recording in self.recordings:
                labels = by_recording.get(recording.id)
                if labels is None:
                    continue
                if len(labels) != recording.num_frames:
                    raise UserError(
                        f"{self.root / recording.path}: {len(labels)} {name!r} labels for {recording.num_frames} "
                        "decoded frames; there must be one label per frame: fix the label file or the video"
                    )
                check_frame_labels(self.classes, name, recording, labels, where)

    def file(self, recording: Recording) -> Path:
        """Path of the recording's file."""
        return storage.as_path(recording.path) if "://" in recording.path else self.root / recording.path

    def source(self, recording: Recording) -> Source:
        """Where its frames are; raises ValueError for features."""
        if recording.kind == "features":
            raise UserError(f"{self.file(recording)}: it holds features, which have no pictures")
        return Source(self.file(recording), recording.kind, self._index(recording), recording.first_frame)

    def frames_in_file(self, recording: Recording) -> int:
        """Frames of the whole file, which a recording may be a span of."""
        index = self._index(recording)
        return recording.num_frames if index is None else len(cached_index(index).pts)

    def instants(self, recording: Recording, frames: np.ndarray) -> np.ndarray:
        """When frames int64 (n,) of a recording are shown, in s on its scene's clock: float64 (n,).

        Raises ValueError if its rate varies and its frame index is missing.
        """
        if recording.constant_rate:
            return recording.start_s + frames / recording.fps
        return self._times_s(recording)[frames]

    def frames_at(self, recording: Recording, instants: np.ndarray) -> np.ndarray:
        """The frame shown nearest to each instant in s, of two the later one or, at a constant rate, the even one.

        float64 (n,) -> int64 (n,); raises as `instants` does.
        """
        last = recording.num_frames - 1
        if recording.constant_rate:
            return np.clip(np.rint((instants - recording.start_s) * recording.fps).astype(np.int64), 0, last)
        times_s = self._times_s(recording)
        after = np.clip(np.searchsorted(times_s, instants), 1, max(1, last))
        before = after - 1
        nearer = np.abs(times_s[np.minimum(after, last)] - instants) <= np.abs(times_s[before] - instants)
        return np.minimum(np.where(nearer, after, before), last)

    def _times_s(self, recording: Recording) -> np.ndarray:
        """Instants of all frames, from the index: float64 (L,)."""
        index = self._index(recording)
        if index is None:
            raise UserError(
                f"{self.file(recording)}: its rate varies, and the catalog has no frame index of it; make the catalog "
                "again with `crossview prepare`"
            )
        start = recording.first_frame
        times_s = cached_index(index).times_s[start : start + recording.num_frames]
        return recording.start_s + (times_s - times_s[0])

    def _index(self, recording: Recording) -> Path | None:
        """The file of its frame index."""
        return (self.folder or Path()) / recording.index if recording.index else None

    @property
    def place(self) -> Path:
        """The folder that errors name: the catalog's own, or the files' before the catalog is written."""
        return self.folder or self.root

    def all_classes(self) -> Classes:
        """Names by kind: what the dataset declares, and of other kinds what this catalog shows, in natural order."""
        return shown(self.recordings, self.segments) | self.classes

    def under(self, protocol: str | None) -> Catalog:
        """The catalog with this protocol alone; None is the only one.

        Raises ValueError for an unknown name, and for None if there are several, that lists the names.
        """
        if protocol is None and not self.protocols:
            return self
        name = choose(self.protocols, protocol, f"catalog {self.place}")
        return replace(self, protocols={name: self.protocols[name]})

    def select(self, split: str, protocol: str | None = None) -> Catalog:
        """The recordings of one split, in their order; `protocol` as in `under`.

        Raises ValueError if the split has none. Classes keep the numbers that they have in this catalog.
        """
        name = choose(self.protocols, protocol, f"catalog {self.place}")
        of = self.protocols[name]
        part = self.keep(lambda r: of.get(r.id) == split)
        if not part.recordings:
            known = sorted({of[r.id] for r in self.recordings if r.id in of})
            which = f" in protocol {name!r}" if len(self.protocols) > 1 else ""
            raise UserError(
                f"catalog {self.place}: split {split!r} holds no recording{which}; splits here: {', '.join(known)}"
            )
        return part.under(name)

    def split_of(self, recording: Recording) -> str | None:
        """Its split in the catalog's one protocol; None if it takes no part, or the catalog has several."""
        (of,) = self.protocols.values() if len(self.protocols) == 1 else ({},)
        return of.get(recording.id)

    def keep(self, wanted: Callable[[Recording], bool]) -> Catalog:
        """The recordings that are wanted, in their order, with their labels and the class numbers of this catalog."""
        kept = tuple(r for r in self.recordings if wanted(r))
        ids = {r.id for r in kept}
        labels = {n: {k: v for k, v in by.items() if k in ids} for n, by in self.frame_labels.items()}
        segments = tuple(s for s in self.segments if s.recording in ids)
        splits = {n: {k: v for k, v in of.items() if k in ids} for n, of in self.protocols.items()}
        classes, notes = self.all_classes(), self.notes
        return Catalog(self.root, kept, segments, labels, self.quarantined, splits, classes, notes, self.folder)

    def save(self, folder: Path) -> Catalog:
        """Write the tables and frame indices to `folder` and, last, catalog.json; returns the catalog that is there.

        recordings, segments, frame_labels, protocols, classes, quarantine: each file is renamed into place once it is
        whole, so that a reader never sees half of one.
        """
        labels = [
            {"recording": recording, "name": name, "labels": values}
            for name, by_recording in self.frame_labels.items()
            for recording, values in by_recording.items()
        ]
        storage.make_folder(folder)
        recordings = tuple(replace(r, index=self._index_in(folder, r)) for r in self.recordings)
        write_rows(folder / "recordings.parquet", [asdict(r) for r in recordings], RECORDINGS)
        write_rows(folder / "segments.parquet", [asdict(s) for s in self.segments], SEGMENTS)
        write_rows(folder / "frame_labels.parquet", labels, FRAME_LABELS)
        write_rows(folder / "protocols.parquet", protocol_rows(self.protocols, self.recordings), PROTOCOLS)
        write_rows(folder / "classes.parquet", class_rows(self.all_classes()), CLASSES)
        write_rows(folder / "quarantine.parquet", [asdict(q) for q in self.quarantined], QUARANTINED)
        facts = {"format": FORMAT, "root": str(self.root.resolve()), "notes": self.notes}
        storage.write_text(folder / "catalog.json", json.dumps(facts, indent=2) + "\n")
        return replace(self, recordings=recordings, folder=folder.resolve())

    def _index_in(self, folder: Path, recording: Recording) -> str:
        """Its index relative to `folder`, to which it is copied if it is elsewhere; "" for none."""
        index = self._index(recording)
        if index is None:
            return ""
        kept = folder / INDICES / index.name
        if kept != index and not storage.is_file(kept):
            storage.make_folder(kept.parent)
            storage.write(kept, lambda partial: partial.write_bytes(storage.local(index).read_bytes()))
        return f"{INDICES}/{index.name}"

    @staticmethod
    def load(folder: Path, root: Path | None = None) -> Catalog:
        """Read the tables that `save` wrote, here or in Crossview 0.3; `root` overrides where the files are."""
        for name in ("catalog.json", "recordings.parquet"):
            if not storage.is_file(folder / name):
                raise UserError(f"{folder}: no catalog here ({name} is missing); make one with `crossview prepare`")
        facts = storage.read_json(folder / "catalog.json", "make the catalog again with `crossview prepare`")
        version = facts.get("format", 1)
        if isinstance(version, int) and version > FORMAT:
            raise UserError(
                f"{folder}: a newer Crossview wrote this catalog (format {version}; this one reads up to {FORMAT}); "
                "update Crossview, or make the catalog again with `crossview prepare`"
            )
        if not isinstance(version, int) or not isinstance(facts.get("root"), str):
            raise UserError(
                f"{folder / 'catalog.json'}: format is {version!r} and root {facts.get('root')!r}; they must be a "
                "number and a path: make the catalog again with `crossview prepare`"
            )
        root = root or storage.as_path(facts["root"])
        if not root.is_dir():
            raise UserError(
                f"{folder}: the catalog's files were under {root}, which is missing; put them back there or make the "
                "catalog again with `crossview prepare`; only a new run or search can look elsewhere, with --data.root"
            )
        if version == 1:
            return _read_1(folder, root)
        notes = tuple(str(note) for note in facts.get("notes") or ())
        with _no_collection():
            return _read(folder, root, notes)


@contextmanager
def _no_collection() -> Iterator[None]:
    """The collector of cycles, which has nothing to collect in new tables, would go through them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(folder: Path, root: Path, notes: tuple[str, ...]) -> Catalog:
    recordings = read_saved(folder / "recordings.parquet", Recording, RECORDINGS, ADDED)
    segments = read_saved(folder / "segments.parquet", Segment, SEGMENTS)
    quarantined = tuple(Quarantined(**row) for row in read_rows(folder / "quarantine.parquet", QUARANTINED))
    labels: dict[str, dict[str, np.ndarray]] = {}
    for row in read_rows(folder / "frame_labels.parquet", FRAME_LABELS):
        labels.setdefault(row["name"], {})[row["recording"]] = np.asarray(row["labels"], dtype=np.int32)
    file = folder / "protocols.parquet"
    splits = protocols_from(read_rows(file, PROTOCOLS), file)
    file = folder / "classes.parquet"
    names = classes_from(read_rows(file, CLASSES), file)
    return Catalog(root, recordings, segments, labels, quarantined, splits, names, notes, folder.resolve())


def _read_1(folder: Path, root: Path) -> Catalog:
    """A catalog without protocols and classes, whose recordings' ids hold the split."""
    recordings, new_ids, splits = read_recordings(folder, root)
    segments = tuple(
        Segment(**row | {"recording": new_ids[row["recording"]]})
        for row in read_rows(folder / "segments.parquet", SEGMENTS)
        if row["recording"] in new_ids
    )
    quarantined = tuple(Quarantined(**row) for row in read_rows(folder / "quarantine.parquet", QUARANTINED))
    labels: dict[str, dict[str, np.ndarray]] = {}
    for row in read_rows(folder / "frame_labels.parquet", FRAME_LABELS):
        if row["recording"] in new_ids:
            values = np.asarray(row["labels"], dtype=np.int32)
            labels.setdefault(row["name"], {})[new_ids[row["recording"]]] = values
    names = shown(recordings, segments)
    return Catalog(root, recordings, segments, labels, quarantined, splits, names)


def _twice(catalog: Catalog) -> str:
    twice = Counter(r.id for r in catalog.recordings).most_common(1)[0][0]
    return (
        f"catalog {catalog.place}: recording {twice!r} appears twice; dataset, scene and view together must name one "
        "file, in whatever splits: rename a scene or a view"
    )
