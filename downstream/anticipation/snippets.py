"""Snippets of an observed past: equal parts of the spanning past at several scales, and of the recent windows."""

from __future__ import annotations

import itertools
from typing import TypeAlias

import torch
from torch import Tensor, nn

from crossview.downstream.anticipation.config import Observed

Range: TypeAlias = tuple[int, int]
"""First and last frame of a snippet, both part of it, counted from 0 in the T observed ones."""


def spanning_ranges(observed: Observed) -> list[list[Range]]:
    """The snippets of each scale of the spanning past; two neighbours share the frame between them."""
    length = observed.frames(observed.spanning_s)
    return [_parts(observed.steps - 1, length, count) for count in observed.spanning_snippets]


def recent_ranges(observed: Observed) -> list[list[Range]]:
    """The snippets of each recent window; two neighbours share the frame between them."""
    lengths = [observed.frames(length_s) for length_s in observed.recent_s]
    return [_parts(observed.steps - 1, length, observed.recent_snippets) for length in lengths]


def _parts(last: int, length: int, count: int) -> list[Range]:
    edges = [last - length + length * k // count for k in range(count + 1)]
    return list(itertools.pairwise(edges))


class SnippetMax(nn.Module):
    """Maximum over the frames of each snippet, with every frame read once.

    The T frames are cut at all ends of snippets; each piece is reduced once, and a snippet is the maximum of pieces.
    """

    def __init__(self, observed: Observed) -> None:
        super().__init__()
        self.frames = observed.steps
        sets = [*spanning_ranges(observed), *recent_ranges(observed)]
        ends = sorted({frame for snippets in sets for snippet in snippets for frame in snippet})
        cuts = sorted({cut for frame in ends for cut in (frame, frame + 1)})
        self.pieces = list(itertools.pairwise(cuts))
        """Begin and end of each piece in the frames, the end excluded."""
        self.sets = [[_between(cuts, snippet) for snippet in snippets] for snippets in sets]
        """Begin and end of each snippet in the pieces, the end excluded."""

    def forward(self, frames: Tensor, mask: Tensor) -> list[Tensor]:
        """(B, T, D) and bool (B, T) -> the snippets (B, K, D) of each scale of the spanning past and recent window.

        A snippet without a frame repeats the nearest one of its set that has some, of two equally near ones the
        later. A set without any repeats the last piece that has frames; where there is none at all, all is 0.
        """
        if frames.shape[1] != self.frames or mask.shape != frames.shape[:2]:
            raise ValueError(
                f"frames {tuple(frames.shape)} and mask {tuple(mask.shape)} must be (B, {self.frames}, D) and "
                f"(B, {self.frames})"
            )
        hidden = frames.masked_fill(~mask[..., None], -torch.inf)
        pieces = torch.stack([hidden[:, a:b].amax(1) for a, b in self.pieces], 1)  # (B, pieces, D)
        shown = torch.stack([mask[:, a:b].any(1) for a, b in self.pieces], 1)  # (B, pieces)
        last = (shown * torch.arange(1, 1 + shown.shape[1], device=shown.device)).argmax(1)
        spare = pieces[torch.arange(len(pieces), device=pieces.device), last]  # (B, D)
        spare = spare.masked_fill(~shown.any(1)[:, None], 0)
        out = []
        for snippets in self.sets:
            values = torch.stack([pieces[:, a:b].amax(1) for a, b in snippets], 1)  # (B, K, D)
            out.append(_filled(values, torch.stack([shown[:, a:b].any(1) for a, b in snippets], 1), spare))
        return out


def _between(cuts: list[int], snippet: Range) -> tuple[int, int]:
    first, last = snippet
    return cuts.index(first), cuts.index(last + 1)


def _filled(values: Tensor, shown: Tensor, spare: Tensor) -> Tensor:
    """Snippets (B, K, D) with those that are not shown (B, K) replaced by the nearest; `spare` (B, D) without any."""
    K = values.shape[1]
    at = torch.arange(K, device=values.device)
    away = 2 * (at[:, None] - at).abs() - (at > at[:, None]).long()  # (K, K), from row to column
    nearest = away.expand(len(values), K, K).masked_fill(~shown[:, None], 2 * K).argmin(2)  # (B, K)
    values = values.gather(1, nearest[..., None].expand_as(values))
    return torch.where(shown.any(1)[:, None, None], values, spare[:, None])
