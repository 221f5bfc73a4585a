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

_PARTS, _VIEWS = ("regular", "ego2exo", "exo2ego"), ("seen", "held_out")
METRICS: dict[Task, tuple[str, ...]] = {
    "phases": (
        *(f"{score}/{part}" for score in ("phase_f1", "map@10") for part in _PARTS),
        "progression_r2",
        "kendall_tau",
    ),
    "retrieval": tuple(f"retrieval/{name}/{v}" for name in ("R@1", "R@5", "R@10", "R@1/within_scene") for v in _VIEWS),
    "actions": tuple(f"actions/{probe}/{v}" for probe in ("linear", "knn") for v in _VIEWS),
    "fine_tuning": ("fine_tuning/accuracy/ego",),
}
"""What each task reports of the trained row (10 neighbours); "measures" reports what the method names."""


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
    baselines: bool
    """Whether the method's baselines and the random init are scored too."""
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
