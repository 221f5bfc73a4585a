"""What a catalog lists: recordings, spans of them that carry a label, and files that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossview.errors import UserError

Perspective = Literal["ego", "exo"]
Kind = Literal["video", "features"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One camera's file of one scene.

    Recordings of one `scene` with equal `kind` share a clock once `start_offset_s` is added: the instant of frame k is
    ``start_offset_s + k / fps``. Raises ValueError if a part of its id holds a "/".
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
    num_frames: int
    """Frames that a sequential decode of the file yields."""
    height_px: int
    width_px: int
    start_offset_s: float = 0.0

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
    def file_stem(self) -> str:
        """The id as a file's name; a catalog refuses two recordings with equal ones."""
        return self.id.replace("/", "__")


@dataclass(frozen=True)
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
