"""Options of fine-tuning on a few labelled clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crossview.downstream.task import ClipOptions, Mode, Reads
from crossview.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options(ClipOptions):
    """Fine-tuning on a few labelled ego clips."""

    reads: ClassVar[Reads] = "encoder"
    fitted: ClassVar[bool] = True
    per_action: int = 5
    """Clips to tune on, of each action."""
    draws: int = 3
    """Times that they are drawn; the score is the mean."""
    max_scored: int = 400
    """Clips of the evaluated split that are scored, evenly from all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("per_action", "draws", "max_scored"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def metrics(self) -> dict[str, Mode]:
        """One accuracy."""
        return {"few_clips/accuracy/ego": "max"}
