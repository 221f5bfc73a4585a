"""What a catalog holds, counted for a page: protocols, views, classes and files that were set aside."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.classes import frame_kind
from crossview.errors import UserError

MOST_ROWS = 12
"""Classes and views of a table; the rest is counted."""
MOST_KINDS = 8
"""Tables of classes."""
MOST_SPLITS = 6
"""Columns of a table of classes."""
MOST_FILES = 50
"""Quarantined files that are listed."""


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    head: list[str]
    rows: list[list[str]]
    title: str = ""
    more: str = ""
    """What was left out, counted."""
    shares: list[float] = field(default_factory=list)
    """Of the largest row, per row, which bars show; none where it is empty."""


def summary(catalog: Catalog) -> dict[str, str]:
    """Facts at the top, by name."""
    recordings = catalog.recordings
    ego = sum(r.perspective == "ego" for r in recordings)
    kinds = Counter(str(r.kind) for r in recordings)
    files = len({r.path for r in recordings})
    scenes = Counter((r.dataset, r.scene) for r in recordings)
    cameras = sorted(scenes.values())
    facts = {
        "Catalog": str(catalog.place),
        "Files": f"{files:,} under {catalog.root} ({_listed(kinds)})",
        "Datasets": _listed(Counter(r.dataset for r in recordings)),
        "Recordings": f"{len(recordings):,}, {ego:,} ego and {len(recordings) - ego:,} exo; {_hours(recordings)}",
        "Scenes": f"{len(scenes):,} with {_span(cameras)} recordings, of {_counted(subjects_of(recordings), 'subject')}"
        if recordings
        else "none",
    }
    if catalog.quarantined:
        facts["Quarantined"] = f"{len(catalog.quarantined):,} files, listed below"
    return facts


def subjects_of(recordings: Iterable[Recording]) -> int:
    """Different people, as far as they are named."""
    return len({(r.dataset, r.subject) for r in recordings if r.subject})


def protocols(catalog: Catalog) -> Table:
    """A row per protocol and split."""
    by_id = {r.id: r for r in catalog.recordings}
    rows = []
    for name, of in catalog.protocols.items():
        members: dict[str, list[Recording]] = defaultdict(list)
        for recording, split in of.items():
            if recording in by_id:
                members[split].append(by_id[recording])
        rows += [[name, split, *_sizes(members[split])] for split in members]
        without = [r for r in catalog.recordings if r.id not in of]
        if without:
            rows.append([name, "in no split", *_sizes(without)])
    return Table(["protocol", "split", "recordings", "ego", "exo", "scenes", "subjects", "hours"], rows)


def _sizes(recordings: Sequence[Recording]) -> list[str]:
    ego = sum(r.perspective == "ego" for r in recordings)
    scenes = len({(r.dataset, r.scene) for r in recordings})
    counts = (len(recordings), ego, len(recordings) - ego, scenes, subjects_of(recordings))
    return [*(f"{count:,}" for count in counts), f"{_duration_s(recordings) / 3600:,.2f}"]


def views(catalog: Catalog) -> Table:
    """A row per view and perspective, the most frequent first, with its pictures, rates and clocks."""
    of_view: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    for recording in catalog.recordings:
        of_view[recording.view, recording.perspective].append(recording)
    ranked = sorted(of_view.items(), key=lambda item: -len(item[1]))
    rows = [
        [
            view,
            perspective,
            f"{len(of):,}",
            f"{_duration_s(of) / 3600:,.2f}",
            _common(f"{r.width_px} x {r.height_px}" if r.has_pixels else "features" for r in of),
            _common(f"{r.fps:g}{'' if r.constant_rate else ' (varies)'}" for r in of),
            _offsets(of),
        ]
        for (view, perspective), of in ranked[:MOST_ROWS]
    ]
    head = ["view", "perspective", "recordings", "hours", "pictures", "frames per s", "start offset in s"]
    return Table(
        head, rows, more=_rest(len(ranked), sum(len(of) for _, of in ranked[MOST_ROWS:]), "views", "recordings")
    )


def _offsets(recordings: Sequence[Recording]) -> str:
    """Median and range of the offsets to the scenes' clocks."""
    own = sum(r.own_clock for r in recordings)
    if own == len(recordings):
        return "clocks of their own"
    values = np.array([r.start_offset_s for r in recordings if not r.own_clock])
    text = f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})" if values.any() else "0"
    return f"{text}; {own:,} with clocks of their own" if own else text


def classes(catalog: Catalog) -> list[Table]:
    """A table per kind of label: its most frequent classes, in all and in each split of each protocol."""
    columns = [(name, split) for name, of in catalog.protocols.items() for split in dict.fromkeys(of.values())]
    hidden, columns = columns[MOST_SPLITS:], columns[:MOST_SPLITS]
    several = len({name for name, _ in columns}) > 1
    labels: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for segment in catalog.segments:
        labels[segment.name].append((segment.recording, segment.label))
    units = dict.fromkeys(labels, "segments")
    if "action" not in labels:
        labels["action"] = [(r.id, r.action) for r in catalog.recordings if r.action]
        units["action"] = "recordings"
    known = catalog.all_classes()
    tables = []
    for kind in sorted(labels)[:MOST_KINDS]:
        total = Counter(label for _, label in labels[kind])
        if not total:
            continue
        counts = [Counter(v for r, v in labels[kind] if catalog.protocols[p].get(r) == s) for p, s in columns]
        shown = total.most_common(MOST_ROWS)
        rows = [[label, f"{count:,}", *(f"{c[label]:,}" for c in counts)] for label, count in shown]
        head = [kind, units[kind], *(f"{p}: {s}" if several else s for p, s in columns)]
        left = sum(total.values()) - sum(count for _, count in shown)
        unseen = len(known.get(kind, ())) - len(total)
        more = _rest(len(total), left, "classes", units[kind])
        more += f" Of the dataset's list, {unseen:,} more occur nowhere." if unseen > 0 else ""
        more += f" Not counted apart: {', '.join(f'{p}: {s}' for p, s in hidden)}." if hidden else ""
        title = f"{kind}: {_counted(len(total), 'class', 'classes')}, {sum(total.values()):,} {units[kind]}"
        tables.append(Table(head, rows, title, more.strip(), [count / shown[0][1] for _, count in shown]))
    if others := sorted(labels)[MOST_KINDS:]:
        named = ", ".join(others[:MOST_ROWS]) + (", ..." if len(others) > MOST_ROWS else "")
        tables.append(Table([], [], f"{_counted(len(others), 'more kind')}: {named}"))
    return tables


