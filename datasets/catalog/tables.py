"""The catalog: which recordings exist and what is known about them, as Parquet tables in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import pyarrow as pa

from crossview import storage
from crossview.storage.tables import read_table, write_table

Perspective = Literal["ego", "exo"]
Kind = Literal["video", "features"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One camera's file of one scene.

    Recordings of one `scene` with equal `kind` share a clock once `start_offset_s` is added: the instant of frame k is
    ``start_offset_s + k / fps``.
    """

    dataset: str
    split: str
    scene: str
    view: str
    """Name of the camera within the scene."""
    perspective: Perspective
    subject: str
    action: str
    """What is done in the recording; ego and exo videos of one action may be paired without being synchronous."""
    path: str
    """The file, relative to the catalog's root."""
    kind: Kind
    fps: float
    num_frames: int
    """Frames that a sequential decode of the file yields."""
    height_px: int
    width_px: int
    start_offset_s: float = 0.0

    @property
    def id(self) -> str:
        """Unique within a catalog."""
        return f"{self.split}/{self.scene}/{self.view}"


_TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64()}
_HINTS = get_type_hints(Recording)
RECORDINGS = pa.schema([(f.name, _TYPES.get(_HINTS[f.name], pa.string())) for f in fields(Recording)])
SEGMENTS = pa.schema(
    [
        ("recording", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("name", pa.string()),
        ("label", pa.string()),
    ]
)
FRAME_LABELS = pa.schema([("recording", pa.string()), ("name", pa.string()), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class Segment:
    """A span of one recording that carries a label, e.g. name="action", label="break egg"."""

    recording: str
    start_s: float
    end_s: float
    name: str
    label: str


@dataclass(frozen=True)
class Quarantined:
    """A file that was set aside because it cannot be read."""

    path: str
    """Relative to the catalog's root."""
    reason: str


QUARANTINED = pa.schema([("path", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Catalog:
    """Recordings with their labels.

    `frame_labels[name][recording id]` is an int32 array of one label per frame, e.g. name="phase".
    """

    root: Path
    """Folder that the recordings' paths are relative to."""
    recordings: tuple[Recording, ...]
    segments: tuple[Segment, ...] = ()
    frame_labels: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    """Files that belong to the dataset and are no recordings, because they are unreadable."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for recording in self.recordings:
            if recording.id in seen:
                raise ValueError(
                    f"catalog {self.root}: recording {recording.id!r} appears twice; "
                    "split, scene and view together must name one file"
                )
            seen.add(recording.id)
        for name, by_recording in self.frame_labels.items():
            for recording in self.recordings:
                labels = by_recording.get(recording.id)
                if labels is not None and len(labels) != recording.num_frames:
                    raise ValueError(
                        f"{self.root / recording.path}: {len(labels)} {name!r} labels for {recording.num_frames} "
                        "decoded frames; there must be one label per frame: fix the label file or the video"
                    )

    def file(self, recording: Recording) -> Path:
        """Where the recording's file lies."""
        return storage.as_path(recording.path) if "://" in recording.path else self.root / recording.path

    def select(self, split: str) -> Catalog:
        """The recordings of one split, in their order; raises ValueError where there are none."""
        if not any(r.split == split for r in self.recordings):
            known = sorted({r.split for r in self.recordings})
            raise ValueError(
                f"catalog {self.root}: split {split!r} holds no recording; splits here: {', '.join(known)}"
            )
        return self.keep(lambda r: r.split == split)

    def keep(self, wanted: Callable[[Recording], bool]) -> Catalog:
        """The recordings that are wanted, in their order, with their labels."""
        kept = tuple(r for r in self.recordings if wanted(r))
        ids = {r.id for r in kept}
        labels = {n: {k: v for k, v in by.items() if k in ids} for n, by in self.frame_labels.items()}
        segments = tuple(s for s in self.segments if s.recording in ids)
        return Catalog(self.root, kept, segments, labels, self.quarantined)

    def save(self, folder: Path) -> None:
        """Write the tables to `folder` (recordings, segments, frame_labels, quarantine) and, last, catalog.json.

        Each file is renamed into place once it is whole, so that a reader never sees half of one.
        """
        labels = [
            {"recording": recording, "name": name, "labels": values}
            for name, by_recording in self.frame_labels.items()
            for recording, values in by_recording.items()
        ]
        storage.make_folder(folder)
        _write(folder / "recordings.parquet", [asdict(r) for r in self.recordings], RECORDINGS)
        _write(folder / "segments.parquet", [asdict(s) for s in self.segments], SEGMENTS)
        _write(folder / "frame_labels.parquet", labels, FRAME_LABELS)
        _write(folder / "quarantine.parquet", [asdict(q) for q in self.quarantined], QUARANTINED)
        storage.write_text(folder / "catalog.json", json.dumps({"root": str(self.root.resolve())}, indent=2) + "\n")

    @staticmethod
    def load(folder: Path, root: Path | None = None) -> Catalog:
        """Read the tables that `save` wrote; `root` overrides where the files lie."""
        for name in ("catalog.json", "recordings.parquet"):
            if not storage.is_file(folder / name):
                raise ValueError(f"{folder}: no catalog here ({name} is missing); make one with `crossview prepare`")
        root = root or storage.as_path(json.loads(storage.read_text(folder / "catalog.json"))["root"])
        if not root.is_dir():
            raise ValueError(
                f"{folder}: the catalog's files lay under {root}, which is missing; make the catalog again with "
                "`crossview prepare`, or train with --data.root"
            )
        recordings = tuple(Recording(**row) for row in _read(folder / "recordings.parquet", RECORDINGS))
        segments = tuple(Segment(**row) for row in _read(folder / "segments.parquet", SEGMENTS))
        quarantined = tuple(Quarantined(**row) for row in _read(folder / "quarantine.parquet", QUARANTINED))
        labels: dict[str, dict[str, np.ndarray]] = {}
        for row in _read(folder / "frame_labels.parquet", FRAME_LABELS):
            labels.setdefault(row["name"], {})[row["recording"]] = np.asarray(row["labels"], dtype=np.int32)
        return Catalog(root, recordings, segments, labels, quarantined)


def _write(file: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    write_table(pa.Table.from_pylist(rows, schema=schema), file)


def _read(file: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    try:
        table = read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: not a readable table ({error}); make the catalog again") from error
    if table.schema.names != schema.names:
        raise ValueError(f"{file}: columns {table.schema.names}, not {schema.names}; make the catalog again")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
