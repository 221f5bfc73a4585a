"""The numbered images of a folder, in their natural order."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from crossview import storage
from crossview.datasets.video.frames import UnreadableVideo

ENDINGS = (".jpg", ".jpeg", ".png")
_IGNORED = ("thumbs.db", "desktop.ini")
"""Written by file managers, as are names that begin with a dot."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a folder in the order of their numbers; frame k is the k-th of them."""

    folder: Path
    names: tuple[str, ...]
    numbers: np.ndarray
    """int64 (n,), increasing: the numbers in the names that count frames."""

    @property
    def step(self) -> int:
        """From one number to the next, where it is always the same; else 1, and numbers are missing."""
        steps = np.diff(self.numbers)
        return int(steps[0]) if len(steps) and bool((steps == steps[0]).all()) else 1

    def gaps(self) -> str | None:
        """How many numbers are missing, and where the first is; None if none is."""
        steps = np.diff(self.numbers)
        if not (at := np.flatnonzero(steps != self.step)).size:
            return None
        return (
            f"{self.folder}: {int((steps - 1).sum())} numbers are missing between its {len(self.names)} images, first "
            f"after {self.names[at[0]]}, where {self.names[at[0] + 1]} follows"
        )

    def compact(self) -> str | list[str]:
        """The names as a format of their numbers, such as "frame_{:010}.jpg", or all of them where none gives them."""
        shortest = min(self.names, key=len)
        parts = re.split(r"([0-9]+)", shortest)
        for k in range(1, len(parts), 2):
            before, after = "".join(parts[:k]), "".join(parts[k + 1 :])
            width = len(parts[k])
            if all(
                name == f"{before}{number:0{width}}{after}"
                for name, number in zip(self.names, self.numbers.tolist(), strict=True)
            ):
                before, after = (text.replace("{", "{{").replace("}", "}}") for text in (before, after))
                return f"{before}{{:0{width}}}{after}"
        return list(self.names)


def is_image_folder(path: Path) -> bool:
    """Whether `path` is a folder, or a folder and a pattern for names in it, such as ``take_1/*_rgb.jpg``."""
    try:
        return path.is_dir() or ("*" in path.name and path.parent.is_dir())
    except OSError:  # a name that no file system takes
        return False


def folder_of(path: Path) -> Path:
    """The folder that is named, with or without a pattern."""
    return path.parent if "*" in path.name and not path.is_dir() else path


def listing(path: Path) -> Listing:
    """List a folder, or those of its files that match the pattern in `path.name`; raises UnreadableVideo.

    Names differ in nothing but their numbers. The first number in which they differ counts the frames, in its natural
    order: frame_2.jpg comes before frame_10.jpg. It may have gaps, but no two images have the same.
    """
    folder = folder_of(path)
    pattern = None if folder == path else path.name
    try:
        changed = folder.stat().st_mtime_ns if storage.is_local(folder) else 0
    except OSError as error:
        raise UnreadableVideo(f"{path}: {error.strerror or error}") from error
    return _listed(folder, pattern, changed)


@lru_cache(maxsize=4)
def _listed(folder: Path, pattern: str | None, changed: int) -> Listing:  # noqa: ARG001 - a part of the cache's key
    """`changed` is when names in the folder last changed."""
    try:
        names = [file.name for file in folder.iterdir()]
    except OSError as error:
        raise UnreadableVideo(f"{folder}: {error.strerror or error}") from error
    if pattern is None:
        names = [name for name in names if not name.startswith(".") and name.lower() not in _IGNORED]
        others = sorted(name for name in names if not name.lower().endswith(ENDINGS))
        if others and len(others) < len(names):
            raise UnreadableVideo(
                f"{folder}: {_some(others)} beside {len(names) - len(others)} images: a folder of frames holds JPEG "
                "and PNG images only; move other files away, or name the images in path by a pattern, such as "
                f"{folder.name}/*{Path(min(set(names) - set(others))).suffix}"
            )
    else:
        kept = re.compile(fnmatch.translate(pattern.replace("[", "[[]")))
        names = [name for name in names if kept.match(name) and name.lower().endswith(ENDINGS)]
    names = [name for name in names if name.lower().endswith(ENDINGS)]
    if not names:
        among = f" that matches {pattern!r}" if pattern else ""
        raise UnreadableVideo(f"{folder}: it holds no JPEG or PNG image{among}")
    numbers = _numbers(folder, sorted(names))
    order = sorted(numbers, key=numbers.__getitem__)
    return Listing(folder, tuple(order), np.array([numbers[name] for name in order], np.int64))


def _numbers(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """The number of each name; raises UnreadableVideo if the names do not count the frames of one video."""
    parts = {name: re.split(r"([0-9]+)", name) for name in names}
    first = names[0]
    for name in names:
        if parts[name][::2] != parts[first][::2]:
            one = next((parts[n] for n in (first, name) if len(parts[n]) > 1), None)
            fix = (
                f"name those that are by a pattern in path, such as {folder.name}/{one[0]}*{one[-1]}"
                if one
                else ("number the images")
            )
            raise UnreadableVideo(
                f"{folder}: {first!r} and {name!r} differ in more than their numbers, so they are not frames of one "
                f"video; {fix}"
            )
    counts = np.array([[int(text[-18:]) for text in parts[name][1::2]] for name in names], np.int64).reshape(
        len(names), -1
    )
    varies = np.flatnonzero((counts != counts[0]).any(axis=0))
    if (len(names) > 1 and not len(varies)) or not counts.shape[1]:
        raise UnreadableVideo(f"{folder}: no number in the name {first!r} counts the frames; number the images")
    number = dict(zip(names, counts[:, varies[0] if len(varies) else 0].tolist(), strict=True))
    known: dict[int, str] = {}
    for name, n in number.items():
        if (other := known.setdefault(n, name)) != name:
            raise UnreadableVideo(f"{folder}: {other!r} and {name!r} both have the number {n}; remove one of them")
    return number


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more that are no images" if len(names) > 1 else ", which is no image,"
    return f"it holds {names[0]!r}{more}"
