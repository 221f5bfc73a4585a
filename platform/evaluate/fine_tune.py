"""The task "fine_tuning": how well a network tuned on a few labelled ego clips names the actions of other people."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Perspective
from crossview.datasets.sampling.evaluation_clips import evaluation_clips
from crossview.datasets.video.decode import UnreadableVideo
from crossview.downstream.fine_tuning import FineTuning, accuracy, fine_tune
from crossview.methods.method import Method
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Where
from crossview.platform.config import Data
from crossview.platform.evaluate.clip_embeddings import clip_tensor, clip_views
from crossview.platform.evaluate.embedding_store import (
    RANDOM_INIT,
    TRAINED,
    device_name,
    on_features,
    ordered,
    random_init,
)
from crossview.platform.evaluate.task import Answer, Question, Scores
from crossview.platform.progress import Progress

HEAD_ONLY = "frozen head only"
PERSPECTIVE: Perspective = "ego"
PER_CLASS, DRAWS, SEED = 5, 3, 0
MAX_SCORED = 400
"""Clips of the evaluated split that are scored, evenly from all."""


def fine_tuning(question: Question) -> Answer:
    """Accuracy on the evaluated split after tuning on PER_CLASS clips per action of the fit split, mean over draws.

    Rows: the trained network and the random init, each tuned as a whole, and the trained one with its head alone.
    Raises ValueError where the fit split shows a single action in this perspective or none, or lacks an evaluated one.
    """
    source = checkpoint.resolve(question.run).resolve()
    device = torch.device(device_name(question.device))
    trained = checkpoint.load(source, device)
    fit = _Pool.of(question, question.fit_split, trained, source, device)
    test = _Pool.of(question, question.split, trained, source, device)
    actions = _actions(fit, test)
    clips, labels = _stack(test.evenly(MAX_SCORED), actions, test)
    rows: dict[str, tuple[Method, FineTuning]] = {TRAINED: (trained, FineTuning())}
    rows[HEAD_ONLY] = (trained, FineTuning(head_only=True))
    if question.baselines:
        rows[RANDOM_INIT] = (random_init(question.name, question.experiment, trained), FineTuning())
    found: list[dict[str, object]] = []
    scores: Scores = {}
    with Progress("fine-tuning", DRAWS * len(rows), "fits") as line:
        for draw in range(DRAWS):
            few, few_labels = _stack(fit.few(PER_CLASS, draw), actions, fit)
            for row, (encoder, recipe) in rows.items():
                model = fine_tune(encoder, few, few_labels, len(actions), recipe, seed=draw)
                found.append({"row": row, "draw": draw, "clips": len(few), "accuracy": accuracy(model, clips, labels)})
                line.advance(1, row)
    for row in rows:
        mean = float(np.mean([f["accuracy"] for f in found if f["row"] == row]))
        scores[row] = {f"fine_tuning/accuracy/{PERSPECTIVE}": mean}
    note = (
        f"Fine-tuned on {len(few)} {PERSPECTIVE} clips of split {question.fit_split} ({len(actions)} actions, {DRAWS} "
        f"draws), scored on {len(clips)} of split {question.split}."
    )
    return Answer(scores, [note], {"fine-tuning": pa.Table.from_pylist(found)})


def _actions(fit: _Pool, test: _Pool) -> list[str]:
    """The fit split's actions, sorted."""
    actions = sorted({r.action for r in fit.catalog.recordings})
    if len(actions) < 2:
        raise ValueError(
            f"fine-tuning: all {PERSPECTIVE} recordings to tune on show the action {actions[0]!r}; it takes at least "
            "two: take a catalog with several actions, or leave the task 'fine_tuning' out"
        )
    unknown = sorted({r.action for r in test.catalog.recordings} - set(actions))
    if unknown:
        raise ValueError(
            f"fine-tuning: action {unknown[0]!r} is evaluated, but no {PERSPECTIVE} recording to tune on shows it; "
            f"those show {', '.join(actions)}: tune on a split that holds every action"
        )
    return actions


def _stack(drawn: list[tuple[str, Tensor]], actions: list[str], pool: _Pool) -> tuple[Tensor, Tensor]:
    """Clips (N, T, ...) and labels int64 (N,) on the device, of (action, clip)."""
    labels = torch.tensor([actions.index(action) for action, _ in drawn], device=pool.device)
    return torch.stack([clip for _, clip in drawn]).to(pool.device), labels


