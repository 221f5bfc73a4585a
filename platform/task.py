"""What an evaluation asks of a downstream task, and what a task answers. No torch: the command line reads the names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

    from crossview.datasets.catalog import Catalog
    from crossview.platform.config import Experiment

Task = Literal["phases", "retrieval", "actions", "fine_tuning", "measures"]
Scores = dict[str, dict[str, float]]
"""By row and metric; a row need not have every metric."""
FITTED: tuple[Task, ...] = ("phases", "actions", "fine_tuning")
"""Tasks that fit something on the fit split."""


@dataclass(frozen=True)
class Question:
    """A run, the splits that it is scored on, and where that is computed."""

    run: Path
    name: str
    """Of the method."""
    experiment: Experiment[Any]
    catalog: Catalog
    """All splits."""
    split: str
    fit_split: str
    few_shot: bool
    k: int
    clips_per_scene: int
    controls: bool
    """Whether the method's controls and the random init are scored too."""
    in_process: bool
    actors: int
    device: str

    def seen_views(self) -> set[str]:
        """Names of the cameras that the run trained on."""
        data = self.experiment.data
        return set(data.views or (r.view for r in self.catalog.select(data.split).recordings))


@dataclass(frozen=True)
class Answer:
    """Scores, and all that a reader needs beside them."""

    rows: Scores
    notes: list[str]
    tables: dict[str, pa.Table] = field(default_factory=dict)
    """Further tables by what is appended to the split's name."""
    text: str = ""
    """Markdown that follows the table of scores."""
