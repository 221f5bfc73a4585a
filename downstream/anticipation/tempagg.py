"""TempAgg: temporal aggregates of the past that anticipate the next action (Sener et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossview.downstream.anticipation.config import Network, Observed
from crossview.downstream.anticipation.snippets import SnippetMax


class Anticipated(NamedTuple):
    """What TempAgg predicts, by the name of the classes."""

    logits: dict[str, Tensor]
    """Sums over the aggregate blocks, (B, classes)."""
    per_tab: dict[str, Tensor]
    """Of each aggregate block, (R, B, classes), which the loss compares with the labels one by one."""


class NonLocal(nn.Module):
    """Attention between channels that mix the snippets of two sets, added to the first set.

    The mixtures theta = W [x; 1] and phi = W' [y; 1] of latent channels by D features are never made: their product is
    W ([x; 1] [y; 1]^T) W'^T, whose inner matrix is a few snippets square, and the values are applied likewise.
    """

    def __init__(self, queries: int, keys: int, features: int, network: Network) -> None:
        super().__init__()
        self.theta = nn.Linear(queries, network.latent)
        self.phi = nn.Linear(keys, network.latent)
        self.values = nn.Linear(keys, network.latent)
        self.norm = nn.LayerNorm((network.latent, features))
        self.back = nn.Linear(network.latent, queries)
        self.drop = nn.Dropout(network.dropout)
        for mixture in (self.theta, self.phi, self.values):
            nn.init.normal_(mixture.weight, std=0.01)  # products over D features would saturate the softmax otherwise
            nn.init.zeros_(mixture.bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Snippets (B, Q, D) that attend to snippets (B, K, D) -> (B, Q, D)."""
        latent = len(self.theta.weight)
        q, k = _with_ones(x) * latent**-0.5, _with_ones(y)  # (B, Q + 1, D), (B, K + 1, D)
        weights = _with_bias(self.theta) @ (q @ k.mT) @ _with_bias(self.phi).mT  # (B, latent, latent)
        mixed = (weights.softmax(2) @ _with_bias(self.values)) @ k  # (B, latent, D)
        added = self.back.weight @ F.relu(self.norm(mixed), inplace=True) + self.back.bias[:, None]  # (B, Q, D)
        return F.relu(x + self.drop(added))


def _with_ones(snippets: Tensor) -> Tensor:
    return torch.cat([snippets, torch.ones_like(snippets[:, :1])], 1)


def _with_bias(mixture: nn.Linear) -> Tensor:
    return torch.cat([mixture.weight, mixture.bias[:, None]], 1)  # (latent, K + 1)


class CouplingBlock(nn.Module):
    """A recent window related to one scale of the spanning past."""

    def __init__(self, recent: int, past: int, features: int, network: Network) -> None:
        super().__init__()
        self.past_attention = NonLocal(past, past, features, network) if network.past_attention else None
        self.coupling = NonLocal(recent, past, features, network)
        self.recent = _two_layers(2 * recent * features, network)
        self.context = _two_layers((past + 2 * recent) * features, network)

    def forward(self, recent: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Snippets (B, K, D) of both -> what is recent (B, width) and its context (B, width)."""
        if self.past_attention is not None:
            past = self.past_attention(past, past)
        coupled = torch.cat([self.coupling(recent, past), recent], 1)
        return self.recent(coupled.flatten(1)), self.context(torch.cat([past, coupled], 1).flatten(1))


def _two_layers(features: int, network: Network) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, network.width),
        nn.ReLU(),
        nn.Dropout(network.dropout),
        nn.Linear(network.width, network.width),
    )


class AggregateBlock(nn.Module):
    """TAB: a recent window related to all scales of the spanning past, and its classifier."""

    def __init__(self, observed: Observed, features: int, classes: int, network: Network) -> None:
        super().__init__()
        scales = observed.spanning_snippets
        self.couplings = nn.ModuleList(
            CouplingBlock(observed.recent_snippets, count, features, network) for count in scales
        )
        self.recent = nn.Linear(len(scales) * network.width, network.width)
        self.classify = nn.Linear(2 * network.width, classes)

    def forward(self, recent: Tensor, spanning: list[Tensor]) -> Tensor:
        """Snippets (B, K, D) of the window and of each scale -> logits (B, classes)."""
        pairs = [couple(recent, past) for couple, past in zip(self.couplings, spanning, strict=True)]
        joined = self.recent(torch.cat([pair[0] for pair in pairs], 1))  # (B, width)
        context = torch.stack([pair[1] for pair in pairs]).amax(0)  # (B, width)
        return self.classify(torch.cat([joined, context], 1))


class TempAgg(nn.Module):
    """Anticipates an action from the frame features of what was observed before it.

    `heads` has the number of classes by name, such as verb 17, noun 90 and action 1064. A batch may be of any size.
    """

    def __init__(self, features: int, heads: Mapping[str, int], observed: Observed, network: Network) -> None:
        super().__init__()
        self.heads = dict(heads)
        self.snippets = SnippetMax(observed)
        self.scales = len(observed.spanning_snippets)
        classes = sum(heads.values())
        self.tabs = nn.ModuleList(AggregateBlock(observed, features, classes, network) for _ in observed.recent_s)

    def forward(self, frames: Tensor, mask: Tensor) -> Anticipated:
        """Observed frames (B, T, D) in order of time, and which of them the recording has, bool (B, T).

        T is `Observed.steps`.
        """
        dtype = next(self.parameters()).dtype
        sets = [snippets.to(dtype) for snippets in self.snippets(frames, mask)]
        spanning, recent = sets[: self.scales], sets[self.scales :]
        logits = torch.stack([tab(window, spanning) for tab, window in zip(self.tabs, recent, strict=True)])
        parts = logits.split(list(self.heads.values()), 2)  # each (R, B, classes)
        per_tab = dict(zip(self.heads, parts, strict=True))
        return Anticipated({name: part.sum(0) for name, part in per_tab.items()}, per_tab)


def losses(per_tab: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy summed over aggregate blocks for each kind of class, and "loss", their sum.

    per_tab (R, B, classes) and labels int64 (B,) by the same names, -100 where there is none: that adds 0 to the mean
    over the batch. Every term has weight 1.
    """
    parts = {
        name: torch.stack([F.cross_entropy(tab, labels[name], reduction="sum") for tab in logits]).sum()
        / len(labels[name])
        for name, logits in per_tab.items()
    }
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}
