"""How well a network tuned on a few labelled ego clips recognises the actions of other people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossview.downstream import task
from crossview.downstream.few_clips.config import Options
from crossview.downstream.few_clips.draws import Clips, Draws
from crossview.downstream.few_clips.fine_tuning import Classifier, FineTuning, fine_tune, likeliest
from crossview.downstream.task import EncoderPart, Facts, Recorded
from crossview.errors import UserError

PERSPECTIVE = "ego"


@dataclass(frozen=True)
class Fitted:
    """A classifier per draw."""

    models: list[Classifier]
    actions: list[str]
    """Classes, sorted."""
    clips: list[int]
    """Clips that each was tuned on."""


@dataclass(frozen=True)
class Predictions:
    """Of the same clips by each draw's classifier."""

    fitted: Fitted
    right: np.ndarray
    """bool (draws, N)."""

    @property
    def accuracies(self) -> list[float]:
        """One per draw."""
        return [float(of.mean()) for of in self.right.astype(np.float32)]


class Task(task.Task[Options, EncoderPart]):
    """The whole network is tuned, as often as clips are drawn."""

    recipe = FineTuning()

    def check(self, facts: Facts) -> Iterator[str]:
        """Ego recordings of seen cameras in both splits, two actions to tune on, and every evaluated action there."""
        splits = ((facts.fit_split, facts.train), (facts.split, facts.test))
        tuned, scored = ({r.action for r in of if self.wants(r, facts)} for _, of in splits)
        for (split, _), actions in zip(splits, (tuned, scored), strict=True):
            if not actions:
                yield (
                    f"few_clips: split {split!r} has no {PERSPECTIVE} recording of the cameras "
                    f"{', '.join(sorted(facts.seen))} that were trained on; leave the task 'few_clips' out, or catalog "
                    "such recordings"
                )
        if len(tuned) == 1:
            yield (
                f"few_clips: all {PERSPECTIVE} recordings to tune on show the action {tuned.pop()!r}; it takes at "
                "least two: take a catalog with several actions, or leave the task 'few_clips' out"
            )
        elif tuned:
            yield from _unknown(scored, sorted(tuned))

    def wants(self, recording: Recorded, facts: Facts) -> bool:
        """Ego recordings of cameras that were trained on."""
        return recording.perspective == PERSPECTIVE and recording.view in facts.seen

    def fit(self, train: EncoderPart) -> Fitted:
        """A classifier per draw; raises ValueError if no clip of an action can be read."""
        actions, draws = sorted({r.action for r in train.recordings}), Draws(train)
        models, counts = [], []
        for draw in range(self.options.draws):
            clips, labels = _stack(draws.few(self.options.per_action, draw), actions, train)
            models.append(fine_tune(train.encoder, clips, labels, len(actions), self.recipe, seed=draw))
            counts.append(len(clips))
        return Fitted(models, actions, counts)

    def predict(self, fitted: Fitted, test: EncoderPart) -> Predictions:
        """Whether each scored clip's likeliest action is its own."""
        for problem in _unknown({r.action for r in test.recordings}, fitted.actions):
            raise UserError(problem)
        clips, labels = _stack(Draws(test).evenly(self.options.max_scored), fitted.actions, test)
        right = [(likeliest(model, clips) == labels).cpu().numpy() for model in fitted.models]
        return Predictions(fitted, np.stack(right))

    def score(self, predictions: Predictions, test: EncoderPart) -> dict[str, float]:
        """Mean accuracy over draws."""
        del test
        return {f"few_clips/accuracy/{PERSPECTIVE}": float(np.mean(predictions.accuracies))}

    def items(self, predictions: Predictions, test: EncoderPart) -> int:
        """Clips."""
        del test
        return int(predictions.right.shape[1])

    def baselines(self) -> Mapping[str, Task]:
        """The accuracy of the head alone."""
        return {"frozen head only": HeadOnly(self.options)}

    def notes(self, predictions: Predictions, train: EncoderPart | None, test: EncoderPart) -> list[str]:
        """How much was tuned on and scored."""
        assert train is not None
        fitted = predictions.fitted
        return [
            f"Fine-tuned on {fitted.clips[-1]} {PERSPECTIVE} clips of split {train.split} ({len(fitted.actions)} "
            f"actions, {len(fitted.models)} draws), scored on {predictions.right.shape[1]} of split {test.split}."
        ]

    def details(self, predictions: Predictions, test: EncoderPart) -> dict[str, list[dict[str, object]]]:
        """Each draw."""
        del test
        of = zip(predictions.fitted.clips, predictions.accuracies, strict=True)
        return {"draws": [{"draw": k, "clips": clips, "accuracy": found} for k, (clips, found) in enumerate(of)]}


class HeadOnly(Task):
    """The encoder stays frozen."""

    recipe = FineTuning(head_only=True)


def _unknown(evaluated: set[str], actions: list[str]) -> Iterator[str]:
    for action in sorted(evaluated - set(actions)):
        yield (
            f"few_clips: action {action!r} is evaluated, but no {PERSPECTIVE} recording to tune on shows it; "
            f"those show {', '.join(actions)}: tune on a split that holds every action, or leave the task 'few_clips' "
            "out"
        )


def _stack(drawn: Clips, actions: list[str], part: EncoderPart) -> tuple[Tensor, Tensor]:
    """Clips (N, T, ...) and labels int64 (N,) where the encoder is."""
    device = next(part.encoder.parameters()).device
    labels = torch.tensor([actions.index(action) for action, _ in drawn], device=device)
    return torch.stack([clip for _, clip in drawn]).to(device), labels
