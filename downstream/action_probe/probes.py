"""Action probes of clip vectors: a linear classifier and nearest neighbours, on held-out subjects and cameras."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from crossview.downstream.cameras import consistency
from crossview.downstream.clip_table import ClipTable
from crossview.downstream.neighbours import CHUNK_ENTRIES, DECIMALS, unit_length
from crossview.errors import UserError

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisations C that are tried."""
FOLDS = 3
NEIGHBOURS, TEMPERATURE = 20, 0.07
ITERATIONS, TOLERANCE = 500, 1e-3


@dataclass(frozen=True)
class Linear:
    """A multinomial logistic regression on channels standardised over the clips that it was fitted on."""

    scale: StandardScaler
    model: LogisticRegression

    def __call__(self, queries: np.ndarray) -> np.ndarray:
        """Actions of `queries` (Q, D)."""
        predicted: np.ndarray = self.model.predict(self.scale.transform(queries.astype(np.float64)))
        return predicted


@dataclass(frozen=True)
class Probes:
    """Both probes, fitted."""

    train: ClipTable
    linear: Linear

    def predict(self, test: ClipTable) -> dict[str, np.ndarray]:
        """Actions (N,) by probe; raises ValueError if `test` shows one that no clip to fit on does."""
        require_known(self.train, test)
        return {
            "linear": self.linear(test.vectors),
            "knn": neighbours(self.train.vectors, self.train.action, test.vectors),
        }


def fit_probes(train: ClipTable, seen: Collection[str]) -> Probes:
    """Probes of the `seen` cameras' clips; raises ValueError if those show a single action or subject."""
    clips = to_fit(train, seen)
    return Probes(clips, fit_linear(clips.vectors, clips.action, clips.subject))


def majority(train: ClipTable, test: ClipTable) -> dict[str, np.ndarray]:
    """The action that most of the clips `train` show, for every clip of `test` and either probe."""
    require_known(train, test)
    names, counts = np.unique(train.action, return_counts=True)
    return dict.fromkeys(("linear", "knn"), np.full(len(test), names[counts.argmax()]))


def accuracies(predictions: dict[str, np.ndarray], test: ClipTable, seen: Collection[str]) -> dict[str, float]:
    """Balanced accuracy of every probe.

    "action_probe/PROBE/seen" scores the `seen` cameras' clips of `test`, ".../held_out" those of its other cameras;
    what there is no clip of is left out.
    """
    return {
        f"action_probe/{probe}/{name}": balanced(test.action[part], predicted[part])
        for probe, predicted in predictions.items()
        for name, part in _parts(test, seen).items()
    }


def agreement(predictions: dict[str, np.ndarray], test: ClipTable) -> dict[str, float]:
    """Of every probe, "action_probe/PROBE/consistency": share of pairs of cameras that show an instant, given the same.

    Left out where no instant is shown by two cameras.
    """
    scenes = np.unique(test.scene, return_inverse=True)[1]
    instants = np.unique(np.stack([scenes, test.instant]), axis=1, return_inverse=True)[1].reshape(-1)
    found = {probe: consistency(predicted, instants, test.view) for probe, predicted in predictions.items()}
    return {f"action_probe/{probe}/consistency": of["pairs"] for probe, of in found.items() if of}


