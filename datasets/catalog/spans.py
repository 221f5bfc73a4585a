"""Parts of files: a recording may be a span of a longer file, and what overlaps is the same video."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crossview.datasets.catalog.listing import Problems


@dataclass(frozen=True)
class Part:
    """Half-open span of a file, in frames or in seconds; by default all of it."""

    path: str
    """Relative to the catalog's root."""
    first: float = 0
    stop: float = math.inf


def clashes(root: Path, parts: Iterable[tuple[Part, Hashable]]) -> Iterator[tuple[int, int]]:
    """Places of parts that overlap another part of their file, under any of its names, with another key.

    Yields (place, place of the other), the later one first; each place is first in at most one pair.
    """
    of_file: dict[Path, list[tuple[float, int, float, Hashable, str]]] = {}
    resolved: dict[str, Path] = {}
    for place, (part, key) in enumerate(parts):
        file = resolved.setdefault(part.path, (root / part.path).resolve())
        of_file.setdefault(file, []).append((part.first, place, part.stop, key, part.path))
    found: dict[int, int] = {}
    for listed in of_file.values():
        furthest: dict[Hashable, tuple[float, int]] = {}  # by key, where the parts so far end
        for first, place, stop, key, _ in sorted(listed, key=lambda entry: entry[:2]):
            for other_key, (other_stop, other) in furthest.items():
                if other_key != key and first < other_stop:
                    found.setdefault(max(place, other), min(place, other))
            furthest[key] = max(furthest.get(key, (-math.inf, place)), (stop, place), key=lambda entry: entry[0])
    yield from sorted(found.items())


def check_splits(root: Path, listed: Iterable[tuple[str, Part]], source: Path | str) -> None:
    """Raise UserError if two splits share a part of a file, under any of its names: it would be tested on its twin.

    listed: (split, part) of every recording in one protocol; `source` names what the user can correct, such as a list
    of files.
    """
    problems = Problems()
    for _, problem in split_conflicts(root, listed):
        problems.add(f"{source}: {problem}")
    problems.refuse()


def split_conflicts(root: Path, listed: Iterable[tuple[str, Part]]) -> Iterator[tuple[int, str]]:
    """Places in `listed` (as in `check_splits`) of parts that an earlier place has in another split, and the error."""
    listed = list(listed)
    for place, other in clashes(root, ((part, split) for split, part in listed)):
        (split, part), (known_split, known) = listed[place], listed[other]
        also = "" if known.path == part.path else f", there as {known.path}"
        spans = "" if part.stop == known.stop == math.inf else "; spans of one file in different splits do not overlap"
        yield (
            place,
            f"{part.path} is in split {split!r} and in split {known_split!r}{also}; a file belongs to one "
            f"split, or training sees what is evaluated: remove it from one of them{spans}",
        )
