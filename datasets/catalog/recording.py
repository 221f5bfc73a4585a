"""What a catalog lists: recordings, spans of them that carry a label, and files that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossview.errors import UserError

Perspective = Literal["ego", "exo"]
Kind = Literal["video", "frames", "features"]
"""A video file, a folder of images, or an array of features per frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One camera's file of one scene.

    Recordings of one `scene` share a clock, except those with `own_clock`: the instant of frame k is `start_offset_s`
    plus the time at which the file shows it, which is ``first_s + k / fps`` at a constant rate, and in its frame index
    at any other. The time of a span is counted from its own first frame.
    Raises ValueError if a part of its id holds a "/".
    """

    dataset: str
    scene: str
    view: str
    """Name of the camera within the scene."""
    perspective: Perspective
    subject: str
    action: str
    """What is done in the recording; ego and exo videos of one action may be paired without being synchronous."""
    path: str
    """The file, relative to the catalog's root."""
    kind: Kind
    fps: float
    """The constant rate, or the average of one that varies."""
    num_frames: int
    """Frames that a sequential decode of the file, or of this span of it, yields."""
    height_px: int
    width_px: int
    start_offset_s: float = 0.0
    own_clock: bool = False
    """Whether it has no instant in common with the scene's others, as where an action is done once for each camera."""
    first_frame: int = 0
    """Frame 0 of the recording is this frame of the file, which may hold several recordings."""
    first_s: float = 0.0
    """When the file shows frame 0, from the start of its clock: above 0 where the sound starts earlier."""
    constant_rate: bool = True
    index: str = ""
    """The file of its frame index, relative to the catalog's folder; none where it is empty."""

    @property
    def has_pixels(self) -> bool:
        """Whether it has pictures to decode, rather than features."""
        return self.kind != "features"

    @property
    def start_s(self) -> float:
        """The instant of the first frame, on the scene's clock."""
        return self.start_offset_s + self.first_s

    @property
    def end_s(self) -> float:
        """The instant of the last frame, on the scene's clock."""
        return self.start_s + (self.num_frames - 1) / self.fps

    def __post_init__(self) -> None:
        for part in ("dataset", "scene", "view"):
            if "/" in getattr(self, part):
                raise UserError(
                    f"{self.path}: {part} is {getattr(self, part)!r}; it is a part of the recording's id "
                    "dataset/scene/view and must hold no '/': write '-' or '_' in its place"
                )

    @property
    def id(self) -> str:
        """Unique within a catalog, whatever splits its protocols make: dataset/scene/view."""
        return f"{self.dataset}/{self.scene}/{self.view}"

    @property
    def take(self) -> tuple[str, bool, str]:
        """What recordings that are drawn together have in common: dataset, whether they have pictures, and scene."""
        return self.dataset, self.has_pixels, self.scene

    @property
    def file_stem(self) -> str:
        """The id as a file's name; a catalog refuses two recordings with equal ones."""
        return self.id.replace("/", "__")


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of one recording that carries a label, e.g. name="action", label="break egg"."""

    recording: str
    start_s: float
    end_s: float
    name: str
    label: str


@dataclass(frozen=True)
class Quarantined:
    """A file that was set aside because it cannot be read, or has another number of frames than labels."""

    path: str
    """Relative to the catalog's root."""
    reason: str
