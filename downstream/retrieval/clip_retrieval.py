"""Cross-view retrieval: whether the clip of another camera that is nearest shows the same instant of the same scene."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from crossview.downstream.clip_table import ClipTable
from crossview.downstream.neighbours import CHUNK_ENTRIES, DECIMALS, unit_length
from crossview.errors import UserError

KS = (1, 5, 10)


@dataclass(frozen=True)
class Pair:
    """One camera's clips asked for among another's."""

    query: str
    gallery: str
    seen: bool
    """Whether both cameras were trained on."""
    queries: int
    """Query clips whose instant the gallery holds; others are left out."""
    clips: int
    """Clips in the gallery."""
    recall: dict[int, float]
    """R@k: share of queries whose instant is among the k nearest."""
    median_rank: float
    """Median place of the right clip, 1 at best."""
    within_scene: float
    """R@1 among the clips of the query's own scene."""
    chance: dict[int, float]
    """R@k of a random order."""
    chance_within_scene: float


@dataclass(frozen=True)
class Retrieval:
    """Scores by metric, those of a random order, and the pairs of cameras that they are means of."""

    scores: dict[str, float]
    chance: dict[str, float]
    pairs: list[Pair]


def clip_retrieval(e: ClipTable, seen: Collection[str] | None = None) -> Retrieval:
    """R@1, R@5 and R@10 by cosine for every ordered pair of cameras that share an instant.

    Gallery: all clips of the other camera, of all scenes; equally near clips come in their order. Metrics are means
    over pairs: "retrieval/R@k/seen" over those whose cameras both were trained on (`seen`; None: all were),
    "retrieval/R@k/held_out" over the others, "retrieval/R@1/within_scene/..." with the query's scene as the gallery.
    A mean over no pair is left out. Raises ValueError if no two cameras share an instant.
    """
    views = e.views()
    known = set(views if seen is None else seen)
    unit = unit_length(e.vectors)
    scene = np.unique(e.scene, return_inverse=True)[1]
    moment = np.unique(np.stack([scene, e.instant]), axis=1, return_inverse=True)[1].reshape(-1)
    rows = {view: np.flatnonzero(e.view == view) for view in views}
    ordered = [(a, b) for a in views for b in views if a != b]
    found = (_pair(a, b, {a, b} <= known, unit, scene, moment, rows) for a, b in ordered)
    pairs = [pair for pair in found if pair is not None]
    if not pairs:
        raise UserError(
            f"clip retrieval: {len(e)} clips of cameras {', '.join(views)}, but no instant is shown by two of them; "
            "retrieval needs synchronized cameras: give the cameras of a take one scene and clock in the catalog"
        )
    return Retrieval(_means(pairs, chance=False), _means(pairs, chance=True), pairs)


def _pair(
    a: str,
    b: str,
    seen: bool,
    unit: np.ndarray,
    scene: np.ndarray,
    moment: np.ndarray,
    rows: dict[str, np.ndarray],
) -> Pair | None:
    """Scores of queries from camera `a` among the clips of `b`; None without a common instant."""
    gallery = rows[b]
    order = np.argsort(moment[gallery])
    place = np.minimum(np.searchsorted(moment[gallery], moment[rows[a]], sorter=order), len(gallery) - 1)
    target = order[place]  # in the gallery, of each query
    there = moment[gallery][target] == moment[rows[a]]
    queries, target = rows[a][there], target[there]
    if not len(queries):
        return None
    rank, rank_in_scene = _ranks(unit[queries], unit[gallery], target, scene[queries], scene[gallery])
    own = (scene[queries][:, None] == scene[gallery]).sum(1)
    return Pair(
        query=a,
        gallery=b,
        seen=seen,
        queries=len(queries),
        clips=len(gallery),
        recall={k: float((rank <= k).mean()) for k in KS},
        median_rank=float(np.median(rank)),
        within_scene=float((rank_in_scene == 1).mean()),
        chance={k: min(k, len(gallery)) / len(gallery) for k in KS},
        chance_within_scene=float((1 / own).mean()),
    )


def _ranks(
    queries: np.ndarray, gallery: np.ndarray, target: np.ndarray, scene: np.ndarray, gallery_scene: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Place of each query's target in the whole gallery and among its scene's clips, from 1: int64 (Q,) each."""
    whole, within = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
    places = np.arange(len(gallery))
    step = max(1, CHUNK_ENTRIES // len(gallery))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        cosine = np.round(queries[part] @ gallery.T, DECIMALS)  # (q, G)
        own = np.take_along_axis(cosine, target[part, None], axis=1)
        before = (cosine > own) | ((cosine == own) & (places < target[part, None]))
        whole[part] = 1 + before.sum(1)
        within[part] = 1 + (before & (scene[part, None] == gallery_scene)).sum(1)
    return whole, within


def _means(pairs: list[Pair], *, chance: bool) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, of in (("seen", [p for p in pairs if p.seen]), ("held_out", [p for p in pairs if not p.seen])):
        if not of:
            continue
        for k in KS:
            values = [(p.chance if chance else p.recall)[k] for p in of]
            scores[f"retrieval/R@{k}/{name}"] = float(np.mean(values))
        values = [p.chance_within_scene if chance else p.within_scene for p in of]
        scores[f"retrieval/R@1/within_scene/{name}"] = float(np.mean(values))
    return scores
