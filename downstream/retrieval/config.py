"""Options of retrieval between cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crossview.downstream.task import ClipOptions, Mode, Reads


@dataclass(frozen=True, kw_only=True)
class Options(ClipOptions):
    """Retrieval of the clip that shows the same instant from another camera."""

    reads: ClassVar[Reads] = "clips"
    fitted: ClassVar[bool] = False

    def metrics(self) -> dict[str, Mode]:
        """Recalls, of cameras that were trained on and of those that were not."""
        names = ("R@1", "R@5", "R@10", "R@1/within_scene")
        return {f"retrieval/{name}/{cameras}": "max" for name in names for cameras in ("seen", "held_out")}
