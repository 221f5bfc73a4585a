"""The contract between a downstream task and the platform. A task knows neither Ray nor files nor methods.

A task is a folder `downstream/NAME/` with `config.py` (class `Options`, imports no torch) and `task.py` (class `Task`).
The folder's name is the name a user types; nothing else lists it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from crossview.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

Mode = Literal["max", "min"]
"""Whether higher or lower is better."""
Reads = Literal["frames", "clips", "encoder", "samples", "predictions"]
"""What `fit` and `predict` get for each split.

frames: `TablePart`, one row per frame of every recording, for each row of the result (trained, its baselines, ...).
clips: `TablePart`, one row per evaluation clip, for each row of the result.
encoder: `EncoderPart`, a network and the clips to train or score it on, for the trained weights and the random init.
samples: `SamplePart`, a network and one batch drawn as in its training, for the trained weights and the random init.
predictions: `PredictionPart`, what the trainer of the task's name predicts, for the trained run and its controls, or a
method's own classifier, for the trained weights and the random init; the targets alone of the split that is fitted on.
"""


@dataclass(frozen=True, kw_only=True)
class TaskOptions(ABC):
    """Base of every task's `Options`: what it reads, whether it fits something, and its own options as fields."""

    reads: ClassVar[Reads]
    fitted: ClassVar[bool]
    """Whether the task fits something on another split than the evaluated one."""
    default: ClassVar[bool] = False
    """Whether `crossview evaluate` scores the task if none is named."""

    @abstractmethod
    def metrics(self) -> dict[str, Mode]:
        """Names of the trained row's scores; empty if only the scored network knows them."""


