"""EPIC-KITCHENS-100's accuracies of verbs, nouns and actions, with the rule of its official evaluation.

An action is a verb and a noun, numbered verb * 1000 + noun; its score is softmax(verb) * softmax(noun). The official
evaluation forms the products of the 100 best verbs and nouns. Their k best are among those of the k best verbs and
nouns, and the logarithm of a product is the sum of two logits less a constant of the sample: so sums are ranked here,
which also order products that would underflow.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from crossview.downstream.recognition.metrics import best, hits

NOUNS = 1000
"""An action's number is its verb's times this, plus its noun's."""
SINGLE = ("verb", "noun")


def best_actions(verb: np.ndarray, noun: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the k most probable actions, best first, from logits (N, verbs) and (N, nouns): int64 (N, k).

    Of equally probable actions the lower number comes first. Raises ValueError if probabilities are given: a second
    softmax, or a sum, would rank actions differently; `metrics.log_scores` makes logits of them.
    """
    for name, scores in zip(SINGLE, (verb, noun), strict=True):
        _refuse_probabilities(name, scores)
    verbs, nouns = best(verb, k), best(noun, k)  # (N, k)
    pairs = len(verb), verbs.shape[1] * nouns.shape[1]
    sums = np.take_along_axis(verb.astype(np.float64), verbs, 1)[:, :, None]
    sums = (sums + np.take_along_axis(noun.astype(np.float64), nouns, 1)[:, None]).reshape(pairs)
    numbers = (verbs[:, :, None] * NOUNS + nouns[:, None]).reshape(pairs)
    order = np.lexsort((numbers, -sums), axis=1)[:, :k]
    return np.take_along_axis(numbers, order, 1)


def epic_accuracies(
    verb: np.ndarray,
    noun: np.ndarray,
    verbs: np.ndarray,
    nouns: np.ndarray,
    *,
    tail_verbs: Collection[int] = (),
    tail_nouns: Collection[int] = (),
    unseen: np.ndarray | None = None,
) -> dict[str, float]:
    """`KIND/top1` and `KIND/top5` of all segments, `KIND/tail/top1` and `KIND/unseen/top1`, KIND verb, noun or action.

    Logits (N, verbs) and (N, nouns), labels (N,). A segment is in the tail of verbs or nouns if its class is, and in
    that of actions if either is. `unseen`, bool (N,), marks segments of participants who are not in training. A subset
    without segments is left out.
    """
    numbers = verbs * NOUNS + nouns
    actions = best_actions(verb, noun, 5)
    in_tail = np.isin(verbs, sorted(tail_verbs)), np.isin(nouns, sorted(tail_nouns))
    tails = {"verb": in_tail[0], "noun": in_tail[1], "action": in_tail[0] | in_tail[1]}
    out: dict[str, float] = {}
    for kind, tail in tails.items():
        scores, labels = (verb, verbs) if kind == "verb" else (noun, nouns)
        right = {
            k: (actions[:, :k] == numbers[:, None]).any(1) if kind == "action" else hits(scores, labels, k)
            for k in (1, 5)
        }
        subsets = {
            f"{kind}/top1": (right[1], np.ones(len(verbs), bool)),
            f"{kind}/top5": (right[5], np.ones(len(verbs), bool)),
            f"{kind}/tail/top1": (right[1], tail),
            f"{kind}/unseen/top1": (right[1], np.zeros(len(verbs), bool) if unseen is None else unseen),
        }
        out |= {name: float(found[part].mean()) for name, (found, part) in subsets.items() if part.any()}
    return out


def _refuse_probabilities(name: str, scores: np.ndarray) -> None:
    if len(scores) and (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        raise ValueError(
            f"the {name} scores are probabilities; actions are ranked by logits: pass `log_scores` of them"
        )
