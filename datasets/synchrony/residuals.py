"""What remains of the offsets between the cameras of a scene once its catalog's clocks are applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.windows import overlap
from crossview.datasets.synchrony.energy import SOUND_HZ, Energy, motion_energy, sound_energy
from crossview.datasets.synchrony.lag import Lag, lag_between
from crossview.errors import UserError

CERTAIN = 0.999
"""Certainty from which a lag counts as found."""
WINDOW_S = 60.0
"""Of a scene, as much is read from each camera at most."""
Means = Literal["motion", "sound"]


@dataclass(frozen=True)
class Residual:
    """How much later one camera of a scene shows what another, its reference, shows."""

    recording: Recording
    reference: Recording
    late_s: float | None
    """By the catalog's clocks; None is uncertain. Subtracting it from `start_offset_s` makes the clocks agree."""
    certainty: float
    """Of the least certain pair between the two cameras, or of the best pair that was found for it."""
    means: Means | None
    reason: str = ""
    """Why nothing was found."""

    @property
    def frame_s(self) -> float:
        """Duration of a frame of the slower of both cameras."""
        return 1 / min(self.recording.fps, self.reference.fps)

    @property
    def off(self) -> bool:
        """Whether it is known to be late or early by more than a frame."""
        return self.late_s is not None and abs(self.late_s) > self.frame_s


@dataclass(frozen=True)
class _Pair:
    """The lag of camera `second` behind camera `first`, by their places in the scene."""

    first: int
    second: int
    lag: Lag
    means: Means
    frame_s: float


def residuals(catalog: Catalog, recordings: Sequence[Recording], max_lag_s: float = 10.0) -> list[Residual]:
    """One for every camera of a scene but the reference, which is the first camera of the largest group that agrees.

    Every two cameras are compared, by the sound of their files and by the motion of their pictures, and the surer
    lag is taken. Cameras are joined by the surest pairs; one that no certain pair joins to the reference is uncertain,
    and so is one whose certain pairs contradict each other by more than two frames. Raises ValueError for a scene
    with fewer than two cameras that share a clock.
    """
    clocked = [r for r in recordings if r.has_pixels and not r.own_clock]
    if len(clocked) < 2:
        raise UserError(
            f"scene {recordings[0].scene!r}: {len(clocked)} of its recordings have pictures and share a clock; an "
            "offset needs two: leave --check-sync out, or choose another scene with --scene"
        )
    span_s = _span(clocked)
    signals, reasons = _signals(catalog, clocked, span_s)
    pairs = [_compared(clocked, signals, i, j, max_lag_s) for i, j in combinations(range(len(clocked)), 2)]
    return _joined(clocked, [pair for pair in pairs if pair], reasons)


def _span(recordings: Sequence[Recording]) -> tuple[float, float]:
    """All that the cameras show or, of a longer scene, `WINDOW_S` around the middle of what they share."""
    first, last = min(r.start_s for r in recordings), max(r.end_s for r in recordings)
    if last - first <= WINDOW_S:
        return first, last
    middle = sum(overlap(list(recordings))) / 2
    start = min(max(first, middle - WINDOW_S / 2), last - WINDOW_S)
    return start, start + WINDOW_S


def _signals(
    catalog: Catalog, recordings: Sequence[Recording], span_s: tuple[float, float]
) -> tuple[list[dict[Means, Energy]], list[str]]:
    """The energies of each camera, and why one has none."""
    signals: list[dict[Means, Energy]] = []
    reasons: list[str] = []
    for recording in recordings:
        found: dict[Means, Energy] = {}
        reason = ""
        try:
            if (motion := motion_energy(catalog, recording, span_s)) is not None:
                found["motion"] = motion
            if (sound := sound_energy(catalog, recording, span_s)) is not None:
                found["sound"] = sound
        except UserError as error:
            reason = str(error)
        signals.append(found)
        reasons.append(reason)
    return signals, reasons


def _compared(
    recordings: Sequence[Recording], signals: Sequence[dict[Means, Energy]], i: int, j: int, max_lag_s: float
) -> _Pair | None:
    """The surer lag of two cameras; None if they have no signal in common."""
    frame_s = 1 / min(recordings[i].fps, recordings[j].fps)
    best: _Pair | None = None
    rates: dict[Means, float] = {"motion": 1 / frame_s, "sound": float(SOUND_HZ)}
    for means, rate in rates.items():
        if means in signals[i] and means in signals[j]:
            first, second = signals[i][means], signals[j][means]
            lag = lag_between(first, second, rate=rate, max_lag_s=max_lag_s, frame_s=frame_s)
            if best is None or lag.certainty > best.lag.certainty:
                best = _Pair(i, j, lag, means, frame_s)
    return best


def _joined(recordings: Sequence[Recording], pairs: list[_Pair], reasons: Sequence[str]) -> list[Residual]:
    """Lags behind the reference, along the surest pairs: a maximum spanning tree, as Kruskal grows it."""
    group = list(range(len(recordings)))
    tree: list[_Pair] = []
    certain = sorted((p for p in pairs if p.lag.certainty >= CERTAIN), key=lambda p: -p.lag.certainty)
    for pair in certain:
        kept, taken = group[pair.first], group[pair.second]
        if kept != taken:
            tree.append(pair)
            group = [kept if g == taken else g for g in group]
    largest = max(group, key=group.count)
    reference = group.index(largest)
    found = _walked(tree, reference)
    doubtful = {k for p in certain if _contradicts(p, found) for k in (p.first, p.second)}
    out = []
    for k, recording in enumerate(recordings):
        if k == reference:
            continue
        late_s, certainty, means = found.get(k, (None, 0.0, None))
        reason = reasons[k]
        if k in doubtful:
            late_s, certainty, reason = None, 0.0, "its comparisons with other cameras contradict each other"
        elif late_s is None:
            certainty = max((p.lag.certainty for p in pairs if k in (p.first, p.second)), default=0.0)
        out.append(Residual(recording, recordings[reference], late_s, certainty, means, reason))
    return out


def _walked(tree: Sequence[_Pair], reference: int) -> dict[int, tuple[float, float, Means | None]]:
    """How late each camera that the tree reaches is, the certainty of its path, and by what it was joined."""
    found: dict[int, tuple[float, float, Means | None]] = {reference: (0.0, 1.0, None)}
    waiting = [reference]
    while waiting:
        here = waiting.pop()
        late_s, certainty, _ = found[here]
        for pair in tree:
            for a, b, sign in ((pair.first, pair.second, 1), (pair.second, pair.first, -1)):
                if a == here and b not in found:
                    found[b] = (late_s + sign * pair.lag.seconds, min(certainty, pair.lag.certainty), pair.means)
                    waiting.append(b)
    return found


def _contradicts(pair: _Pair, found: dict[int, tuple[float, float, Means | None]]) -> bool:
    """Whether a certain pair gives another lag than the way through the tree."""
    if pair.first not in found or pair.second not in found:
        return False
    through_s = found[pair.second][0] - found[pair.first][0]
    return abs(through_s - pair.lag.seconds) > 2 * pair.frame_s
