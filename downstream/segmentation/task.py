"""How well videos are segmented, beside the commonest class and the same model without the method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from crossview.downstream import task
from crossview.downstream.class_notes import class_notes
from crossview.downstream.segmentation import metrics
from crossview.downstream.segmentation.config import Options
from crossview.downstream.task import Predicted, PredictionPart
from crossview.errors import UserError

UNLABELLED = -100


@dataclass(frozen=True, eq=False)
class Video:
    """One video as one camera, or two at once, show it."""

    recordings: tuple[str, ...]
    scene: str
    views: tuple[str, ...]
    first: int
    """Frame of the first recording that it begins with."""
    truth: np.ndarray
    """int64 (T,), -100 where a frame has no label."""
    prediction: np.ndarray
    """int64 (T,)."""
    annotated: int
    """Frames with a label, those included that its camera no longer shows, or that could not be read."""


class Task(task.Task[Options, PredictionPart]):
    """The likeliest class of each step, for all of its frames."""

    def predict(self, fitted: object, test: PredictionPart) -> list[Video]:
        """Of each video, whose parts are joined, averaged over the frames per step."""
        del fitted
        return [_video(samples, self._scores) for samples in _videos(test.samples)]

    def score(self, predictions: list[Video], test: PredictionPart) -> dict[str, float]:
        """In percent, and the agreement of cameras where several show one video."""
        if not any((video.truth >= 0).any() for video in predictions):
            raise UserError(
                f"split {test.split!r}: none of the frames of its {len(predictions)} videos has a label, as where a "
                "dataset withholds them; score another split with --split"
            )
        found = metrics.scores(self._counts(predictions))
        agreement = consistency(predictions)
        values = {name: value for name, value in found.items() if name != "coverage"}
        return {f"segmentation/{name}": value for name, value in (values | agreement).items()}

    def items(self, predictions: list[Video], test: PredictionPart) -> int:
        """Videos."""
        del test
        return len(predictions)

    def baselines(self) -> Mapping[str, Task]:
        """The commonest class everywhere."""
        return {"majority": Majority(self.options)}

    def notes(self, predictions: list[Video], train: PredictionPart | None, test: PredictionPart) -> list[str]:
        """How much was scored, and which of its classes training lacks."""
        frames = sum(len(video.truth) for video in predictions)
        labelled = sum(int((video.truth >= 0).sum()) for video in predictions)
        views = len({video.views for video in predictions})
        annotated = sum(count.annotated for count in self._counts(predictions))
        lost = f"; {test.left_out} parts could not be read" if test.left_out else ""
        if annotated > labelled:
            lost += (
                f"; {annotated - labelled} more are annotated, after their camera has ended or where it cannot be read"
            )
        return [
            f"Segmentation of {len(predictions)} videos of {views} cameras or pairs of them: {labelled} of {frames} "
            f"frames have a label and are scored{lost}. F1 and accuracy are over all videos' segments and frames "
            "together; per_video is the mean of each video's own.",
            *self._class_notes(train, test),
        ]

    def _class_notes(self, train: PredictionPart | None, test: PredictionPart) -> list[str]:
        if train is None:
            return []
        kind = next(iter(test.samples[0].targets))
        return class_notes(kind, _labels(train), _labels(test), test.classes.get(kind, ()))

    def details(self, predictions: list[Video], test: PredictionPart) -> dict[str, list[dict[str, object]]]:
        """Scores of every camera, and of every video."""
        del test
        by_view: dict[tuple[str, ...], list[Video]] = {}
        for video in predictions:
            by_view.setdefault(video.views, []).append(video)
        cameras: list[dict[str, object]] = [
            {"views": "+".join(views), "videos": len(videos), **metrics.scores(self._counts(videos))}
            for views, videos in sorted(by_view.items())
            if any((video.truth >= 0).any() for video in videos)
        ]
        each: list[dict[str, object]] = [
            {"video": "+".join(video.recordings), "first_frame": video.first, **metrics.scores(self._counts([video]))}
            for video in predictions
            if (video.truth >= 0).any()
        ]
        return {"cameras": cameras, "videos": each}

    def _counts(self, videos: Sequence[Video]) -> list[metrics.Counts]:
        counts = [metrics.count(video.truth, video.prediction) for video in videos]
        return [
            replace(own, annotated=max(own.annotated, video.annotated))
            for own, video in zip(counts, videos, strict=True)
        ]

    def _scores(self, sample: Predicted) -> np.ndarray:
        """Scores of each frame of a sample, (L, C)."""
        found = sample.outputs["probabilities"]
        if not np.isfinite(found).all():
            raise UserError(
                f"{sample.recordings[0]}, frames {sample.span[0]} to {sample.span[1]}: the predicted probabilities are "
                "not finite; check the run's losses and the features of this recording"
            )
        return np.repeat(found, sample.chunk, axis=0)[: sample.span[1] - sample.span[0]]


class Majority(Task):
    """The class that most frames to fit on have."""

    fixed = True

    def fit(self, train: PredictionPart) -> int:
        """Its number."""
        labels = _labels(train)
        if (labels < 0).all():
            raise UserError(
                f"split {train.split!r}: none of the frames of its {len(train.samples)} sequences has a label, so "
                "there is no commonest class; label them, or fit on another split with --fit-split"
            )
        return int(np.bincount(labels[labels >= 0]).argmax())

    def predict(self, fitted: object, test: PredictionPart) -> list[Video]:
        """The same for every frame."""
        assert isinstance(fitted, int)

        def always(sample: Predicted) -> np.ndarray:
            scores = np.zeros((sample.span[1] - sample.span[0], fitted + 1))
            scores[:, fitted] = 1
            return scores

        return [_video(samples, always) for samples in _videos(test.samples)]


def consistency(videos: Sequence[Video]) -> dict[str, float]:
    """Share of frames, in percent, at which two cameras of one event are given the same label: mean over pairs.

    Frames are counted from each camera's first one; {} where no event is seen by two cameras.
    """
    events: dict[tuple[str, int], list[Video]] = {}
    for video in videos:
        events.setdefault((video.scene, len(video.views)), []).append(video)
    found = [
        100 * float((a.prediction[: len(b.prediction)] == b.prediction[: len(a.prediction)]).mean())
        for cameras in events.values()
        for a, b in combinations(cameras, 2)
        if a.views != b.views and len(a.prediction) and len(b.prediction)
    ]
    return {"consistency": float(np.mean(found))} if found else {}


def _labels(part: PredictionPart) -> np.ndarray:
    """Of all frames of a split: int64 (N,)."""
    return np.concatenate([sample.labels for sample in part.samples])


def _videos(samples: Sequence[Predicted]) -> Iterator[list[Predicted]]:
    """The parts of each video, of every number of frames per step, in order."""
    found: dict[tuple[int, tuple[str, ...]], list[Predicted]] = {}
    for sample in samples:
        found.setdefault((sample.unit, sample.views), []).append(sample)
    for parts in found.values():
        yield sorted(parts, key=lambda sample: (sample.chunk, sample.span))


def _video(samples: list[Predicted], scores_of: Callable[[Predicted], np.ndarray]) -> Video:
    """One video of its parts."""
    first, stop = min(s.span[0] for s in samples), max(s.span[1] for s in samples)
    total: np.ndarray | None = None
    truth = np.full(stop - first, UNLABELLED, np.int64)
    for sample in samples:
        scores = scores_of(sample)
        total = np.zeros((stop - first, scores.shape[1])) if total is None else total
        place = slice(sample.span[0] - first, sample.span[1] - first)
        total[place] += scores
        truth[place] = sample.labels
    assert total is not None
    prediction = np.where(total.any(1), total.argmax(1), UNLABELLED)
    one = samples[0]
    return Video(one.recordings, one.scene, one.views, first, truth, prediction, one.annotated)
