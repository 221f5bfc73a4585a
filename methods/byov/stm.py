"""Selective token merging (BYOV, section 3.2): a frame as the mean of its most changing patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def num_selected(ratio: float, patches: int) -> int:
    """Number of patches that are kept: 59 of 196, 77 of 256 and 15 of 49 at the paper's 0.3."""
    return max(1, round(ratio * patches))


def selected(tokens: Tensor, ratio: float, gap: int = 1) -> Tensor:
    """Indices of the patches that change most from t to t + `gap`: (B, T, N, D) -> int64 (B, T, K).

    A patch's score is the mean absolute difference of its channels. The last `gap` frames have no successor and
    reuse the ranking of the last pair, as the released code does. In a single frame no patch changes, and all are
    selected (K = N).
    """
    T, N = tokens.shape[1:3]
    if T == 1:
        return torch.arange(N, device=tokens.device).expand(len(tokens), 1, N)
    gap = min(gap, T - 1)
    score = (tokens[:, gap:].float() - tokens[:, :-gap].float()).abs().mean(-1)  # (B, T - gap, N)
    index = score.topk(num_selected(ratio, N), dim=-1).indices
    return torch.cat([index, index[:, -1:].expand(-1, gap, -1)], dim=1)


def merge(tokens: Tensor, ratio: float | None, gap: int = 1) -> Tensor:
    """Mean of each frame's selected patches, of all where `ratio` is None: (B, T, N, D) -> float32 (B, T, D)."""
    if ratio is None:
        return tokens.float().mean(2)
    return _gathered_mean(tokens, selected(tokens, ratio, gap))


def merge_stream(chunks: Iterable[Tensor], ratio: float | None, gap: int = 1) -> Tensor:
    """`merge` of a long recording that arrives in chunks (B, t, N, D), with only `gap` frames buffered."""
    return torch.cat(list(_merged(chunks, ratio, gap)), dim=1)


def _merged(chunks: Iterable[Tensor], ratio: float | None, gap: int) -> Iterator[Tensor]:
    pending: Tensor | None = None  # frames whose successor has not arrived yet
    last: Tensor | None = None  # ranking of the last pair so far, (B, 1, K)
    for chunk in chunks:
        if ratio is None:
            yield merge(chunk, None)
            continue
        window = chunk if pending is None else torch.cat([pending, chunk], dim=1)
        ready = window.shape[1] - gap
        if ready > 0:
            index = selected(window, ratio, gap)[:, :ready]
            yield _gathered_mean(window[:, :ready], index)
            pending, last = window[:, ready:], index[:, -1:]
        else:
            pending = window
    if pending is None:
        return
    if last is None:  # fewer frames than the gap needs
        yield merge(pending, ratio, gap)
        return
    yield _gathered_mean(pending, last.expand(-1, pending.shape[1], -1))


def _gathered_mean(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, T, N, D) and (B, T, K) -> float32 (B, T, D)."""
    chosen = tokens.gather(2, index[..., None].expand(-1, -1, -1, tokens.shape[-1]))
    return chosen.float().mean(2)
