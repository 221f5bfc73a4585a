"""One take: a subject doing an action once, as a function from the frame's number to the 3-D scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .actions import ACTIONS
from .config import PHASES, SPLITS, WorldConfig
from .motion import Wobble, resting
from .person import HEAD_M, Looks, draw_arm, draw_hand, draw_head, draw_trunk
from .room import Bystander, draw_room
from .scene import Primitives, Vector, mirrored
from .shadows import SHADOW_CELLS, shadow_map

_SUBJECT, _TAKE, _VIEW = 1, 2, 3
"""First words of the random streams, so that no two streams share a seed."""
_SHORTEST_S, _SLOWEST = 1.4, 3.2
"""Shortest phase, and how many times longer the longest is."""
_PHASES_SHOWN = {2: 0.8, 3: 0.2}
"""How many phases a `window` take shows, and how often: few, so that t/L carries almost no information."""


@dataclass(frozen=True)
class TakeName:
    """Which take of the world this is; everything about it follows from this and the config."""

    split: str
    action: str
    number: int

    def rng(self, config: WorldConfig, *more: int) -> np.random.Generator:
        """A random stream of this take."""
        words = [config.seed, _TAKE, SPLITS.index(self.split), list(PHASES).index(self.action), self.number]
        return np.random.default_rng([*words, *more])

    def view_rng(self, config: WorldConfig, view: int) -> np.random.Generator:
        """A random stream of one camera in this take."""
        return self.rng(config, _VIEW, view)

    @property
    def scene(self) -> str:
        """Name of the take in the catalog."""
        return f"{self.action}_{self.split}{self.number:04d}"

    def subject_number(self, config: WorldConfig) -> int:
        """Counted over all splits, so that no subject appears in two."""
        before = sum(config.subjects(s) for s in SPLITS[: SPLITS.index(self.split)])
        return before + int(self.rng(config, 9).integers(config.subjects(self.split)))


def _durations(
    rng: np.random.Generator, phases: int, config: WorldConfig, tempo: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (L,) and progress within the phase float (L,)."""
    if config.cut == "window":
        shown = min(phases, int(rng.choice(list(_PHASES_SHOWN), p=list(_PHASES_SHOWN.values()))))
        order = np.arange(shown) + rng.integers(phases - shown + 1)
    elif config.cut == "cycle":
        order = (np.arange(phases + 1) + rng.integers(phases)) % phases
    else:
        order = np.arange(phases)
    length = _SHORTEST_S * config.fps * tempo * _SLOWEST ** rng.uniform(0, 1, len(order))
    first, last = (0.0, 1.0) if config.cut == "whole" else (rng.uniform(0, 0.7), rng.uniform(0.3, 1.0))
    if config.cut == "cycle":
        last = max(first, 0.1)
        length[-1] = length[0]
    start, stop = np.zeros(len(order)), np.ones(len(order))
    start[0], stop[-1] = first, last
    shown_frames = length * (stop - start)
    shown_frames *= np.clip(shown_frames.sum(), config.min_frames, config.max_frames) / shown_frames.sum()
    edges = np.round(np.concatenate([[0.0], np.cumsum(shown_frames)])).astype(int)
    labels = np.repeat(order, np.diff(edges)).astype(np.int32)
    progress = np.concatenate(
        [a + (b - a) * (np.arange(n) + 0.5) / max(n, 1) for a, b, n in zip(start, stop, np.diff(edges), strict=True)]
    )
    return labels, progress


class Take:
    """The scene of one take over time; `labels` and `progress` (L,), `handedness`, `subject`."""

    def __init__(self, config: WorldConfig, name: TakeName) -> None:
        self.config, self.name = config, name
        number = name.subject_number(config)
        who = np.random.default_rng([config.seed, _SUBJECT, number])
        self.subject = f"subject{number:03d}"
        self.looks = Looks.draw(who)
        self.handedness = "left" if who.random() < 0.4 else "right"
        tempo = float(who.uniform(0.8, 1.25))
        rng = name.rng(config)
        self.labels, self.progress = _durations(rng, len(PHASES[name.action]), config, tempo)
        self.action = ACTIONS[name.action](rng)
        self.room = draw_room(rng)
        self.bystanders = [Bystander(rng) for _ in range(int(rng.integers(2, 5)))]
        self.lamp = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-0.3, 1.1), rng.uniform(1.3, 1.9)])
        self.ambient = float(rng.uniform(0.35, 0.6))
        self._drift = (Wobble(rng, high_hz=1.2), Wobble(rng, high_hz=1.2))
        self._drum = (Wobble(rng, 1, 0.4, 1.6), Wobble(rng, 1, 0.4, 1.6))
        self._start_s = float(rng.uniform(0, 60))

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the pixel groups 0, 1, ...: hands, then objects."""
        hands = ("right_hand", "left_hand") if self.handedness == "right" else ("left_hand", "right_hand")
        return (*hands, *self.action.objects)

    def instant(self, frame: int) -> tuple[np.ndarray, np.ndarray, Vector]:
        """All moving primitives, those of the head alone, and where the dominant hand grasps (metres)."""
        time_s = self._start_s + frame / self.config.fps
        out = Primitives()
        fidget = [
            resting(
                side,
                0.35 + 0.3 * float(self._drum[k](time_s)[0]),
                0.035 * self._drift[k](time_s) * np.array([1, 1, 0.15]),
            )
            for k, side in ((0, 1.0), (1, -1.0))
        ]
        dominant, other = self.action.draw(
            int(self.labels[frame]), float(self.progress[frame]), fidget[1], fidget[0], out
        )
        for group, hand, side in ((0, dominant, 1.0), (1, other, -1.0)):
            out.group = group
            draw_hand(out, hand, side, self.looks)
            out.group = -1
            draw_arm(out, hand, side, self.looks)
        draw_trunk(out, self.looks)
        head = Primitives()
        draw_head(head, self.looks, HEAD_M + 0.5 * (dominant.grasp - HEAD_M) + np.array([0.0, 0.1, 0.0]))
        body, top, gaze = out.array(), head.array(), dominant.grasp
        if self.handedness == "left":
            body, top, gaze = mirrored(body), mirrored(top), gaze * np.array([-1.0, 1.0, 1.0])
        aside = Primitives()
        for bystander in self.bystanders:
            bystander.draw(time_s, aside)
        return np.concatenate([body, aside.array()]), top, gaze

    def shadow(self, moving: np.ndarray) -> np.ndarray:
        """Soft shadow on the table (cells, cells)."""
        out = np.zeros((SHADOW_CELLS, SHADOW_CELLS))
        shadow_map(moving, self.lamp, out)
        return out
