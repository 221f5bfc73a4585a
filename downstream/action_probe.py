"""Action probes of clip vectors: a linear classifier and nearest neighbours, on held-out subjects and cameras."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from crossview.downstream.clip_retrieval import CHUNK_ENTRIES, DECIMALS, unit_length
from crossview.downstream.clips import ClipEmbeddings

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisations C that are tried."""
FOLDS = 3
NEIGHBOURS, TEMPERATURE = 20, 0.07
ITERATIONS, TOLERANCE = 500, 1e-3


def action_probe(fit: ClipEmbeddings, test: ClipEmbeddings, seen: Collection[str]) -> dict[str, float]:
    """Balanced accuracy of both probes, fitted on the `seen` cameras' clips of `fit`.

    "actions/linear/seen" and "actions/knn/seen" score the seen cameras' clips of `test`, ".../held_out" those of its
    other cameras; what there is no clip of is left out. `test` is never looked at while fitting.
    Raises ValueError where the clips to fit on show a single action, and where `test` shows one that they do not.
    """
    train = _to_fit(fit, test, seen)
    predictions = {
        "linear": linear(train.vectors, train.action, train.subject, test.vectors),
        "knn": neighbours(train.vectors, train.action, test.vectors),
    }
    scores = {}
    for probe, predicted in predictions.items():
        for name, part in _parts(test, seen).items():
            scores[f"actions/{probe}/{name}"] = balanced(test.action[part], predicted[part])
    return scores


def majority(fit: ClipEmbeddings, test: ClipEmbeddings, seen: Collection[str]) -> dict[str, float]:
    """The same scores for always naming the action that most clips to fit on show."""
    train = _to_fit(fit, test, seen)
    names, counts = np.unique(train.action, return_counts=True)
    most = np.full(len(test), names[counts.argmax()])
    return {
        f"actions/{probe}/{name}": balanced(test.action[part], most[part])
        for probe in ("linear", "knn")
        for name, part in _parts(test, seen).items()
    }


def balanced(actions: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the actions shown of the share of their clips that is recognised."""
    return float(np.mean([(predicted[actions == action] == action).mean() for action in np.unique(actions)]))


def linear(vectors: np.ndarray, actions: np.ndarray, subjects: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Actions of `queries` (Q, D) by multinomial logistic regression on channels standardised over `vectors` (N, D).

    C has the best mean balanced accuracy over folds that hold out subjects, the smallest of equals. Raises ValueError
    for fewer than two subjects.
    """
    count = len(np.unique(subjects))
    if count < 2:
        raise ValueError(
            f"linear probe: all {len(vectors)} clips to fit on are of subject {str(subjects[0])!r}; its strength is "
            "chosen on subjects held out of them: fit on a split of at least two subjects"
        )
    folds = GroupKFold(min(FOLDS, count)).split(vectors, groups=subjects)
    scores = [
        [_held_out_score(vectors, actions, kept, left, strength) for strength in STRENGTHS]
        for kept, left in folds
        if len(np.unique(actions[kept])) > 1
    ]
    best = int(np.mean(scores, axis=0).argmax()) if scores else len(STRENGTHS) // 2
    return _predict(vectors, actions, queries, STRENGTHS[best])


def _held_out_score(
    vectors: np.ndarray, actions: np.ndarray, kept: np.ndarray, left: np.ndarray, strength: float
) -> float:
    return balanced(actions[left], _predict(vectors[kept], actions[kept], vectors[left], strength))


def _predict(vectors: np.ndarray, actions: np.ndarray, queries: np.ndarray, strength: float) -> np.ndarray:
    scale = StandardScaler().fit(vectors.astype(np.float64))
    model = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=TOLERANCE)
    model.fit(scale.transform(vectors.astype(np.float64)), actions)
    predicted: np.ndarray = model.predict(scale.transform(queries.astype(np.float64)))
    return predicted


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


def _to_fit(fit: ClipEmbeddings, test: ClipEmbeddings, seen: Collection[str]) -> ClipEmbeddings:
    train = fit.of_views(seen)
    names = np.unique(train.action)
    if len(names) < 2:
        raise ValueError(
            f"action probe: all {len(train)} clips to fit on show the action {str(names[0])!r}; a probe tells at least "
            "two apart: take a catalog with several actions, or leave the task 'actions' out"
        )
    unknown = np.setdiff1d(test.action, names)
    if len(unknown):
        raise ValueError(
            f"action probe: action {str(unknown[0])!r} is evaluated, but no clip to fit on shows it; those show "
            f"{', '.join(names)}: fit on a split that holds every action"
        )
    return train


def _parts(test: ClipEmbeddings, seen: Collection[str]) -> dict[str, np.ndarray]:
    """Which clips were filmed by cameras that were trained on, and by others: bool (N,) each."""
    mine = np.isin(test.view, sorted(seen))
    return {name: part for name, part in (("seen", mine), ("held_out", ~mine)) if part.any()}
