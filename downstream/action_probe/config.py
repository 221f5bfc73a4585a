"""Options of action probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crossview.downstream.task import ClipOptions, Mode, Reads


@dataclass(frozen=True, kw_only=True)
class Options(ClipOptions):
    """Linear and nearest-neighbour probes of the action that a clip shows."""

    reads: ClassVar[Reads] = "clips"
    fitted: ClassVar[bool] = True

    def metrics(self) -> dict[str, Mode]:
        """Balanced accuracies, of cameras that were trained on and of those that were not; agreement of cameras."""
        parts = [(probe, part) for probe in ("linear", "knn") for part in ("seen", "held_out", "consistency")]
        return {f"action_probe/{probe}/{part}": "max" for probe, part in parts}
