"""Options of a method's own measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crossview.downstream.task import Mode, Reads, SampleOptions


@dataclass(frozen=True, kw_only=True)
class Options(SampleOptions):
    """What the method's loss claims, measured by the method itself on held-out samples."""

    reads: ClassVar[Reads] = "samples"
    fitted: ClassVar[bool] = False

    def metrics(self) -> dict[str, Mode]:
        """None by name: each method has its own."""
        return {}
