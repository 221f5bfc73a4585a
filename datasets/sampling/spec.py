"""What a method asks of the data plane, declared before any model or file exists."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.video.framing import Framing, Region
from crossview.errors import UserError

Pairing = Literal["single", "synchronized", "paired", "unpaired", "group"]


@dataclass(frozen=True, kw_only=True)
class View:
    """One clip cut from one camera."""

    perspective: Literal["ego", "exo", "any"]
    frames: int
    """Frames in the clip (T)."""
    fps: float | None = None
    """Sampling rate in Hz; None takes `frames` from the whole recording as `spread` says."""
    spread: Literal["random", "even"] = "even"
    """Over a whole recording: T sorted frames at random without replacement, or T at even distances."""
    size_px: int = 224
    """Frames become squares of this side, as `geometry` says."""
    geometry: Geometry = field(default_factory=Geometry)
    test_px: int | None = None
    """Side of the squares in embedding and evaluation; None is size_px."""
    count: int = 1
    """Cameras of this perspective in a group; a scene with fewer has the rest masked."""

    def __post_init__(self) -> None:
        for name in ("frames", "size_px", "count"):
            if getattr(self, name) < 1:
                raise UserError(f"view: {name} is {getattr(self, name)}; it must be at least 1")
        if self.fps is not None and self.fps <= 0:
            raise UserError(f"view: fps is {self.fps}; it must be above 0, or None for the whole recording")
        if self.size_px % 2:
            raise UserError(f"view: size_px is {self.size_px}; it must be even (4:2:0 chroma)")
        if self.test_px is not None and (self.test_px < 1 or self.test_px % 2):
            raise UserError(f"view: test_px is {self.test_px}; it must be even and at least 2, or None for size_px")
        self.geometry.check(self.size_px)
        self.geometry.central().check(self.test_px or self.size_px)

    def evaluated(self) -> View:
        """As embedded and evaluated: the centre, at the size of that."""
        return replace(self, size_px=self.test_px or self.size_px, test_px=None, geometry=self.geometry.central())

    def framing(self, region: Region | None, height: int, width: int) -> Framing:
        """What becomes of a region of a displayed picture of height x width."""
        return self.geometry.framing(region, height, width, self.size_px)

    def centred(self, height: int, width: int) -> Framing:
        """What becomes of a displayed picture of height x width in embedding and evaluation."""
        return self.framing(self.geometry.centre(height, width, self.size_px), height, width)

    def band(self, height: int, width: int) -> Framing:
        """The same with all of the longer side, to cut several squares from."""
        return self.geometry.central().band(height, width, self.size_px)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The batch that a method wants.

    Pairings: `single` (one view), `synchronized` (same instant, different camera), `paired` (same content, time mapped
    proportionally), `unpaired` (same action, drawn independently, never the same file), `group` (every camera of an
    instant, `View.count` slots per perspective).
    """

    views: dict[str, View]
    pairing: Pairing
    unit: str = "recording"
    """What a row is drawn for: a whole recording, or each segment of this name, e.g. "action"."""
    windows: int = 1
    """Clips of one recording (or scene) in one row of the plan."""
    draws: int | None = None
    """With `single`: rows that are drawn of a unit, shown in turn from epoch to epoch; None draws anew in every one."""
    window_scale: tuple[float, float] = (1.0, 1.0)
    """A window is scaled by one factor drawn from this range, shared by all its views."""
    window_scale_spread: Literal["uniform", "log"] = "uniform"
    """How the factor is drawn; log gives halving and doubling the same chance."""
    window_length: Literal["resampled", "true"] = "resampled"
    """resampled scales the distance between T frames; true scales their number and keeps the distance: clips then have
    `max_frames` frames, of which the batch's NAME/length count and the rest repeat the last."""
    window_stride: int | None = None
    """The windows of one row start at different points of a grid of so many frames, shifted by one jitter; None draws
    each start by itself."""
    labels: dict[str, int] = field(default_factory=dict)
    """Labels that travel with each clip: kind to number of classes. Kinds are names of the catalog's segments,
    "action", and "perspective" (exo 0, ego 1)."""
    label_options: dict[str, str] = field(default_factory=dict)
    """Which option of the command line sets the number of classes of a kind; errors name it."""
    scores: dict[str, int] = field(default_factory=dict)
    """Teachers' logits that travel with each clip: task of the teacher store to their number."""
    boxes: int = 0
    """Detections per frame that travel with each clip, the most certain first."""

    def __post_init__(self) -> None:
        if not self.views:
            raise UserError("sampling: no view; name at least one")
        if self.pairing == "single" and len(self.views) != 1:
            raise UserError(f"sampling: pairing 'single' takes one view, not {sorted(self.views)}")
        if self.pairing in ("synchronized", "paired", "unpaired") and len(self.views) != 2:
            raise UserError(f"sampling: pairing {self.pairing!r} takes two views, not {sorted(self.views)}")
        if self.pairing != "group" and any(view.count != 1 for view in self.views.values()):
            raise UserError(f"sampling: View.count is for pairing 'group', not {self.pairing!r}")
        if self.pairing in ("synchronized", "group") and any(
            view.fps is None and view.spread == "random" for view in self.views.values()
        ):
            raise UserError(
                f"sampling: pairing {self.pairing!r} needs common instants; give the views an fps or spread='even'"
            )
        if (
            self.pairing in ("synchronized", "group")
            and len({(view.frames, view.fps) for view in self.views.values()}) > 1
        ):
            raise UserError(
                f"sampling: pairing {self.pairing!r} needs common instants; give all views the same frames and fps"
            )
        if self.pairing == "group" and len({(view.size_px, view.test_px) for view in self.views.values()}) > 1:
            raise UserError(
                "sampling: pairing 'group' stacks its views in one tensor; give them all the same size_px and test_px"
            )
        via = {name: view.geometry.via_px for name, view in self.views.items()}
        if len({px is None for px in via.values()}) > 1:
            raise UserError(f"sampling: via_px of the views' geometries is {via}; set it for all views or for none")
        if len({view.geometry.via_px is None for view in self.views.values()}) > 1:
            raise UserError("sampling: clips travel in RGB with geometry.via_px; give it to all views or to none")
        if self.windows > 1 and any(view.fps is None and view.spread == "even" for view in self.views.values()):
            raise UserError(
                f"sampling: windows is {self.windows} with spread='even' over the whole recording, which makes them "
                "all equal; give the views an fps, or spread='random'"
            )
        low, high = self.window_scale
        if not 0 < low <= high:
            raise UserError(f"sampling: window_scale is {self.window_scale}; it must satisfy 0 < low <= high")
        if self.windows < 1:
            raise UserError(f"sampling: windows is {self.windows}; it must be at least 1")
        if self.draws is not None and (self.draws < 1 or self.pairing != "single"):
            raise UserError(
                f"sampling: draws is {self.draws} with pairing {self.pairing!r}; it must be at least 1, with pairing "
                "'single', or None to draw anew in every epoch"
            )
        if (self.window_length == "true" or self.window_stride is not None) and any(
            view.fps is None for view in self.views.values()
        ):
            raise UserError("sampling: window_length 'true' and window_stride need windows: give the views an fps")
        if self.window_stride is not None and (self.window_stride < 1 or self.pairing == "unpaired"):
            raise UserError(
                f"sampling: window_stride is {self.window_stride} with pairing {self.pairing!r}; it must be at least "
                "1, and windows of unpaired videos have no common grid"
            )
        if self.boxes < 0 or any(count < 1 for count in (*self.labels.values(), *self.scores.values())):
            raise UserError(
                f"sampling: labels {self.labels}, scores {self.scores} and boxes {self.boxes} must be counts above 0"
            )
        if self.pairing == "group" and (self.labels or self.scores or self.boxes):
            raise UserError("sampling: labels, scores and boxes travel with single views, not with pairing 'group'")

    @property
    def rows_per_unit(self) -> int | None:
        """Different rows of a unit in any number of epochs; None where there is no end of them."""
        if self.pairing != "single":
            return None
        (view,) = self.views.values()
        alike = view.fps is None and view.spread == "even" and not view.geometry.drawn
        return 1 if alike else self.draws

    def max_frames(self, view: View) -> int:
        """Frames that a clip of the view has in the batch (T)."""
        return math.ceil(view.frames * self.window_scale[1]) if self.window_length == "true" else view.frames

    def view_for(self, perspective: str) -> View:
        """How one clip of this perspective is evaluated: as its first view of it, else an "any" view, else its first.

        Raises ValueError if views that are alike in that have different sizes or geometries.
        """
        views = [view.evaluated() for view in self.views.values()]
        fitting = (
            [view for view in views if view.perspective == perspective]
            or [view for view in views if view.perspective == "any"]
            or views
        )
        sizes = {view.size_px for view in fitting}
        if len(sizes) > 1:
            raise UserError(
                f"sampling: the method's {fitting[0].perspective} views have sizes {sorted(sizes)}; {perspective} "
                "recordings are embedded at one size: give these views one size_px"
            )
        if len({view.geometry for view in fitting}) > 1:
            raise UserError(
                f"sampling: the method's {fitting[0].perspective} views have different geometries in evaluation; "
                f"{perspective} recordings are embedded with one: give these views one geometry"
            )
        return fitting[0]

    def evaluated(self) -> Sampling:
        """The same samples with their centre, as evaluated."""
        return replace(self, views={name: view.evaluated() for name, view in self.views.items()})
