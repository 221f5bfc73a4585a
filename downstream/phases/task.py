"""AE2's four tasks on the frames of a split, each action apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossview.downstream import task
from crossview.downstream.baselines import time_only
from crossview.downstream.frame_table import FrameTable
from crossview.downstream.phases import ae2
from crossview.downstream.phases.config import Options
from crossview.downstream.phases.few_shot import few_shot
from crossview.downstream.task import Facts, Recorded, TablePart
from crossview.errors import UserError

LABELS = "phase"
"""Frame labels that are classified."""
TIME_ONLY = "time only"
TIME_COLUMN = "pour_liquid"
"""The set whose phase progression AE2 gives a column of frame indices."""
SMALL = 40
"""Videos below which the notes say that a split is small; AE2's test splits hold 20 to 100."""

Fitted = dict[str, ae2.Fitted]
"""By action."""


@dataclass(frozen=True)
class Predictions:
    """By action."""

    of: dict[str, ae2.Predicted]

    @cached_property
    def few_shot(self) -> list[dict[str, object]]:
        """A line per action and number of labelled videos."""
        return [
            {"action": action, "shot": shot, **asdict(found)}
            for action, predicted in self.of.items()
            for shot, found in few_shot(predicted.fitted.train, predicted.test).items()
        ]


class Task(task.Task[Options, TablePart]):
    """Phases of one action have nothing in common with another's: scores are unweighted means over actions."""

    def check(self, facts: Facts) -> Iterator[str]:
        """A phase of every frame, both perspectives of every action, and no action or set of phases not fitted on."""
        splits = ((facts.split, facts.test), (facts.fit_split, facts.train))
        for split, recordings in splits:
            yield from _missing_labels(facts.catalog, split, recordings)
            yield from _negative_labels(facts.catalog, split, recordings)
            yield from _missing_perspectives(split, recordings)
        known = {r.action for r in facts.train}
        for action in sorted({r.action for r in facts.test}):
            if action not in known:
                yield _unknown(action, sorted(known))
                continue
            fitted, scored = (_phases(action, recordings) for _, recordings in reversed(splits))
            if fitted and scored and not fitted & scored:
                yield (
                    f"phases: the videos of action {action!r} show the phases {_listed(fitted)} in split "
                    f"{facts.fit_split!r} and {_listed(scored)} in split {facts.split!r}; classifiers need a phase "
                    "that both show: label both splits with the same phases"
                )

    def fit(self, train: TablePart) -> Fitted:
        """Classifiers and regressions of every action."""
        return {
            action: ae2.fit(self.frames(train, action), time_column=TIME_COLUMN in (action, _dataset(train)))
            for action in _actions(train)
        }

    def predict(self, fitted: Fitted, test: TablePart) -> Predictions:
        """Of every action of the evaluated split."""
        found = {}
        for action in _actions(test):
            if action not in fitted:  # its recordings cannot be read, say
                raise UserError(_unknown(action, sorted(fitted)))
            found[action] = ae2.predict(fitted[action], self.frames(test, action), k=self.options.k)
        return Predictions(found)

    def score(self, predictions: Predictions, test: TablePart) -> dict[str, float]:
        """Unweighted mean of each metric over actions."""
        del test
        scores = [predicted.scores for predicted in predictions.of.values()]
        return {metric: float(np.mean([of[metric] for of in scores])) for metric in scores[0]}

    def items(self, predictions: Predictions, test: TablePart) -> int:
        """Frames."""
        del predictions
        return int(test.table.num_rows)

    def baselines(self) -> Mapping[str, Task]:
        """The clock."""
        return {TIME_ONLY: TimeOnly(self.options)}

    def notes(self, predictions: Predictions, train: TablePart | None, test: TablePart) -> list[str]:
        """How much was fitted on and scored."""
        assert train is not None
        size, fit_size = _size(test.table), _size(train.table)
        notes = [f"Scored on split {test.split}: {size}. Classifiers fitted on {train.split}: {fit_size}."]
        if size.videos < SMALL:
            notes.append(f"This is small: with {size.videos} videos, single videos change every score.")
        if len(predictions.of) > 1:
            notes.append(f"Mean over {len(predictions.of)} actions, each scored apart: {', '.join(predictions.of)}.")
        return notes

    def details(self, predictions: Predictions, test: TablePart) -> dict[str, list[dict[str, object]]]:
        """Scores of each action where there are several, and few-shot classification."""
        del test
        found: dict[str, list[dict[str, object]]] = {}
        if len(predictions.of) > 1:
            found["actions"] = [
                {"action": action, "metric": metric, "value": value}
                for action, predicted in predictions.of.items()
                for metric, value in predicted.scores.items()
            ]
        if self.options.few_shot:
            found["few-shot"] = predictions.few_shot
        return found

    def markdown(self, details: Mapping[str, pa.Table]) -> str:
        """Few-shot phase classification, a line per row and number of videos."""
        if "few-shot" not in details:
            return ""
        text = ["\n| action | row | train videos | draws | F1 | std over draws |", "|---|---|---:|---:|---:|---:|"]
        text += [
            f"| {s['action']} | {s['row']} | {s['videos']} | {s['draws']} | {s['f1']:.3f} | {s['f1_std']:.3f} |"
            for s in details["few-shot"].to_pylist()
        ]
        return "\n".join(text) + "\n"

    def frames(self, part: TablePart, action: str) -> FrameTable:
        """The frames of one action."""
        return FrameTable.from_table(part.table.filter(pc.equal(part.table["action"], action)))


