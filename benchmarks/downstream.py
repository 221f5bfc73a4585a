"""Downstream tasks against plain loops: retrieval, Kendall's tau, SVM predictions and temporal segmentation.

The size is that of Break Eggs' validation split: 10 videos, 1,642 frames, 256 channels; for segmentation metrics 12,000
frames, and for training steps 8 videos of 150 to 1,200 chunks.
Run: ``OMP_NUM_THREADS=1 uv run python benchmarks/downstream.py``
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from loops import segmentation as loops
from scipy.stats import kendalltau
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from crossview.downstream.frame_table import FrameTable
from crossview.downstream.phases.ae2 import evaluate
from crossview.downstream.phases.frame_retrieval import retrieval_map
from crossview.downstream.phases.kendall_tau import kendall_tau
from crossview.downstream.phases.svm import predict
from crossview.downstream.segmentation.asformer import ASFormer
from crossview.downstream.segmentation.c2f_tcn import C2FTCN
from crossview.downstream.segmentation.ltcontext import LTContext
from crossview.downstream.segmentation.masked_layers import prefix
from crossview.downstream.segmentation.metrics import count, scores
from crossview.downstream.segmentation.segmenter import SegmentationModel

FRAMES, VIDEOS, WIDTH, TRAIN_VIDEOS = 1642, 10, 256, 24


def embeddings(videos: int, frames: int, seed: int) -> FrameTable:
    """Videos of four phases with a direction per phase, an offset per view and noise of four times their size."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(20, frames - 20, 20), videos - 1, replace=False))
    lengths = np.diff(np.r_[0, cuts, frames])
    labels = np.concatenate([np.arange(length) * 4 // length for length in lengths])
    video = np.repeat(np.arange(videos), lengths)
    is_ego = video < videos // 2
    directions = np.random.default_rng(0).normal(size=(5, WIDTH))
    vectors = 0.5 * directions[labels] + directions[4] * is_ego[:, None] + 2 * rng.normal(size=(frames, WIDTH))
    frame = np.concatenate([np.arange(length) for length in lengths])
    return FrameTable(vectors, labels, video, frame, is_ego, tuple(f"video-{i}" for i in range(videos)))


def loop_retrieval(e: FrameTable, k: int = 10) -> dict[str, float]:
    """For each query, all frames sorted by distance with scikit-learn, then walked until k allowed ones are found."""
    index = NearestNeighbors(n_neighbors=len(e), algorithm="brute").fit(e.vectors)
    regular: list[float] = []
    cross: list[float] = []
    for query in range(len(e)):
        order = index.kneighbors(e.vectors[query : query + 1], return_distance=False)[0]
        for precisions, same_view_too in ((regular, True), (cross, False)):
            hits, total, rank = 0, 0.0, 0
            for row in order:
                if e.video[row] == e.video[query] or not (same_view_too or e.is_ego[row] != e.is_ego[query]):
                    continue
                rank += 1
                if e.labels[row] == e.labels[query]:
                    hits += 1
                    total += hits / rank
                if rank == k:
                    break
            precisions.append(total / hits if hits else 0.0)
    across = np.array(cross)
    return {
        "regular": float(np.mean(regular)),
        "ego2exo": float(across[e.is_ego].mean()),
        "exo2ego": float(across[~e.is_ego].mean()),
    }


def loop_tau(e: FrameTable) -> dict[str, float]:
    """For each pair of videos and each query, the distances to the other video's frames; SciPy's tau."""
    sampled = [e.vectors[rows][::5].astype(np.float64) for rows in e.video_slices()]
    taus = []
    for i, queries in enumerate(sampled):
        for j, gallery in enumerate(sampled):
            if i != j:
                found = [int(np.argmin(((gallery - query) ** 2).sum(1))) for query in queries]
                taus.append(float(kendalltau(np.arange(len(found)), found).statistic))
    return {"tau": float(np.mean([tau for tau in taus if not math.isnan(tau)]))}


def timed(function: Callable[[], dict[str, float]], repeats: int = 1) -> tuple[float, dict[str, float]]:
    """Seconds of the quickest call, and its result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def segmentation_metrics() -> None:
    """Print the metrics' ratio for a prediction of few segments and for one that flickers."""
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 202, 60), 200)
    few = np.roll(truth, 40)
    few[rng.integers(0, len(few), 100)] = 7
    flickering = np.where(rng.random(len(truth)) < 0.1, rng.integers(0, 202, len(truth)), truth)
    for name, prediction in (("few segments", few), ("flickering", flickering)):
        scores([count(truth, prediction)])  # compiled once
        slow_s, slow = timed(lambda prediction=prediction: loops.scores(truth, prediction))  # type: ignore[misc]
        fast_s, fast = timed(lambda prediction=prediction: scores([count(truth, prediction)]), 5)  # type: ignore[misc]
        difference = max(abs(slow[key] - fast[key]) for key in slow)
        print(f"{name:15} {slow_s:8.3f} s {fast_s:8.4f} s {slow_s / fast_s:8.1f}x  {difference:.1e}")


