"""AE2's four tasks on one pair of splits (Xue and Grauman, arXiv 2306.05526; BYOV is scored with them too)."""

from __future__ import annotations

from crossview.downstream.embeddings import Embeddings
from crossview.downstream.frame_retrieval import retrieval_map
from crossview.downstream.kendall_tau import kendall_tau
from crossview.downstream.phase_classification import phase_f1
from crossview.downstream.phase_progression import progression_r2


def evaluate(train: Embeddings, test: Embeddings, *, time_column: bool = False, k: int = 10) -> dict[str, float]:
    """All scores by name, higher is better: phase_f1/*, map@k/*, progression_r2, kendall_tau.

    `time_column` belongs to pour_liquid and enters phase progression only. Retrieval and Kendall's tau do not read
    `train`. Raises ValueError where widths differ, a perspective is missing or no phase is common to both splits.
    """
    _check(train, test)
    scores = {f"phase_f1/{name}": value for name, value in phase_f1(train, test).items()}
    scores |= {f"map@{k}/{name}": value for name, value in retrieval_map(test, k=k).items()}
    scores["progression_r2"] = progression_r2(train, test, time_column=time_column)
    scores["kendall_tau"] = kendall_tau(test)
    return scores


def _check(train: Embeddings, test: Embeddings) -> None:
    if train.dim != test.dim:
        raise ValueError(
            f"AE2 evaluation: train vectors have width {train.dim}, evaluated ones {test.dim}; both splits must be "
            "embedded by one model: embed them again with the same checkpoint"
        )
    for name, split in (("train", train), ("evaluated", test)):
        split.require_both_perspectives(f"AE2 evaluation, {name} split")
