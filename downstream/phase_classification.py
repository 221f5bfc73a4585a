"""AE2 task 1, phase classification: an SVM on frame embeddings (AE2, arXiv 2306.05526, section 4)."""

from __future__ import annotations

from sklearn.metrics import f1_score

from crossview.downstream.embeddings import Embeddings
from crossview.downstream.svm import fit_predict


def phase_f1(train: Embeddings, test: Embeddings) -> dict[str, float]:
    """Weighted F1 on `test`.

    "regular" fits and scores both views, "ego2exo" fits ego and scores exo, "exo2ego" the reverse.
    """
    for split in (train, test):
        split.require_both_perspectives("phase classification")

    # The three machines are fitted on different frames, and gamma depends on their variance: nothing is shared.
    (regular,) = fit_predict(train.vectors, train.labels, test.vectors)
    scores = {"regular": float(f1_score(test.labels, regular, average="weighted"))}
    for name, fitted, scored in (("ego2exo", train.is_ego, ~test.is_ego), ("exo2ego", ~train.is_ego, test.is_ego)):
        (predicted,) = fit_predict(train.vectors[fitted], train.labels[fitted], test.vectors[scored])
        scores[name] = float(f1_score(test.labels[scored], predicted, average="weighted"))
    return scores
