"""RoCoG-v2 (arXiv 2303.10280): seven gestures, real and synthetic, filmed from the ground and from the air.

ROOT holds {real,syn}/{ground,air}/CLASS/*.mp4 and the lists annotations/*.txt, whose lines are "path label". Protocols
are the settings of annotations/README: gs2gr trains on synthetic (s) ground (g) videos and tests on real (r) ones, and
so on. Nothing links a ground video with one from the air, so each is a scene of its own. All cameras are exo.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.found import content, coverage, files_under, named
from crossview.datasets.catalog.listing import Problems, leads_out, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import protocols_of
from crossview.errors import UserError

SETTINGS: dict[str, dict[str, str]] = {
    "gs2gr": {
        "train": "syn_ground_train", "val": "syn_ground_val", "target": "real_ground_train", "test": "real_ground_test",
    },
    "as2ar": {"train": "syn_air_train", "val": "syn_air_val", "target": "real_air_train", "test": "real_air_test"},
    "gr2ar": {
        "train": "real_ground_train_tsonly", "val": "real_ground_val_tsonly", "target": "real_air_train",
        "test": "real_air_test",
    },
    "gs2ar": {
        "train": "syn_ground_train", "val": "syn_ground_val", "target": "real_air_train", "test": "real_air_test",
    },
    "gr": {
        "train": "real_ground_train_tsonly", "val": "real_ground_val_tsonly", "test": "real_ground_test",
    },
    "ar": {"train": "real_air_train_tsonly", "val": "real_air_val_tsonly", "test": "real_air_test"},
    "gr_whole": {"train": "real_ground_train", "test": "real_ground_test"},
    "ar_whole": {"train": "real_air_train", "test": "real_air_test"},
}  # fmt: skip
"""Lists by protocol and split; "target" is what domain adaptation sees without its labels."""
PROTOCOLS = tuple(SETTINGS)
PAIRINGS = ("single", "unpaired")
LISTS = tuple(dict.fromkeys(name for lists in SETTINGS.values() for name in lists.values()))
CLASSES = ("Advance", "Attention", "Rally", "MoveForward", "Halt", "FollowMe", "MoveInReverse")
"""By their labels."""
PLACE = re.compile(r"(real|syn)/(ground|air)/([^/]+)/([^/]+)\.mp4")
SUBJECT = re.compile(r"(?:Scene\d+_\d+_)?(?P<subject>S\d{2}b?)_.+")
"""Names of real videos, and of synthetic ones whose motion was captured; others show no known person."""
_LINE = re.compile(r"(?P<path>.*\S)\s+(?P<label>\d+)")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the files are."""

    root: Path
    """Folder that holds real, syn and annotations; part of them is enough."""
    lists: Path | None = None
    """Folder of the lists; None is ROOT/annotations."""


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per listed video: scenes real-ground-NAME and the like, view ground or air, the class as its action.

    Raises UserError for a root without lists or without videos that they name, and for broken lists.
    """
    labels, lists, notes = listed(options)
    here = frozenset(files_under(options.root))
    found = [path for path in labels if path in here]
    if not found:
        example, *_ = labels
        raise UserError(
            f"{options.root}: none of the {len(labels):,} listed videos is here, such as {example}; it holds "
            f"{named(sorted(here))}: pass the folder that holds real and syn as --root"
        )
    infos, unreadable = (prober or Prober()).probe(options.root, found)
    recordings = tuple(_recording(path, labels[path], info.columns()) for path, info in infos.items())
    split_of = {
        name: {path: split for split, paths in of.items() for path in paths} for name, of in splits(lists).items()
    }
    return Catalog(
        options.root,
        recordings,
        quarantined=unreadable,
        protocols=protocols_of(PROTOCOLS, recordings, lambda r, name: split_of[name].get(r.path)),
        classes={"action": CLASSES},
        notes=(*(coverage(name, paths, here.intersection(paths)) for name, paths in lists.items()), *notes),
    )


def listed(options: Options) -> tuple[dict[str, str], dict[str, list[str]], tuple[str, ...]]:
    """Classes by path, paths by list, and what is to be said of missing lists; raises UserError for broken ones."""
    folder = options.lists or options.root / "annotations"
    files = {name: folder / f"{name}.txt" for name in LISTS}
    missing = [file.name for file in files.values() if not file.is_file()]
    if len(missing) == len(files):
        above = "" if options.lists or folder.is_dir() else f"; above, {content(options.root)}"
        raise UserError(
            f"{folder}: none of RoCoG-v2's lists is here, such as {missing[0]}; {content(folder)}{above}: "
            "pass the folder that holds annotations as --root, or that of the lists as --lists"
        )
    problems, labels = Problems(), dict[str, str]()
    lists = {
        name: _read(file, options.root, labels, problems) for name, file in files.items() if file.name not in missing
    }
    problems.refuse()
    if not labels:
        raise UserError(f"{folder}: its lists are empty; get them again")
    return labels, lists, ((f"lists that are not here: {named(missing)}",) if missing else ())


def splits(lists: Mapping[str, Collection[str]]) -> dict[str, dict[str, Collection[str]]]:
    """Paths by protocol and split, of the lists that are there."""
    return {
        name: {split: lists[of] for split, of in setting.items() if of in lists} for name, setting in SETTINGS.items()
    }


def _read(file: Path, root: Path, labels: dict[str, str], problems: Problems) -> list[str]:
    """The paths in a list, whose classes are added to `labels`."""
    paths: list[str] = []
    for number, line in text_lines(file):
        try:
            path, label = _entry(line, root)
            if labels.setdefault(path, label) != label:
                raise UserError(f"{path} has the label {labels[path]} in another line; correct one of them")
            paths.append(path)
        except UserError as error:
            problems.add(f"{file}, line {number}: {error}")
    return paths


def _entry(line: str, root: Path) -> tuple[str, str]:
    """Path and class of a line; raises UserError without file and line."""
    match = _LINE.fullmatch(line.strip())
    if not match:
        raise UserError(f"{line.strip()[:80]!r} is broken; a line is a path, a space and a label from 0 to 6")
    path = match["path"]
    if len(match["label"]) > 1 or int(match["label"]) >= len(CLASSES):
        raise UserError(f"the label {match['label'][:20]} is unknown; labels are 0 to {len(CLASSES) - 1}")
    label = CLASSES[int(match["label"])]
    place = PLACE.fullmatch(path)
    if not place or leads_out(path):
        raise UserError(
            f"{path[:120]!r} is no video of the dataset; paths are relative to {root}, as real/air/Halt/NAME.mp4"
        )
    if place[3] != label:
        raise UserError(f"{path} has the label {match['label']}, {label}, and the folder {place[3]}; correct the line")
    return path, label


def _recording(path: str, label: str, facts: dict[str, object]) -> Recording:
    place = PLACE.fullmatch(path)
    assert place
    kind, view, _, name = place.groups()
    person = SUBJECT.fullmatch(name)
    return Recording(
        dataset="rocog", scene=f"{kind}-{view}-{name}", view=view, perspective="exo",
        subject=person["subject"] if person else "", action=label, path=path, kind="video", **facts,  # type: ignore[arg-type]
    )  # fmt: skip
