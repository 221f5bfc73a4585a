"""Which labelled clips a network is tuned on, and which it is scored on."""

from __future__ import annotations

import itertools

import numpy as np
from torch import Tensor

from crossview.downstream.task import EncoderPart
from crossview.errors import UserError

SEED = 0

Clips = list[tuple[str, Tensor]]
"""(action, clip (T, ...))."""


class Draws:
    """The clips of a split's recordings."""

    def __init__(self, part: EncoderPart) -> None:
        self.part, self.recordings = part, part.recordings

    def few(self, per_action: int, draw: int) -> Clips:
        """`per_action` clips of each action at random, of different recordings as far as there are."""
        rng = np.random.default_rng((SEED, draw))
        drawn: Clips = []
        for action in sorted({r.action for r in self.recordings}):
            mine = [i for i, r in enumerate(self.recordings) if r.action == action]
            order = [(i, rng.permutation(self._count(i))) for i in rng.permutation(mine)]
            rounds = range(max(len(windows) for _, windows in order))
            places = [(int(i), int(windows[k])) for k in rounds for i, windows in order if k < len(windows)]
            clips = (clip for place in places if (clip := self._one(place)) is not None)
            found = [(action, clip) for clip in itertools.islice(clips, per_action)]
            if not found:
                raise UserError(
                    f"few_clips: none of {len(mine)} recordings of {action!r} in split {self.part.split!r} can be "
                    "read; fix the files or catalog others"
                )
            drawn += found
        return drawn

    def evenly(self, most: int) -> Clips:
        """Up to `most` clips, evenly over the recordings' clips in their order."""
        places = [(i, k) for i in range(len(self.recordings)) for k in range(self._count(i))]
        chosen = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))
        found: Clips = []
        for index, of in itertools.groupby((places[j] for j in chosen), key=lambda place: place[0]):
            clips = self.part.clips.read(self.recordings[index].id, [k for _, k in of])
            found += [(self.recordings[index].action, clip) for clip in (() if clips is None else clips)]
        if not found:
            raise UserError(
                f"few_clips: none of the {len(self.recordings)} recordings to score in split {self.part.split!r} can "
                "be read; fix the files or catalog others"
            )
        return found

    def _count(self, index: int) -> int:
        return self.part.clips.count(self.recordings[index].id)

    def _one(self, place: tuple[int, int]) -> Tensor | None:
        """One clip (T, ...); None if it cannot be read."""
        clips = self.part.clips.read(self.recordings[place[0]].id, [place[1]])
        return None if clips is None else clips[0]
