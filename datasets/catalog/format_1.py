"""Catalogs of Crossview 0.1 to 0.3, whose recordings had a column "split" and ids split/scene/view."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from crossview.datasets.catalog.protocols import Protocols, one_protocol
from crossview.datasets.catalog.recording import Recording
from crossview.datasets.catalog.tables import ADDED, RECORDINGS, read_rows
from crossview.errors import UserError

_FIRST, *_OTHERS = [column for column in RECORDINGS if column.name not in ADDED]
_COLUMNS = pa.schema([_FIRST, ("split", pa.string()), *_OTHERS])


def read_recordings(folder: Path, root: Path) -> tuple[tuple[Recording, ...], dict[str, str], Protocols]:
    """Recordings, their new ids by old ones, and the splits as the protocol "default".

    Raises ValueError, with the command that makes the catalog again, where two splits have a recording of one scene and
    view, since its new id would name both, and where a part of an id holds a "/".
    """
    again = f"make the catalog again with `crossview prepare DATASET --root {root} --out {folder}`"
    new_ids: dict[str, str] = {}
    taken: dict[str, str] = {}
    members: list[tuple[Recording, str]] = []
    for row in read_rows(folder / "recordings.parquet", _COLUMNS):
        split = row.pop("split")
        try:
            recording = Recording(**row)
        except ValueError as error:
            raise UserError(f"{folder}: this is a catalog of Crossview 0.3; {error}, and {again}") from error
        old = old_id(recording, split)
        if recording.id in taken:
            raise UserError(
                f"{folder}: this catalog of Crossview 0.3 has {taken[recording.id]!r} and {old!r}; an id no longer "
                f"holds the split, so both would be one recording: give every take a scene of its own and {again}"
            )
        taken[recording.id] = old
        new_ids[old] = recording.id
        members.append((recording, split))
    return tuple(recording for recording, _ in members), new_ids, one_protocol(members)


def old_id(recording: Recording, split: str) -> str:
    """What such a catalog calls the recording."""
    return f"{split}/{recording.scene}/{recording.view}"
