"""How well clips are classified: one class of each kind, or several, beside the commonest classes and chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossview.downstream import task
from crossview.downstream.cameras import by_camera_set, consistency, consistency_of_pairs
from crossview.downstream.recognition.config import Options
from crossview.downstream.recognition.epic_metrics import epic_accuracies
from crossview.downstream.recognition.labelled import Labelled, labelled
from crossview.downstream.recognition.metrics import accuracies, fuse, hits, log_scores, mean_average_precision
from crossview.downstream.task import Predicted, PredictionPart
from crossview.errors import UserError

PAIR = ("verb", "noun")
"""Kinds that are an action together, by EPIC-KITCHENS' rule, where actions have no classes of their own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """What the split that is fitted on shows."""

    shares: Mapping[str, np.ndarray]
    """Of the samples, by kind, those that show each class: float64 (C,)."""
    known: frozenset[str]
    """The subjects or actions of its recordings, whichever `Options.unseen` says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """What is predicted of a split's samples."""

    kinds: Mapping[str, Labelled]
    prior: Prior
    unseen: np.ndarray
    """Of recordings whose subject or action is unknown in training: bool (N,), by sample."""
    tails: Mapping[str, frozenset[int]]
    """Classes that are also scored by themselves, by kind."""


class Task(task.Task[Options, PredictionPart]):
    """Each kind of label, from the probabilities of all views of a sample."""

    def fit(self, train: PredictionPart) -> Prior:
        """How common each class is."""
        counts = {kind: np.sum([s.targets[kind] > 0 for s in train.samples], axis=0) for kind in train.classes}
        shares = {kind: count / len(train.samples) for kind, count in counts.items()}
        return Prior(shares=shares, known=frozenset(_groups(train, self.options).values()))

    def predict(self, fitted: Prior, test: PredictionPart) -> Scored:
        """The labelled samples of each kind, with one score per class."""
        groups = _groups(test, self.options)
        kinds = {
            kind: labelled(kind, test, lambda samples, kind=kind: self.scores(kind, samples, fitted, test))  # type: ignore[misc]
            for kind in test.classes
        }
        unseen = np.array([groups[s.recordings[0]] not in fitted.known for s in test.samples])
        tails = {kind: self._tail(kind, test) for kind in self.options.tails}
        return Scored(kinds=kinds, prior=fitted, unseen=unseen, tails=tails)

    def scores(self, kind: str, samples: list[Predicted], fitted: Prior, test: PredictionPart) -> np.ndarray:
        """Of these samples, whose views are fused: (N, C)."""
        del fitted
        how = self.options.fusion or ("max" if test.several_classes else "mean")
        for sample in samples:
            if not np.isfinite(sample.outputs[kind]).all():
                raise UserError(
                    f"{sample.recordings[0]}, frames {sample.span[0]} to {sample.span[1]}: the predicted probabilities "
                    f"of kind {kind!r} are not finite; check the run's losses, and train with a lower --optim.lr"
                )
        return np.concatenate([fuse(sample.outputs[kind][None], how) for sample in samples])

    def score(self, predictions: Scored, test: PredictionPart) -> dict[str, float]:
        """As shares of 1."""
        out: dict[str, float] = {}
        for kind, of in predictions.kinds.items():
            named = f"/{kind}" if len(predictions.kinds) > 1 else ""
            found = self._several(of, test) if of.several else self._single(kind, of, predictions, test)
            for name, value in found.items():
                measure, _, part = name.partition("/")
                out[f"recognition/{measure}{named}{part and f'/{part}'}"] = value
        return out | self._actions(predictions)

    def items(self, predictions: Scored, test: PredictionPart) -> int:
        """Recordings or segments."""
        del predictions
        return len(test.samples)

    def baselines(self) -> Mapping[str, Task]:
        """What is commonest, and what guessing scores."""
        return {"majority": Majority(self.options), "chance": Chance(self.options)}

    def notes(self, predictions: Scored, train: PredictionPart | None, test: PredictionPart) -> list[str]:
        """How much was scored, and what was not."""
        del train
        views = len(next(iter(test.samples[0].outputs.values())))
        shown = "one view" if views == 1 else f"{views} views"
        how = self.options.fusion or ("max" if test.several_classes else "mean")
        lost = f"; {test.left_out:,} could not be read" if test.left_out else ""
        said = [
            f"Recognition in {len(test.samples):,} recordings or segments, from {shown} of each, fused by their "
            f"{how}{lost}."
        ]
        if test.undrawn:
            each = ", ".join(f"{view} {count:,}" for view, count in test.undrawn.items())
            said.append(f"In no score are recordings of a perspective that was not trained on: {each}.")
        for kind, of in predictions.kinds.items():
            said += of.notes(kind, predictions.prior.shares[kind])
        return said

    def details(self, predictions: Scored, test: PredictionPart) -> dict[str, list[dict[str, object]]]:
        """Scores of each class and of each camera, and how often two cameras agree."""
        classes: list[dict[str, object]] = []
        cameras: list[dict[str, object]] = []
        pairs: list[dict[str, object]] = []
        for kind, of in predictions.kinds.items():
            classes += [{"kind": kind, **line} for line in of.by_class(test.classes[kind])]
            for camera in sorted(set(of.cameras.tolist())):
                rows = of.cameras == camera
                known = {"kind": kind, "camera": camera, "seen": camera in test.seen, "samples": int(rows.sum())}
                cameras.append(known | {of.measure: of.value(rows)})
            if not of.several:
                agreed = consistency_of_pairs(of.best, of.events, of.cameras)
                pairs += [
                    {"kind": kind, "camera": a, "other": b, "agreement": share, "instants": count}
                    for (a, b), (share, count) in agreed.items()
                ]
        return {"classes": classes, "cameras": cameras, "camera_pairs": pairs}

    def _single(self, kind: str, of: Labelled, predictions: Scored, test: PredictionPart) -> dict[str, float]:
        """Accuracies of all samples, those of seen and held-out cameras, of unseen groups and of the tail."""
        right = hits(of.scores, of.labels, 1)
        out = accuracies(of.scores, of.labels)
        out |= {f"top1/{name}": value for name, value in by_camera_set(right, of.cameras, test.seen).items()}
        parts = {"unseen": predictions.unseen[of.rows] if self.options.unseen else np.zeros(len(right), bool)}
        if kind in predictions.tails:
            parts["tail"] = np.isin(of.labels, sorted(predictions.tails[kind]))
        out |= {f"top1/{name}": float(right[rows].mean()) for name, rows in parts.items() if rows.any()}
        together = of.over_cameras()
        if together is not None:
            out |= {f"{name}/fused": value for name, value in accuracies(*together).items()}
        agreed = consistency(of.best, of.events, of.cameras)
        return out | ({"consistency": agreed["pairs"]} if agreed else {})

    def _several(self, of: Labelled, test: PredictionPart) -> dict[str, float]:
        """Average precision over classes with positives, of all samples, and of seen and held-out cameras."""
        known = np.isin(of.cameras, sorted(test.seen))
        parts = {"map": np.ones(len(known), bool), "map/seen": known, "map/held_out": ~known}
        found = {name: mean_average_precision(of.scores[rows], of.labels[rows]) for name, rows in parts.items()}
        return {name: of["map"] for name, of in found.items() if of}

    def _actions(self, predictions: Scored) -> dict[str, float]:
        """Of samples that have a verb and a noun."""
        if set(predictions.kinds) != set(PAIR) or predictions.kinds["verb"].several:
            return {}
        verb, noun = (predictions.kinds[kind] for kind in PAIR)
        rows, of_verb, of_noun = np.intersect1d(verb.rows, noun.rows, return_indices=True)
        if not len(rows):
            return {}
        found = epic_accuracies(
            log_scores(verb.scores[of_verb]),
            log_scores(noun.scores[of_noun]),
            verb.labels[of_verb],
            noun.labels[of_noun],
            tail_verbs=predictions.tails.get("verb", ()),
            tail_nouns=predictions.tails.get("noun", ()),
            unseen=predictions.unseen[rows] if self.options.unseen else None,
        )
        out = {}
        for name, value in found.items():
            kind, *part, measure = name.split("/")
            if kind == "action":  # the others are scored already
                out["/".join(["recognition", measure, kind, *part])] = value
        return out

    def _tail(self, kind: str, test: PredictionPart) -> frozenset[int]:
        names = test.classes.get(kind, ())
        if unknown := [name for name in self.options.tails[kind] if name not in names]:
            raise UserError(
                f"tail_{kind}s has {unknown[0]!r}, which is none of the {len(names)} classes of kind {kind!r} here "
                f"({', '.join(names[:6])}{', ...' if len(names) > 6 else ''}); correct it, or leave it out"
            )
        return frozenset(names.index(name) for name in self.options.tails[kind])


