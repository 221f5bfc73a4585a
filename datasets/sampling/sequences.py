"""What a downstream trainer asks of recordings of features: labelled spans as steps, or what came before segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from crossview.datasets.sampling.units import RECORDING
from crossview.errors import UserError

UNLABELLED = -100
"""Target of a step or segment without a label, and of padding; torch's cross-entropy ignores it."""
Side = Literal["ego", "exo", "any"]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Labelled spans of one camera, or of synchronized cameras, as sequences of steps: a chunk of frames each.

    A step's target is the label that most of its frames have, the smaller class of two; frames without one do not
    count, and where spans overlap, the label of the one that starts last counts. The last chunk may be shorter.
    """

    kind: str
    """Segments or frame labels, by name."""
    classes: int
    option: str | None = None
    """Which option of the command line sets `classes`; errors name it."""
    unit: str = RECORDING
    """What a sequence is: the labelled span of a recording, or each segment of this kind, such as "sequence"."""
    views: tuple[Side, ...] = ("any",)
    """Perspective of each camera that is seen at once."""
    chunk: int = 20
    """Frames per step."""
    chunk_range: tuple[int, int] | None = None
    """In training, frames per step drawn log-uniformly from this range (C2F-TCN), for a share of the samples."""
    chunk_drawn: float = 0.5
    """That share."""
    test_chunks: tuple[int, ...] = ()
    """Frames per step in evaluation, whose probabilities are averaged; () is `chunk`."""
    test_views: tuple[str, ...] = ()
    """In evaluation with several cameras, their names; () takes the first of each perspective by name."""
    max_steps: int = 1200
    """Longer spans are cut into consecutive sequences."""
    pooled: bool = True
    """Whether a step is the maximum over its frames' features, rather than all of them."""

    def __post_init__(self) -> None:
        for name in ("classes", "chunk", "max_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 1 <= len(self.views) <= 2:
            raise UserError(f"views is {self.views}; a sequence shows one camera, or two at once")
        if self.test_views and len(self.test_views) != len(self.views):
            raise UserError(f"test_views is {self.test_views}; name one camera for each of {', '.join(self.views)}")
        low, high = self.chunk_range or (1, 1)
        if not 1 <= low <= high:
            raise UserError(f"chunk_range is {self.chunk_range}; it must be two numbers of frames, the smaller first")
        if not 0 <= self.chunk_drawn <= 1:
            raise UserError(f"chunk_drawn is {self.chunk_drawn}; it is a share and must be in [0, 1]")
        if any(chunk < 1 for chunk in self.test_chunks):
            raise UserError(f"test_chunks is {self.test_chunks}; each must be at least 1 frame")

    @property
    def labels(self) -> dict[str, int]:
        """Number of classes by kind."""
        return {self.kind: self.classes}

    @property
    def label_options(self) -> dict[str, str]:
        """Options that set these numbers."""
        return {self.kind: self.option} if self.option else {}

    @property
    def frames_per_step(self) -> int:
        """Frames that a step has room for where they are not pooled."""
        return max(self.chunk, *(self.chunk_range or (1,)), *(self.test_chunks or (1,)))


@dataclass(frozen=True, kw_only=True)
class Past:
    """The frames up to some time before each segment of a kind: what is known when its label is anticipated.

    Distances are whole frames: at 30 Hz, the last observed frame is exactly 30 before the segment's first at 1 s.
    Frames before the recording begins are masked.
    """

    labels: dict[str, int]
    """Kinds of labels to number of classes. A sample has one of each; of several on one span, each of its samples has
    another."""
    label_options: dict[str, str] = field(default_factory=dict)
    unit: str = "action"
    """Kind of the segments."""
    past_s: float = 6.0
    """How far back the first frame is from the last observed one."""
    horizon_s: float = 1.0
    """From the last observed frame to the segment's first."""
    least_s: float = 2.0
    """Segments with less than this before the last observed frame are left out."""
    fps: float | None = None
    """Rate at which every recording is seen, so that all samples have as many steps; None is each one's own."""

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps <= 0:
            raise UserError(f"fps is {self.fps}; it must be above 0, or None for each recording's own rate")
        for name in ("past_s", "horizon_s", "least_s"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be 0 s or more")
        if not self.labels or any(count < 1 for count in self.labels.values()):
            raise UserError(f"labels is {self.labels}; name at least one kind, with its number of classes")
