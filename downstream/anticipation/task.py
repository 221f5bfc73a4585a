"""Class-mean top-5 recall of what a trainer anticipates, beside what is commonest in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview.datasets.sampling.sequences import UNLABELLED
from crossview.downstream import task
from crossview.downstream.anticipation.config import KINDS, Options
from crossview.downstream.anticipation.metrics import Recall, fused, overall
from crossview.downstream.cameras import consistency
from crossview.downstream.class_notes import class_notes
from crossview.downstream.task import Predicted, PredictionPart
from crossview.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """What the split that is fitted on shows."""

    counts: Mapping[str, np.ndarray]
    """Samples of each class, by kind: int64 (C,)."""
    known: frozenset[str]
    """The subjects or actions of its recordings, whichever `Options.unseen` says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """The labelled samples of one kind of class."""

    scores: np.ndarray
    """(N, C)."""
    labels: np.ndarray
    """int64 (N,)."""
    segments: np.ndarray
    """The same for all cameras' samples of one segment: int64 (N,)."""
    perspectives: np.ndarray
    cameras: np.ndarray
    unseen: np.ndarray
    """Of recordings whose subject or action is unknown in training: bool (N,)."""
    tail: np.ndarray | None
    """Ids of the tail's classes."""

    def recalls(self, part: str = "") -> dict[str, dict[str, Recall]]:
        """By protocol and perspective, of all samples, those "/unseen" or the classes of the "/tail"."""
        samples = self.unseen if part == "/unseen" else None
        classes = self.tail if part == "/tail" else None
        own = self.scores, self.labels
        return {
            "overall": overall(*own, self.perspectives, samples=samples, classes=classes),
            "fused": fused(*own, self.segments, self.perspectives, samples=samples, classes=classes),
        }

    def agreement(self) -> float | None:
        """Share of pairs of cameras of one segment whose likeliest class is the same; None where it has one camera."""
        if not len(self.labels):
            return None
        return consistency(self.scores.argmax(1), self.segments, self.cameras).get("pairs")

    def of_camera(self, name: str) -> Recall | None:
        """Recall of one camera's samples."""
        rows = self.cameras == name
        found = overall(self.scores[rows], self.labels[rows], self.perspectives[rows])
        return found.get("all")


