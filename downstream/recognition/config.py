"""Options of clip recognition: how it is scored. No torch: `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossview.downstream.task import Mode
from crossview.downstream.test_views import ClassifierOptions
from crossview.errors import UserError

KINDS = ("verb", "noun", "action")
"""Kinds of labels whose scores have known names; those of a single kind are named without it."""


@dataclass(frozen=True, kw_only=True)
class Options(ClassifierOptions):
    """Accuracies of kinds of which a sample has one class, mean average precision of those of which it has several."""

    fusion: Literal["mean", "max"] | None = None
    """How the probabilities of these become one; None takes the maximum of sigmoids and the mean of softmaxes."""
    tail_verbs: tuple[str, ...] = ()
    """Classes, by name, that are also scored by themselves, as /tail."""
    tail_nouns: tuple[str, ...] = ()
    unseen: Literal["subject", "action"] | None = None
    """Also score, as /unseen, the recordings whose subject is not in the split that is fitted on (EPIC-KITCHENS), or
    whose own action is not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, names in self.tails.items():
            if len(set(names)) < len(names):
                raise UserError(f"tail_{kind}s is {', '.join(names)}; name each class once")

    @property
    def tails(self) -> dict[str, tuple[str, ...]]:
        """By kind, where there is one."""
        named = {"verb": self.tail_verbs, "noun": self.tail_nouns}
        return {kind: names for kind, names in named.items() if names}

    def metrics(self) -> dict[str, Mode]:
        """By measure, kind of label where there are several, and part of the samples."""
        unseen = ["/unseen"] if self.unseen else []
        parts = {
            "top1": ["", "/seen", "/held_out", *unseen, "/fused"],
            "top5": ["", "/fused"],
            "mean_class": ["", "/fused"],
            "map": ["", "/seen", "/held_out"],
            "consistency": [""],
        }
        names = [
            f"recognition/{measure}{kind}{part}"
            for kind in ("", *(f"/{kind}" for kind in KINDS))
            for measure, of in parts.items()
            for part in of
        ]
        tails = [*self.tails, "action"] if self.tails else []  # an action's is its verb's or its noun's
        return dict.fromkeys([*names, *(f"recognition/top1/{kind}/tail" for kind in tails)], "max")