@dataclass(frozen=True, kw_only=True)
class ClipOptions(TaskOptions):
    """Base for tasks that read "clips" or "encoder"."""

    clips_per_scene: int = 4
    """Evaluation clips of each recording, at the same instants from every camera of a scene."""

    def __post_init__(self) -> None:
        if self.clips_per_scene < 1:
            raise UserError(f"clips_per_scene is {self.clips_per_scene}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(TaskOptions):
    """Base for tasks that read "samples"."""

    samples: int = 256
    """Samples in the batch, or as many as one epoch of the split has."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"samples is {self.samples}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(TaskOptions):
    """Base for tasks that read "predictions"; they fit only what the commonest class is."""

    reads: ClassVar[Reads] = "predictions"
    fitted: ClassVar[bool] = True
    views: tuple[str, ...] | None = None
    """Cameras that are scored, by name; None takes all. One that nothing was trained on is a novel view: hold it out
    with `--data.views` in training."""

    def __post_init__(self) -> None:
        if self.views == ():
            raise UserError("views is empty; name at least one camera, or leave it out to score all")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the catalog knows of one recording."""

    id: str
    dataset: str
    scene: str
    view: str
    """Name of the camera within the scene."""
    perspective: str
    """ "ego" or "exo"."""
    subject: str
    action: str
    start_s: float
    """First and last instant on the scene's clock."""
    end_s: float
    frame_labels: Mapping[str, frozenset[int]]
    """The labels that its frames show, by the name of those that every frame has, such as "phase"."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of an evaluation before anything is embedded."""

    method: str
    catalog: str
    split: str
    fit_split: str
    test: tuple[Recorded, ...]
    """Of the evaluated split, ego before exo, each by path."""
    train: tuple[Recorded, ...]
    """Of the split that is fitted on; empty where no task fits anything."""
    seen: frozenset[str]
    """Cameras that the method was trained on."""
    actions: frozenset[str]
    """Actions that training was restricted to, or all of the catalog."""
    measures: bool
    """Whether the method measures something of its own."""


class ClipReader(Protocol):
    """Evaluation clips of one split, each decoded once, when it is first asked for."""

    def count(self, recording: str) -> int:
        """Clips of the recording with this id."""

    def read(self, recording: str, clips: Sequence[int]) -> Tensor | None:
        """Clips by number, as `embed_clip` takes them: (K, T, ...) in host memory; None if they cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of an evaluation."""

    split: str
    recordings: tuple[Recorded, ...]
    """Those that the task wants, in the order of `Facts.test`."""
    seen: frozenset[str]
    """Cameras that the method was trained on."""


@dataclass(frozen=True, kw_only=True)
class TablePart(Part):
    """A split as one row of the result embeds it."""

    table: pa.Table
    """What `FrameTable.from_table` or `ClipTable.from_table` reads, with the catalog's facts as further columns."""


@dataclass(frozen=True, kw_only=True)
class EncoderPart(Part):
    """A split's clips with the network of one row of the result."""

    encoder: nn.Module
    """In eval mode; `embed_clip` gives vectors (B, D) of clips (B, T, ...). A task that trains it trains a copy."""
    clips: ClipReader


@dataclass(frozen=True, kw_only=True)
class SamplePart(Part):
    """One batch of a split with the network of one row of the result."""

    encoder: nn.Module
    """In eval mode; `measures` gives scalars of the batch by name."""
    batch: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """One evaluated sample of a trainer."""

    unit: int
    """The same for all samples of one recording, or of one segment of it."""
    recordings: tuple[str, ...]
    """Ids of the cameras' recordings."""
    scene: str
    """Of its dataset; a segment's event, which all cameras that show it share."""
    views: tuple[str, ...]
    perspectives: tuple[str, ...]
    span: tuple[int, int]
    """First frame of the first recording that it covers, and one after the last."""
    chunk: int
    """Frames per step."""
    labels: np.ndarray
    """int64 (stop - first,), of the frames of a labelled span, -100 where there is none; empty for other samples."""
    annotated: int = 0
    """Frames of the unit of a labelled span that have a label, and those that have one after its recording has ended,
    as other cameras show; 0 for other samples."""
    targets: Mapping[str, np.ndarray]
    """By kind: int64 (T,) of steps, int64 () or multi-hot uint8 (C,) of the sample."""
    outputs: Mapping[str, np.ndarray]
    """What `Trainer.predict` gives of it, or of each view (V, C); empty where only targets are asked for."""


@dataclass(frozen=True, kw_only=True)
class PredictionPart(Part):
    """A split's samples, in the order of their recordings, with what one row of the result predicts."""

    samples: tuple[Predicted, ...]
    classes: Mapping[str, tuple[str, ...]]
    """Names by kind, where the catalog has them."""
    left_out: int
    """Samples of recordings that could not be read."""
    undrawn: Mapping[str, int] = field(default_factory=dict)
    """Recordings or segments of each camera that no sample shows, such as segments that begin too early to be
    anticipated; only cameras with some."""
    several_classes: bool = False
    """Whether outputs are sigmoids of classes of which a sample may show several."""
    encoder_seen: frozenset[str] | None
    """Cameras of these datasets that were seen in pre-training; None where that is not known."""
    encoded: bool
    """Whether something was pre-trained: an encoder, or the weights that training started from."""

    def held_out(self) -> list[str]:
        """Which of the scored cameras training has not seen, and whether the encoder's has; a sentence."""
        cameras = {view for sample in self.samples for view in sample.views}
        new = sorted(cameras - self.seen)
        if not new:
            return []
        said = f"Held-out cameras, on which nothing was trained downstream: {', '.join(new)}"
        if not self.encoded:
            return [f"{said}."]
        if self.encoder_seen is None:
            return [f"{said}; whether pre-training saw them is not known."]
        seen = sorted(set(new) & self.encoder_seen)
        pretrained = f"pre-training saw {', '.join(seen)}" if seen else "nor was the encoder"
        return [f"{said}; {pretrained}."]


O = TypeVar("O", bound=TaskOptions)  # noqa: E741 - the options
P = TypeVar("P", bound=Part)


class Task(ABC, Generic[O, P]):
    """One downstream task. A subclass is named `Task` and built as `Task(options)`.

    The platform calls, for every row of the result, ``score(predict(fit(train), test), test)``.
    """

    fixed: ClassVar[bool] = False
    """As a baseline: whether it scores the same at every checkpoint of a run, so that a run computes it once."""

    def __init__(self, options: O) -> None:
        self.options = options

    def check(self, facts: Facts) -> Iterator[str]:
        """What the catalog already shows to be missing, a sentence or two each that names the fix.

        Nothing is embedded or trained while any chosen task has such a problem; all of them are listed at once.
        """
        del facts
        yield from ()

    def wants(self, recording: Recorded, facts: Facts) -> bool:
        """Whether a task that reads "encoder" or "samples" uses this recording; others are never decoded."""
        del recording, facts
        return True

    def fit(self, train: P) -> Any:
        """Whatever `predict` needs from the other split; may take long. Not called where `fitted` is False."""
        del train
        return None

    @abstractmethod
    def predict(self, fitted: Any, test: P) -> Any:
        """What is predicted of the evaluated split; `fitted` is `fit`'s, or None where nothing is fitted."""

    @abstractmethod
    def score(self, predictions: Any, test: P) -> dict[str, float]:
        """Values by metric; those that are undefined on this split are left out."""

    @abstractmethod
    def items(self, predictions: Any, test: P) -> int:
        """How many frames, clips or samples were scored."""

    def baselines(self) -> Mapping[str, Task[O, P]]:
        """Further rows by name: what fits, predicts or scores in place of this task, on the trained row's parts."""
        return {}

    def notes(self, predictions: Any, train: P | None, test: P) -> list[str]:
        """What a reader has to know about the trained row's numbers, a sentence or two each."""
        del predictions, train, test
        return []

    def details(self, predictions: Any, test: P) -> dict[str, list[dict[str, object]]]:
        """Lines of further tables by name, such as the scores of each action; the platform adds the column "row"."""
        del predictions, test
        return {}

    def markdown(self, details: Mapping[str, pa.Table]) -> str:
        """Text below the table of scores, from the tables that all rows' `details` make."""
        del details
        return ""
