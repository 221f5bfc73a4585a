"""EVGAP's two losses, computed on the unit vectors of all layers at once, and indicators of a collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pair_loss(ego: Tensor, exo: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss, equation 1 as intended: unit vectors (L, B, D) with matching rows -> (L,).

    The mean of the row-wise and column-wise cross-entropies of the scaled similarities, with the diagonal as target.
    """
    logits = scale * ego @ exo.mT  # (L, B, B)
    matching = logits.diagonal(dim1=1, dim2=2).mean(1)
    return 0.5 * (logits.logsumexp(2).mean(1) + logits.logsumexp(1).mean(1)) - matching


def group_loss(
    ego: Tensor,
    exo: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    ego_mask: Tensor | None = None,
    exo_mask: Tensor | None = None,
) -> Tensor:
    """Grouped sigmoid loss, equation 2: unit vectors (L, B, M, D) and (L, B, N, D) of the same scenes -> (L,).

    The mean of -log sigmoid(+-(scale * similarity + bias)) over all pairs of an ego and an exo clip, with + within a
    scene. Pairs with a missing camera, False in a mask (bool (B, M), (B, N)), are left out.
    """
    B, M, N = ego.shape[1], ego.shape[2], exo.shape[2]
    logits = scale * ego.flatten(1, 2) @ exo.flatten(1, 2).mT  # (L, B * M, B * N)
    if bias is not None:
        logits = logits + bias
    same = torch.eye(B, dtype=torch.bool, device=ego.device)
    same = same.repeat_interleave(M, 0).repeat_interleave(N, 1)
    cost = F.softplus(torch.where(same, -logits, logits))
    if ego_mask is None or exo_mask is None:
        return cost.mean((1, 2))
    pairs = ego_mask.flatten()[:, None] & exo_mask.flatten()
    return torch.where(pairs, cost, 0).sum((1, 2)) / pairs.sum().clamp(min=1)


@torch.no_grad()
def indicators(
    ego: Tensor, exo: Tensor, ego_mask: Tensor | None = None, exo_mask: Tensor | None = None
) -> dict[str, Tensor]:
    """How well views agree: unit vectors (B, M, D) and (B, N, D) of the same scenes -> scalars by name.

    positive, negative: mean similarity within and across scenes. ego_mean, exo_mean: norm of each perspective's mean
    vector, near 1 where all its clips are alike. R@1: share of clips whose nearest clip of the other perspective shows
    the same scene.
    """
    B, M, N = len(ego), ego.shape[1], exo.shape[1]
    a, b = ego.flatten(0, 1), exo.flatten(0, 1)
    in_a = torch.ones(B * M, dtype=torch.bool, device=a.device) if ego_mask is None else ego_mask.flatten()
    in_b = torch.ones(B * N, dtype=torch.bool, device=a.device) if exo_mask is None else exo_mask.flatten()
    scene_a = torch.arange(B, device=a.device).repeat_interleave(M)
    scene_b = torch.arange(B, device=a.device).repeat_interleave(N)
    similarity = a @ b.mT
    pairs = in_a[:, None] & in_b
    same = (scene_a[:, None] == scene_b) & pairs
    seen = similarity.masked_fill(~pairs, -torch.inf)
    to_exo = _mean(scene_b[seen.argmax(1)] == scene_a, in_a)
    to_ego = _mean(scene_a[seen.argmax(0)] == scene_b, in_b)
    return {
        "positive": _mean(similarity, same),
        "negative": _mean(similarity, pairs & ~same),
        "ego_mean": (a * in_a[:, None]).sum(0).norm() / in_a.sum().clamp(min=1),
        "exo_mean": (b * in_b[:, None]).sum(0).norm() / in_b.sum().clamp(min=1),
        "R@1": (to_exo + to_ego) / 2,
    }


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
