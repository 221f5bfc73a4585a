"""A support vector machine with scikit-learn's defaults whose predictions go through matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.svm import SVC

CACHE_MB = 1000
CHUNK = 2048


@dataclass(frozen=True)
class Classifier:
    """A fitted machine; where a single class was shown, which `SVC` refuses, that class."""

    model: SVC | None
    only: int
    """The class of every query where `model` is None."""

    def __call__(self, queries: np.ndarray) -> np.ndarray:
        """Labels (n,) of queries (n, D)."""
        return np.full(len(queries), self.only) if self.model is None else predict(self.model, queries)


def fit(vectors: np.ndarray, labels: np.ndarray) -> Classifier:
    """`SVC()` on `vectors` (N, D) and `labels` (N,): RBF, C = 1, gamma = 1 / (D Var(X)), one against one."""
    classes = np.unique(labels)
    if len(classes) == 1:
        return Classifier(None, classes[0])
    return Classifier(SVC(cache_size=CACHE_MB).fit(vectors, labels), classes[0])


def fit_predict(vectors: np.ndarray, labels: np.ndarray, *queries: np.ndarray) -> list[np.ndarray]:
    """Labels for each array of queries, (n, D) -> (n,), from `fit`."""
    classifier = fit(vectors, labels)
    return [classifier(query) for query in queries]


def predict(model: SVC, queries: np.ndarray) -> np.ndarray:
    """What `model.predict` returns; libsvm walks query by query without BLAS and takes several times as long."""
    queries = np.asarray(queries, dtype=np.float64)
    support: np.ndarray = model.support_vectors_
    weights, first, second = _pairwise_weights(model)
    squares = (support * support).sum(1)
    out = np.empty(len(queries), dtype=model.classes_.dtype)
    for start in range(0, len(queries), CHUNK):
        query = queries[start : start + CHUNK]
        kernel = query @ support.T  # (n, S), turned into exp(-gamma |x - s|^2) in place
        kernel *= -2
        kernel += (query * query).sum(1)[:, None]
        kernel += squares
        np.maximum(kernel, 0, out=kernel)
        kernel *= -model._gamma
        np.exp(kernel, out=kernel)
        wins = kernel @ weights + model.intercept_ > 0  # (n, pairs)
        votes = np.zeros((len(query), len(model.classes_)), dtype=np.int64)
        for pair, (i, j) in enumerate(zip(first, second, strict=True)):
            votes[:, i] += wins[:, pair]
            votes[:, j] += ~wins[:, pair]
        out[start : start + CHUNK] = model.classes_[votes.argmax(1)]  # the lower class wins a draw, as in libsvm
    return out


def _pairwise_weights(model: SVC) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (S, pairs) over support vectors, and per pair the class a positive value votes for and the other."""
    coefficients: np.ndarray = model.dual_coef_  # (K - 1, S)
    count = len(model.classes_)
    if count == 2:  # scikit-learn turns the sign of the binary case round
        return coefficients.T, np.array([1]), np.array([0])
    edges = np.cumsum([0, *model.n_support_])
    first, second = np.triu_indices(count, 1)
    weights = np.zeros((coefficients.shape[1], len(first)))
    for pair, (i, j) in enumerate(zip(first, second, strict=True)):
        of_i, of_j = slice(edges[i], edges[i + 1]), slice(edges[j], edges[j + 1])
        weights[of_i, pair] = coefficients[j - 1, of_i]
        weights[of_j, pair] = coefficients[i, of_j]
    return weights, first, second