def segmentation_steps() -> None:
    """Print the ratio of a training step on a padded batch of 8 videos to one that takes them one by one."""
    lengths = torch.linspace(150, 1200, 8).long()
    mask = prefix(lengths, 1200)
    features, target = torch.randn(8, 1200, 512), torch.randint(0, 202, (8, 1200)).masked_fill(~mask, -100)

    def step(model: SegmentationModel, *, together: bool) -> dict[str, float]:
        model.zero_grad()
        for b in (slice(None),) if together else (slice(i, i + 1) for i in range(8)):
            longest = int(lengths[b].max())
            real = mask[b, :longest]
            model.loss(model(features[b, :longest], real), target[b, :longest], real)["loss"].backward()
        return {}

    for model in (C2FTCN(512, 202), ASFormer(512, 202), LTContext(512, 202)):
        step(model, together=True)
        slow_s, _ = timed(lambda model=model: step(model, together=False), 2)  # type: ignore[misc]
        fast_s, _ = timed(lambda model=model: step(model, together=True), 2)  # type: ignore[misc]
        print(f"{type(model).__name__:15} {slow_s:8.3f} s {fast_s:8.4f} s {slow_s / fast_s:8.1f}x")


def main() -> None:
    train, test = embeddings(TRAIN_VIDEOS, 4000, seed=1), embeddings(VIDEOS, FRAMES, seed=2)
    model = SVC(cache_size=1000).fit(train.vectors, train.labels)

    def score(labels: np.ndarray) -> dict[str, float]:
        return {"accuracy": float((labels == test.labels).mean())}

    rows: list[tuple[str, tuple[float, dict[str, float]], tuple[float, dict[str, float]]]] = [
        ("frame retrieval", timed(lambda: loop_retrieval(test)), timed(lambda: retrieval_map(test), 3)),
        ("Kendall's tau", timed(lambda: loop_tau(test)), timed(lambda: {"tau": kendall_tau(test)}, 3)),
        (
            "SVM predictions",
            timed(lambda: score(model.predict(test.vectors)), 3),
            timed(lambda: score(predict(model, test.vectors)), 3),
        ),
    ]
    print(f"{FRAMES} frames, {VIDEOS} videos, {WIDTH} channels")
    print("task             loop       here       ratio  largest difference")
    for name, (slow_s, slow), (fast_s, fast) in rows:
        difference = max(abs(slow[key] - fast[key]) for key in slow)
        print(f"{name:15} {slow_s:8.3f} s {fast_s:8.4f} s {slow_s / fast_s:8.1f}x  {difference:.1e}")
    whole_s, _ = timed(lambda: evaluate(train, test), 3)
    print(f"evaluate: {whole_s:.2f} s for all four tasks, {len(train)} train frames")
    print("segmentation metrics, 12,000 frames")
    segmentation_metrics()
    print("training steps on 8 videos of 150 to 1,200 steps: one by one, and in one padded batch")
    segmentation_steps()


if __name__ == "__main__":
    main()