def frame_classes(catalog: Catalog) -> Table:
    """A row per kind of frame labels: in how many recordings and frames it is, and how often each class."""
    by_id = {r.id: r for r in catalog.recordings}
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    recordings: Counter[str] = Counter()
    for name, of in catalog.frame_labels.items():
        for recording, values in of.items():
            kind = frame_kind(name, by_id[recording])
            numbers, frames = np.unique(values, return_counts=True)
            counts[kind].update(dict(zip(numbers.tolist(), frames.tolist(), strict=True)))
            recordings[kind] += 1
    rows = []
    for kind, _ in recordings.most_common(MOST_ROWS):
        total = sum(counts[kind].values())
        names = catalog.classes.get(kind, ())
        shown = counts[kind].most_common(6)
        texts = [f"{names[k] if 0 <= k < len(names) else k} {frames / total:.0%}" for k, frames in shown]
        more = f", {len(counts[kind]) - 6} more" if len(counts[kind]) > 6 else ""
        rows.append([kind, f"{recordings[kind]:,}", f"{total:,}", ", ".join(texts) + more])
    left = sum(count for _, count in recordings.most_common()[MOST_ROWS:])
    return Table(
        ["frame labels", "recordings", "frames", "classes"],
        rows,
        more=_rest(len(recordings), left, "kinds", "recordings"),
    )


def quarantined(catalog: Catalog) -> Table:
    """The first files that were set aside, and why."""
    left = len(catalog.quarantined) - MOST_FILES
    rows = [[q.path, q.reason] for q in catalog.quarantined[:MOST_FILES]]
    more = f"{left:,} more files are in quarantine.parquet." if left > 0 else ""
    return Table(["file", "reason"], rows, more=more)


def _duration_s(recordings: Iterable[Recording]) -> float:
    return sum(r.num_frames / r.fps for r in recordings)


def durations_s(recordings: Iterable[Recording]) -> np.ndarray:
    """Of each recording: float64 (n,)."""
    return np.array([r.num_frames / r.fps for r in recordings], np.float64)


def _hours(recordings: Sequence[Recording]) -> str:
    seconds = _duration_s(recordings)
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _listed(counts: Counter[str]) -> str:
    """The most frequent values with their counts; the count alone is left out where there is one value."""
    if len(counts) == 1:
        return next(iter(counts))
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.most_common(6))
    return shown + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")


def _common(values: Iterable[str]) -> str:
    """The most frequent value, and how many others there are."""
    counts = Counter(values)
    return counts.most_common(1)[0][0] + (f" and {len(counts) - 1} more" if len(counts) > 1 else "")


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _counted(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _rest(found: int, count: int, what: str, unit: str) -> str:
    """What is not shown of a table, or nothing."""
    return f"{found - MOST_ROWS:,} more {what} have {count:,} {unit}." if found > MOST_ROWS else ""


def chosen_scenes(catalog: Catalog, count: int) -> list[list[Recording]]:
    """Recordings of up to `count` scenes from all over the catalog: with pictures and several cameras, if there are."""
    scenes = _scenes(catalog)
    ranks: dict[tuple[bool, bool], list[list[Recording]]] = defaultdict(list)
    for (_, pictures, _), of in scenes.items():
        ranks[pictures, len(of) > 1].append(of)
    best = ranks[max(ranks)] if ranks else []
    where = np.linspace(0, len(best) - 1, min(count, len(best))).round().astype(int)
    return [best[k] for k in where]


def of_scene(catalog: Catalog, scene: str) -> list[Recording]:
    """The scene's recordings, of the first dataset that has one of that name; videos before features.

    Raises ValueError that lists the first scenes for an unknown one.
    """
    scenes = _scenes(catalog)
    found = sorted((key for key in scenes if key[2] == scene), key=lambda key: not key[1])
    if not found:
        known = list(dict.fromkeys(name for _, _, name in scenes))
        more = f" and {len(known) - 8} more" if len(known) > 8 else ""
        raise UserError(
            f"catalog {catalog.place}: there is no scene {scene!r}; scenes: {', '.join(known[:8]) or 'none'}{more}"
        )
    return scenes[found[0]]


def _scenes(catalog: Catalog) -> dict[tuple[str, bool, str], list[Recording]]:
    """Recordings by dataset, whether they have pictures, and scene."""
    scenes: dict[tuple[str, bool, str], list[Recording]] = defaultdict(list)
    for r in catalog.recordings:
        scenes[r.take].append(r)
    return scenes