class Task(task.Task[Options, PredictionPart]):
    """Each kind of class that the trainer anticipates."""

    def fit(self, train: PredictionPart) -> Prior:
        """How often each class is."""
        counts = {}
        for kind in _kinds(train):
            labels = _labels(train.samples, kind)
            counts[kind] = np.bincount(labels[labels != UNLABELLED], minlength=len(train.classes[kind]))
        return Prior(counts=counts, known=frozenset(_groups(train, self.options).values()))

    def predict(self, fitted: Prior, test: PredictionPart) -> dict[str, Kind]:
        """The labelled samples' scores, by kind."""
        groups = _groups(test, self.options)
        unseen = np.array([groups[s.recordings[0]] not in fitted.known for s in test.samples])
        perspectives = np.array([s.perspectives[0] for s in test.samples])
        cameras = np.array([s.views[0] for s in test.samples])
        out = {}
        for kind in _kinds(test):
            labels = _labels(test.samples, kind)
            rows = np.flatnonzero(labels != UNLABELLED)
            out[kind] = Kind(
                scores=self.scores(kind, [test.samples[i] for i in rows], fitted),
                labels=labels[rows],
                segments=_segments([test.samples[i] for i in rows], labels[rows]),
                perspectives=perspectives[rows],
                cameras=cameras[rows],
                unseen=unseen[rows],
                tail=_tail(kind, test.classes[kind], self.options),
            )
        return out

    def scores(self, kind: str, samples: list[Predicted], fitted: Prior) -> np.ndarray:
        """Of these samples: (N, C)."""
        if not samples:
            return np.zeros((0, len(fitted.counts[kind])), np.float32)
        return np.stack([sample.outputs[kind] for sample in samples])

    def score(self, predictions: dict[str, Kind], test: PredictionPart) -> dict[str, float]:
        """Recalls as shares of 1, and how often two cameras of a segment are given the same class."""
        del test
        out = {}
        for kind, of in predictions.items():
            if (agreement := of.agreement()) is not None:
                out[f"anticipation/consistency/{kind}"] = agreement
            parts = ["", *(["/tail"] if of.tail is not None else []), *(["/unseen"] if self.options.unseen else [])]
            for part in parts:
                for protocol, recalls in of.recalls(part).items():
                    for views, recall in recalls.items():
                        out[f"anticipation/{protocol}/{kind}/{views}{part}"] = recall.value
        return out

    def items(self, predictions: dict[str, Kind], test: PredictionPart) -> int:
        """Samples: each camera's view of each segment."""
        del predictions
        return len(test.samples)

    def baselines(self) -> Mapping[str, Task]:
        """What is commonest, whatever was seen."""
        return {"majority": Majority(self.options)}

    def notes(self, predictions: dict[str, Kind], train: PredictionPart | None, test: PredictionPart) -> list[str]:
        """How much was scored, what was not, and which classes training lacks."""
        segments = len({sample.scene for sample in test.samples})
        total = len(test.samples) + test.left_out + sum(test.undrawn.values())
        said = [
            f"{len(test.samples):,} of {total:,} annotated views of segments are scored "
            f"({len(test.samples) / total:.1%}), of {segments:,} segments; fused scores are means over a segment's "
            "cameras."
        ]
        if test.undrawn:
            each = ", ".join(f"{view} {count:,}" for view, count in test.undrawn.items())
            said.append(f"In no score are views of segments that begin too early, or after their recording: {each}.")
        for kind, of in predictions.items():
            if missing := len(test.samples) - len(of.labels):
                said.append(f"{missing:,} samples have no {kind} and are left out of its scores.")
            if train is not None:
                said += class_notes(kind, _labels(train.samples, kind), of.labels, test.classes[kind])
        return said

    def details(self, predictions: dict[str, Kind], test: PredictionPart) -> dict[str, list[dict[str, object]]]:
        """The recall of each camera."""
        lines: list[dict[str, object]] = []
        sides = {sample.views[0]: sample.perspectives[0] for sample in test.samples}
        for camera in sorted(sides | dict.fromkeys(test.undrawn, "")):
            for kind, of in predictions.items():
                recall = of.of_camera(camera)
                lines.append(
                    {
                        "camera": camera,
                        "perspective": sides.get(camera),
                        "kind": kind,
                        "recall": recall and recall.value,
                        "scored": recall.predictions if recall else 0,
                        "not_drawn": test.undrawn.get(camera, 0),
                    }
                )
        return {"cameras": lines}


class Majority(Task):
    """The classes in the order of how common they are in training."""

    fixed = True

    def scores(self, kind: str, samples: list[Predicted], fitted: Prior) -> np.ndarray:
        """The same of every sample."""
        prior = fitted.counts[kind]
        return np.broadcast_to(prior.astype(np.float32), (len(samples), len(prior)))


def _kinds(part: PredictionPart) -> list[str]:
    return [kind for kind in KINDS if kind in part.samples[0].targets]


def _labels(samples: tuple[Predicted, ...], kind: str) -> np.ndarray:
    return np.array([int(sample.targets[kind]) for sample in samples], np.int64)


def _segments(samples: list[Predicted], labels: np.ndarray) -> np.ndarray:
    """Numbers of segments; views of one event that are labelled otherwise are another."""
    numbers: dict[tuple[str, int], int] = {}
    keys = [(sample.scene, label) for sample, label in zip(samples, labels.tolist(), strict=True)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _groups(part: PredictionPart, options: Options) -> dict[str, str]:
    """The subject or action of each recording, by its id."""
    by: Any = options.unseen or "subject"
    return {recording.id: getattr(recording, by) for recording in part.recordings}


def _tail(kind: str, names: tuple[str, ...], options: Options) -> np.ndarray | None:
    if kind not in options.tails:
        return None
    ids = {name: i for i, name in enumerate(names)}
    if unknown := [name for name in options.tails[kind] if name not in ids]:
        raise UserError(
            f"tail_{kind}s has {unknown[0]!r}, which is none of the {len(names)} classes of kind {kind!r} "
            f"({', '.join(names[:6])}{', ...' if len(names) > 6 else ''}); correct it"
        )
    return np.array([ids[name] for name in options.tails[kind]], np.int64)