@dataclass(frozen=True)
class _Pool:
    """The evaluation clips of one split and perspective, decoded when they are asked for."""

    catalog: Catalog
    frames: dict[str, np.ndarray]
    """By recording id, int64 (K, T)."""
    size_px: int
    data: Data
    model: Method
    device: torch.device
    drawn: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)
    """By index into the catalog's recordings and number of the clip; None where that cannot be read."""

    @staticmethod
    def of(question: Question, split: str, model: Method, source: Path, device: torch.device) -> _Pool:
        """Raises ValueError where the cameras that were trained on have no recording of the perspective."""
        q = question
        whole = ordered(q.catalog.select(split))
        views = clip_views(q.experiment.method.sampling())
        windows = evaluation_clips(whole.recordings, views, q.clips_per_scene)
        frames = {r.id: w.frames for r, w in zip(whole.recordings, windows, strict=True)}
        seen = q.seen_views()
        mine = tuple(r for r in whole.recordings if r.perspective == PERSPECTIVE and r.view in seen)
        if not mine:
            raise ValueError(
                f"fine-tuning: split {split!r} has no {PERSPECTIVE} recording of the cameras {', '.join(sorted(seen))} "
                "that were trained on; leave the task 'fine_tuning' out, or catalogue such recordings"
            )
        where = Where(q.in_process, q.actors, device.type)
        chosen = on_features(q.name, q.experiment, replace(whole, recordings=mine), where, 64, source)
        return _Pool(chosen, frames, views[PERSPECTIVE].size_px, q.experiment.data, model, device)

    def few(self, per_class: int, draw: int) -> list[tuple[str, Tensor]]:
        """`per_class` clips of each action at random, of different recordings as far as there are."""
        rng = np.random.default_rng((SEED, draw))
        drawn = []
        for action in sorted({r.action for r in self.catalog.recordings}):
            mine = [i for i, r in enumerate(self.catalog.recordings) if r.action == action]
            order = [(i, rng.permutation(len(self._frames(i)))) for i in rng.permutation(mine)]
            rounds = range(max(len(windows) for _, windows in order))
            places = [(int(i), int(windows[k])) for k in rounds for i, windows in order if k < len(windows)]
            clips = (clip for place in places if (clip := self._one(place)) is not None)
            found = [(action, clip) for clip in itertools.islice(clips, per_class)]
            if not found:
                raise ValueError(
                    f"fine-tuning: none of {len(mine)} {PERSPECTIVE} recordings of {action!r} can be read; mend the "
                    "files or catalogue others"
                )
            drawn += found
        return drawn

    def evenly(self, most: int) -> list[tuple[str, Tensor]]:
        """Up to `most` clips, evenly over the recordings' clips in their order."""
        places = [(i, k) for i in range(len(self.catalog.recordings)) for k in range(len(self._frames(i)))]
        chosen = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))
        found = []
        for index, of in itertools.groupby((places[j] for j in chosen), key=lambda place: place[0]):
            clips = self._read(index, [k for _, k in of])
            found += [(self.catalog.recordings[index].action, clip) for clip in (() if clips is None else clips)]
        if not found:
            raise ValueError(f"catalog {self.catalog.root}: none of its {PERSPECTIVE} recordings can be read")
        return found

    def _frames(self, index: int) -> np.ndarray:
        return self.frames[self.catalog.recordings[index].id]

    def _one(self, place: tuple[int, int]) -> Tensor | None:
        """One clip (T, ...), which later draws may ask for again."""
        if place not in self.drawn:
            clips = self._read(place[0], [place[1]])
            self.drawn[place] = None if clips is None else clips[0]
        return self.drawn[place]

    def _read(self, index: int, windows: list[int]) -> Tensor | None:
        """(K, T, ...) in the processor's memory; None where the recording cannot be read."""
        recording = self.catalog.recordings[index]
        file, frames = self.catalog.file(recording), self._frames(index)[windows]
        try:
            return clip_tensor(self.model, file, recording, frames, self.size_px, self.data, 64, self.device).cpu()
        except UnreadableVideo:
            return None
