"""Options of clip recognition: how it is scored. No torch: `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossview.downstream.task import Mode
from crossview.downstream.test_views import ClassifierOptions
from crossview.errors import UserError

MEASURES = ("top1", "top5", "mean_class", "map")
KINDS = ("verb", "noun", "action")
"""Kinds of labels whose scores have known names; those of a single kind are named without it."""
PARTS = ("seen", "held_out", "fused")


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
        parts = ["", *(f"/{name}" for name in PARTS), *(["/unseen"] if self.unseen else [])]
        names = []
        for kind in ("", *(f"/{kind}" for kind in KINDS)):
            names += [f"recognition/{measure}{kind}{part}" for measure in MEASURES for part in parts]
            names.append(f"recognition/consistency{kind}")
        tails = [*self.tails, *(["action"] if self.tails else [])]  # an action's is its verb's or its noun's
        names += [f"recognition/top1/{kind}/tail" for kind in tails]
        return dict.fromkeys(names, "max")
