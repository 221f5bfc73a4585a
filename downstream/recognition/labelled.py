"""The samples of a split that have a label of one kind, with their scores, and what is measured on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crossview.downstream.recognition import metrics
from crossview.downstream.task import Predicted, PredictionPart
from crossview.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """N samples that are scored, of `total`."""

    rows: np.ndarray
    """Which samples of the split they are: int64 (N,)."""
    scores: np.ndarray
    """(N, C)."""
    labels: np.ndarray
    """int64 (N,) where a sample has one class, bool (N, C) where it may have several, or none."""
    cameras: np.ndarray
    """Names (N,)."""
    events: np.ndarray
    """What cameras show at once, and its label: names (N,)."""
    total: int

    @property
    def several(self) -> bool:
        """Whether a sample may have several classes."""
        return self.labels.ndim == 2

    @cached_property
    def best(self) -> np.ndarray:
        """The likeliest class: int64 (N,)."""
        return metrics.best(self.scores, 1)[:, 0]

    @property
    def measure(self) -> str:
        """The name of `value`."""
        return "map" if self.several else "top1"

    def value(self, rows: np.ndarray) -> float | None:
        """Of some samples; None without any label."""
        measured = metrics.mean_average_precision if self.several else metrics.accuracies
        return measured(self.scores[rows], self.labels[rows]).get(self.measure)

    def by_class(self, names: tuple[str, ...]) -> list[dict[str, object]]:
        """Samples of each class that occurs, and how many are right, or average precision."""
        lines: list[dict[str, object]] = []
        if self.several:
            precision = metrics.average_precisions(self.scores, self.labels)
            for c in np.flatnonzero(self.labels.any(0)):
                count = int(self.labels[:, c].sum())
                lines.append({"class": names[c], "samples": count, "average_precision": float(precision[c])})
            return lines
        right = self.best == self.labels
        for c in np.unique(self.labels):
            of = self.labels == c
            lines.append({"class": names[c], "samples": int(of.sum()), "right": float(right[of].mean())})
        return lines

    def over_cameras(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Scores (E, C) and labels (E,) of events, means over the cameras that show one; None if none has several."""
        names, first, of = np.unique(self.events, return_index=True, return_inverse=True)
        if len(names) == len(self.events):
            return None
        sums = np.zeros((len(names), self.scores.shape[1]))
        np.add.at(sums, of, self.scores)
        return sums / np.bincount(of)[:, None], self.labels[first]

    def notes(self, kind: str, shares: np.ndarray) -> list[str]:
        """What a reader has to know; `shares` are those of each class in training."""
        said = []
        if missing := self.total - len(self.rows):
            said.append(f"{missing:,} samples have no {kind} and are left out of its scores.")
        shown = self.labels.any(0) if self.several else np.bincount(self.labels, minlength=len(shares)) > 0
        if new := int((shown & (shares == 0)).sum()):
            said.append(f"{new} of {len(shares)} classes of kind {kind!r} are tested and never occur in training.")
        absent = int((~shown).sum())
        if self.several and absent:
            said.append(f"{absent} of {len(shares)} classes of kind {kind!r} have no sample and no part in the mean.")
        if not self.several and shown.sum() == 1:
            said.append(f"All samples have the same {kind}, so that its accuracy says little.")
        return said


def labelled(kind: str, part: PredictionPart, scores: Callable[[list[Predicted]], np.ndarray]) -> Labelled:
    """Of a kind of label; where samples have several classes, those without any count as showing none.

    Raises UserError where no sample has a label, and where one has several of which only one can be right.
    """
    targets = np.stack([sample.targets[kind] for sample in part.samples]) > 0  # (N, C)
    if not targets.any():
        raise UserError(
            f"split {part.split!r}: none of its {len(targets)} samples has a label of kind {kind!r}; evaluate a split "
            "that has labels, which a test split may withhold"
        )
    if part.several_classes:
        rows, labels = np.arange(len(targets)), targets
    else:
        labels = _single(kind, part.samples, targets)
        rows = np.flatnonzero(labels >= 0)
        labels = labels[rows]
    chosen = [part.samples[i] for i in rows]
    marks = [""] * len(rows) if part.several_classes else [f" {label}" for label in labels.tolist()]
    return Labelled(
        rows=rows,
        scores=scores(chosen),
        labels=labels,
        cameras=np.array([sample.views[0] for sample in chosen]),
        events=np.array([f"{sample.scene}{mark}" for sample, mark in zip(chosen, marks, strict=True)]),
        total=len(targets),
    )


def _single(kind: str, samples: tuple[Predicted, ...], targets: np.ndarray) -> np.ndarray:
    """The class of each sample, -1 where there is none: int64 (N,).

    Segments of the same span share its labels, so each of them has one of these in turn.
    """
    spans = [(sample.recordings, sample.span) for sample in samples]
    same, turns = Counter(spans), Counter[object]()
    labels = np.full(len(samples), -1)
    for i, shown in enumerate(targets):
        classes = np.flatnonzero(shown)
        if len(classes) > same[spans[i]]:
            raise UserError(
                f"{samples[i].recordings[0]}, frames {samples[i].span[0]} to {samples[i].span[1]}: it has "
                f"{len(classes)} classes of kind {kind!r}, and the classifier tells one from the others: train it with "
                "a loss for several, or on segments of one class (its option unit)"
            )
        if len(classes):
            labels[i] = classes[turns[spans[i]] % len(classes)]
        turns[spans[i]] += 1
    return labels
