"""A claim of a method and what it takes to check it; `studies()` in `methods/<name>/studies.py` maps a name to one."""

from __future__ import annotations

from dataclasses import dataclass

from crossview.datasets.synthetic.config import WorldConfig
from crossview.methods.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Study:
    """Recipes trained on one action of the synthetic world, scored beside their controls."""

    world: WorldConfig
    """Its one action is exported in AE2's layout."""
    arms: dict[str, Recipe]
    """The first is the method; the others are what it is made of and has to beat."""
    seeds: int
    claims: tuple[str, ...]
    """Metrics on which the first arm must beat every control and every other arm by more than the spread over seeds."""
    split: str = "test"
    """Scored once, at the end; recipes are chosen on val."""
    cached: bool = True
    """Train on frozen features that are computed once; False streams the video files through Ray Train."""

    def __post_init__(self) -> None:
        if len(self.world.actions) != 1:
            raise ValueError(f"study: world.actions is {self.world.actions}; a study takes one action")
        if self.seeds < 1 or not self.arms:
            raise ValueError(f"study: {self.seeds} seeds of {len(self.arms)} arms; there must be at least one of each")
