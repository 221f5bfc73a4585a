"""A dataset's own annotation files: where they are, and their labelled spans cut to the videos that are there."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path

from crossview.datasets.catalog.found import NAMED, dropped, named
from crossview.datasets.catalog.recording import Recording
from crossview.errors import UserError


def folder_with(root: Path, given: Path | None, names: Sequence[str], what: str) -> Path:
    """The folder that holds any of the files `names`: `given`, or else the root or the first folder in it that does.

    Raises UserError, with the names that were looked for and where one is, or what is there instead, if there is none.
    """
    if not root.is_dir():
        raise UserError(f"{root}: the folder is missing; pass the folder that holds the dataset's files as --root")
    below = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))
    for folder in (root, *below) if given is None else (given,):
        if any((folder / name).is_file() for name in names):
            return folder
    asked = root if given is None else given
    where = "here, or in a folder in it" if given is None else "here"
    deeper = "*/*" if given is None else "*"
    below_it = next((file.parent for name in names for file in sorted(asked.glob(f"{deeper}/{name}"))), None)
    here = sorted(path.name for path in asked.iterdir()) if asked.is_dir() else []
    near = difflib.get_close_matches(names[0], here, NAMED) or here
    held = f"it holds {named(near) or 'nothing'}" if asked.is_dir() else "it is no folder"
    raise UserError(
        f"{asked}: none of {what}, {named(names)}, is {where}; "
        + (f"there is one in {below_it}" if below_it else held)
        + (": pass their folder as --annotations" if given or not below_it else f": pass {below_it.parent} as --root")
    )


class Spans:
    """Spans of annotations, cut to their recordings; counts those that are left out or shortened."""

    def __init__(self) -> None:
        self._outside: list[str] = []
        self._shortened: list[str] = []

    def within(self, recording: Recording, start_s: float, end_s: float, case: str) -> tuple[float, float] | None:
        """The part of a span, in s of the file's clock, that the recording shows; None where it shows none of it."""
        last_s = recording.first_s + recording.num_frames / recording.fps
        if start_s >= last_s or end_s <= 0:
            self._outside.append(case)
            return None
        if last_s + 1 / recording.fps < end_s < math.inf:  # within a frame, it is rounding
            self._shortened.append(case)
        return max(0.0, start_s), min(end_s, last_s)

    def notes(self) -> tuple[str, ...]:
        """Sentences on what was counted, with the first few cases."""
        said = dropped({"spans outside their video": self._outside})
        if self._shortened:
            said += (f"spans shortened to the end of their video: {len(self._shortened):,} ({named(self._shortened)})",)
        return said