class Majority(Task):
    """The classes in the order of how common they are in training."""

    fixed = True

    def scores(self, kind: str, samples: list[Predicted], fitted: Prior, test: PredictionPart) -> np.ndarray:
        """The same of every sample."""
        del test
        return np.broadcast_to(fitted.shares[kind], (len(samples), len(fitted.shares[kind])))


class Chance(Majority):
    """What a guess is right in, on average; no row for average precision, of which the majority's is the prevalence."""

    def score(self, predictions: Scored, test: PredictionPart) -> dict[str, float]:
        """K over the number of classes, where a row is among k."""
        counts = {kind: of.scores.shape[1] for kind, of in predictions.kinds.items()}
        counts |= {"action": counts["verb"] * counts["noun"]} if set(counts) == set(PAIR) else {}
        out = {}
        for name in super().score(predictions, test):
            _, measure, *rest = name.split("/")
            kind = rest[0] if rest and rest[0] in counts else next(iter(counts))
            if measure in ("top1", "top5", "mean_class"):
                out[name] = min(1.0, (5 if measure == "top5" else 1) / counts[kind])
        return out

    def details(self, predictions: Scored, test: PredictionPart) -> dict[str, list[dict[str, object]]]:
        """None: it is the same for all."""
        del predictions, test
        return {}


def _groups(part: PredictionPart, options: Options) -> dict[str, str]:
    """The subject or action of each recording, by its id."""
    by: Any = options.unseen or "subject"
    return {recording.id: getattr(recording, by) for recording in part.recordings}