class TimeOnly(Task):
    """The same frames, embedded by their position in the video."""

    fixed = True

    def frames(self, part: TablePart, action: str) -> FrameTable:
        """The frames of one action."""
        return time_only(super().frames(part, action))


def _missing_labels(catalog: str, split: str, recordings: tuple[Recorded, ...]) -> Iterator[str]:
    bare = [r.id for r in recordings if LABELS not in r.frame_labels]
    if bare:
        yield (
            f"phases: {len(bare)} of {len(recordings)} recordings of split {split!r} (first {bare[0]!r}) of catalog "
            f"{catalog} have no frame labels named {LABELS!r}; evaluation of phases needs a phase of every frame: "
            "write them to label files and make the catalog again (a folder's CSV names the files in its column "
            "'labels'), or choose other --tasks"
        )


def _negative_labels(catalog: str, split: str, recordings: tuple[Recorded, ...]) -> Iterator[str]:
    lowest = {r.id: min(r.frame_labels.get(LABELS) or {0}) for r in recordings}
    negative = [name for name, label in lowest.items() if label < 0]
    if negative:
        yield (
            f"phases: {len(negative)} of {len(recordings)} recordings of split {split!r} (first {negative[0]!r}) of "
            f"catalog {catalog} have frames labelled {lowest[negative[0]]}; phases count from 0, and every frame needs "
            "one: give such frames a phase of their own and make the catalog again, or choose other --tasks"
        )


def _missing_perspectives(split: str, recordings: tuple[Recorded, ...]) -> Iterator[str]:
    for action in sorted({r.action for r in recordings}):
        shown = {r.perspective for r in recordings if r.action == action}
        if len(shown) < 2:
            yield (
                f"phases: split {split!r} shows the action {action!r} from {shown.pop()} cameras only; cross-view "
                "scores need ego and exo videos in both splits: catalog the other perspective too, or choose other "
                "--tasks"
            )


def _phases(action: str, recordings: tuple[Recorded, ...]) -> frozenset[int]:
    """All that the recordings of an action show."""
    return frozenset().union(*(r.frame_labels.get(LABELS, ()) for r in recordings if r.action == action))


def _listed(phases: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(phases)))


def _unknown(action: str, known: list[str]) -> str:
    return (
        f"phases: action {action!r} is evaluated, but the split that classifiers are fitted on has no video of it; "
        f"that split holds {', '.join(known)}: fit on a split that shows every action, or choose other --tasks"
    )


def _actions(part: TablePart) -> list[str]:
    return sorted(pc.unique(part.table["action"]).to_pylist())


def _dataset(part: TablePart) -> str:
    return str(part.table["dataset"][0].as_py())


@dataclass(frozen=True)
class Size:
    """How much a split holds; a score means little without it."""

    videos: int
    ego: int
    frames: int
    subjects: int

    def __str__(self) -> str:
        exo = self.videos - self.ego
        return f"{self.videos} videos ({self.ego} ego, {exo} exo), {self.frames} frames, {self.subjects} subjects"


def _size(table: pa.Table) -> Size:
    videos = table.group_by(["video", "is_ego"]).aggregate([])
    ego = pc.sum(videos["is_ego"]).as_py()
    return Size(videos.num_rows, int(ego), table.num_rows, len(pc.unique(table["subject"])))