def balanced(actions: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the actions shown of the share of their clips that is recognised."""
    return float(np.mean([(predicted[actions == action] == action).mean() for action in np.unique(actions)]))


def fit_linear(vectors: np.ndarray, actions: np.ndarray, subjects: np.ndarray) -> Linear:
    """The linear probe of `vectors` (N, D).

    C has the best mean balanced accuracy over folds that hold out subjects, the smallest of equals. Raises ValueError
    for fewer than two subjects.
    """
    _refuse(single_subject(subjects.tolist(), "clips"))
    folds = GroupKFold(min(FOLDS, len(set(subjects.tolist())))).split(vectors, groups=subjects)
    scores = [
        [_held_out_score(vectors, actions, kept, left, strength) for strength in STRENGTHS]
        for kept, left in folds
        if len(np.unique(actions[kept])) > 1
    ]
    best = int(np.mean(scores, axis=0).argmax()) if scores else len(STRENGTHS) // 2
    return _fitted(vectors, actions, STRENGTHS[best])


def _held_out_score(
    vectors: np.ndarray, actions: np.ndarray, kept: np.ndarray, left: np.ndarray, strength: float
) -> float:
    return balanced(actions[left], _fitted(vectors[kept], actions[kept], strength)(vectors[left]))


def _fitted(vectors: np.ndarray, actions: np.ndarray, strength: float) -> Linear:
    scale = StandardScaler().fit(vectors.astype(np.float64))
    model = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=TOLERANCE)
    return Linear(scale, model.fit(scale.transform(vectors.astype(np.float64)), actions))


def neighbours(vectors: np.ndarray, actions: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Actions of `queries` by the NEIGHBOURS nearest in cosine, each voting with exp(cosine / TEMPERATURE).

    Source: Wu et al., arXiv 1805.01978, section 3.4. Equally near clips come in their order.
    """
    names, of = np.unique(actions, return_inverse=True)
    gallery, asked = unit_length(vectors), unit_length(queries)
    out = np.empty(len(queries), np.int64)
    step = max(1, CHUNK_ENTRIES // len(gallery))
    for start in range(0, len(asked), step):
        cosine = np.round(asked[start : start + step] @ gallery.T, DECIMALS)  # (q, N)
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :NEIGHBOURS]
        weights = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1) / TEMPERATURE)
        votes = np.stack([(weights * (of[nearest] == c)).sum(1) for c in range(len(names))], axis=1)
        out[start : start + step] = votes.argmax(1)
    return names[out]


def to_fit(train: ClipTable, seen: Collection[str]) -> ClipTable:
    """The `seen` cameras' clips; raises ValueError if they show a single action."""
    clips = train.of_views(seen)
    _refuse(single_action(np.unique(clips.action).tolist(), f"{len(clips)} clips"))
    return clips


def require_known(train: ClipTable, test: ClipTable) -> None:
    """Raise ValueError if `test` shows an action that `train` does not."""
    _refuse(unknown_actions(np.unique(test.action).tolist(), np.unique(train.action).tolist()))


def single_action(actions: Sequence[str], what: str) -> Iterator[str]:
    """The problem where `what` there is to fit on shows a single action."""
    if len(actions) < 2:
        yield (
            f"action probe: all {what} to fit on show the action {actions[0]!r}; a probe needs at least two: "
            "take a catalog with several actions, or leave the task 'action_probe' out"
        )


def single_subject(subjects: Sequence[str], what: str) -> Iterator[str]:
    """The problem where all that there is to fit on is of one person."""
    if len(set(subjects)) < 2:
        yield (
            f"action probe: all {len(subjects)} {what} to fit on are of subject {subjects[0]!r}; the linear probe's "
            "strength is chosen on subjects held out of them: fit on a split of at least two subjects, or leave the "
            "task 'action_probe' out"
        )


def unknown_actions(evaluated: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """The problem where evaluated actions are not among those to fit on."""
    for action in sorted(set(evaluated) - set(known)):
        yield (
            f"action probe: action {action!r} is evaluated, but no clip to fit on shows it; those show "
            f"{', '.join(known)}: fit on a split that holds every action, or leave the task 'action_probe' out"
        )


def _refuse(problems: Iterator[str]) -> None:
    for problem in problems:
        raise UserError(problem)


def _parts(test: ClipTable, seen: Collection[str]) -> dict[str, np.ndarray]:
    """Which clips were filmed by cameras that were trained on, and by others: bool (N,) each."""
    mine = np.isin(test.view, sorted(seen))
    return {name: part for name, part in (("seen", mine), ("held_out", ~mine)) if part.any()}
