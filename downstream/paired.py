"""Whether a claim that one row beats others holds: differences paired by seed, and their t intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.05
"""Chance that anything is said by luck of the claims that are decided together; half of it in either direction."""
SEEDS = 5
"""What a study takes. Fewer pairs have wide intervals, and none if all their differences are equal."""
SAME = 1e-12
"""Differences as close as this are equal: they differ by rounding."""


class Verdict(Enum):
    """On a claim, as the predicate of a sentence that begins with it."""

    HOLDS = "holds"
    NOT_SHOWN = "is NOT shown"
    REVERSED = "is the other way round"
    UNDECIDED = "cannot be decided"

    @property
    def compares(self) -> str:
        """The same between the names of a row and what it is to beat."""
        return _COMPARES[self]


_COMPARES = {
    Verdict.HOLDS: "beats",
    Verdict.NOT_SHOWN: "is NOT shown to beat",
    Verdict.REVERSED: "is WORSE than",
    Verdict.UNDECIDED: "cannot be compared with",
}
_HARDEST_FIRST = (Verdict.REVERSED, Verdict.NOT_SHOWN, Verdict.UNDECIDED, Verdict.HOLDS)


@dataclass(frozen=True)
class Difference:
    """What one row is above another, over the seeds that both have."""

    rival: str
    mean: float
    """NaN without a pair."""
    deviation: float
    """Sample standard deviation; NaN with fewer than two pairs."""
    pairs: int
    seeds: int
    """That either row should have; above `pairs` where one of them has no finite score."""
    low: float
    """Of the interval, two-sided and corrected for the number of claims; NaN where there is none."""
    high: float
    verdict: Verdict
    """Against this rival."""

    @property
    def effect(self) -> float:
        """Cohen's d_z, mean / deviation: with deviation 0 it is 0 if the mean is, else infinite with its sign."""
        if self.deviation == 0:
            return math.copysign(math.inf, self.mean) if self.mean else 0.0
        return self.mean / self.deviation

    def text(self, digits: int = 3) -> str:
        """The numbers, or why there is no interval: "+0.200 (95 % interval +0.111 to +0.289, d_z 2.8, 5 seeds)"."""
        if not self.pairs:
            return f"no seed has a score of both (of {self.seeds})"
        of = f" of {self.seeds}" if self.pairs < self.seeds else ""
        counted = f"{self.pairs}{of} seed{'s' if self.pairs > 1 or of else ''}"
        if math.isnan(self.low):
            why = f"no interval: equal differences take {SEEDS} seeds" if self.pairs > 1 else "no interval"
            return f"{self.mean:+.{digits}f} ({why}, {counted})"
        interval = f"{self.low:+.{digits}f} to {self.high:+.{digits}f}"
        return f"{self.mean:+.{digits}f} (95 % interval {interval}, d_z {self.effect:.1f}, {counted})"


@dataclass(frozen=True)
class Decision:
    """On one claim of several."""

    verdict: Verdict
    differences: tuple[Difference, ...]
    """By rival, hardest first."""

    @property
    def hardest(self) -> Difference:
        """The rival that the verdict rests on: of those with the worst verdict, whose interval begins lowest."""
        return self.differences[0]


def decide(own: Sequence[float], rivals: Mapping[str, Sequence[float]], claims: int) -> Decision:
    """Whether a row is above each of its rivals, if so many claims are decided together; higher is better.

    A score per seed, in the same order for all, NaN or missing at the end where a seed has none: a pair takes two
    finite ones. The intervals are Student's t, 95 %, two-sided, with Bonferroni's correction for the number of claims.
    The claim holds if the interval of every rival is above 0: an intersection-union test, which needs no correction for
    the number of rivals. It is the other way round if that of any is below 0 when corrected for that number too. Each
    of the two happens by luck, in any of the claims, with a probability of at most 2.5 %.
    """
    if not rivals or claims < 1:
        raise ValueError(f"decide: {len(rivals)} rivals and {claims} claims; it takes one or more of each")
    found = [_difference(rival, own, scores, LEVEL / claims, len(rivals)) for rival, scores in rivals.items()]
    found.sort(key=lambda d: (_HARDEST_FIRST.index(d.verdict), d.low))
    return Decision(found[0].verdict, tuple(found))


def _difference(rival: str, own: Sequence[float], scores: Sequence[float], level: float, rivals: int) -> Difference:
    n, seeds = min(len(own), len(scores)), max(len(own), len(scores))
    paired = np.asarray(own[:n], np.float64) - np.asarray(scores[:n], np.float64)  # (n,)
    paired = paired[np.isfinite(paired)]
    paired[np.abs(paired) <= SAME] = 0
    pairs, mean, deviation = len(paired), math.nan, math.nan
    if pairs:
        mean = float(paired.mean())
    if pairs > 1:
        deviation = 0.0 if np.ptp(paired) <= SAME else float(paired.std(ddof=1))
    low, high = _interval(mean, deviation, pairs, level)
    if math.isnan(low):
        verdict = Verdict.UNDECIDED
    elif _interval(mean, deviation, pairs, level / rivals)[1] < 0:
        verdict = Verdict.REVERSED
    else:
        verdict = Verdict.HOLDS if low > 0 else Verdict.NOT_SHOWN
    return Difference(rival, mean, deviation, pairs, seeds, low, high, verdict)


def _interval(mean: float, deviation: float, n: int, level: float) -> tuple[float, float]:
    """Around the mean, missed with a probability of `level`; NaN if so few differences show no deviation."""
    if n < 2 or (deviation == 0 and n < SEEDS):
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 1 - level / 2)) * deviation / math.sqrt(n)
    return mean - half, mean + half
