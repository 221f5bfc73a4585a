"""Options of AE2's four tasks on frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crossview.downstream.task import Mode, Reads, TaskOptions
from crossview.errors import UserError

DIRECTIONS = ("regular", "ego2exo", "exo2ego")


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """AE2's four tasks: phase classification, frame retrieval, phase progression and Kendall's tau."""

    reads: ClassVar[Reads] = "frames"
    fitted: ClassVar[bool] = True
    default: ClassVar[bool] = True
    k: int = 10
    """Neighbours in frame retrieval."""
    few_shot: bool = False
    """Also classify phases from few labelled videos."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(
                f"k is {self.k}; frame retrieval needs at least 1 neighbour (the benchmark uses 5, 10 and 15)"
            )

    def metrics(self) -> dict[str, Mode]:
        """Eight scores."""
        cross = [f"{score}/{name}" for score in ("phase_f1", f"map@{self.k}") for name in DIRECTIONS]
        return dict.fromkeys((*cross, "progression_r2", "kendall_tau"), "max")
