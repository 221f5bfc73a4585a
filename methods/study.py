"""A claim of a method and what it takes to check it; `studies()` in `methods/<name>/studies.py` maps a name to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossview.datasets.synthetic.config import WorldConfig
from crossview.methods.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class BaseTraining:
    """How the frozen base of a study is trained beforehand: to name what covers each patch, phases left out."""

    world: WorldConfig
    """Its seed must differ from the study's: other people, objects, rooms and cameras."""
    every: int
    """One frame in so many of each take is used."""
    steps: int


@dataclass(frozen=True, kw_only=True)
class Study:
    """Recipes trained on one action of the synthetic world, scored beside their controls."""

    world: WorldConfig
    layout: Literal["ae2", "synchronized"] = "ae2"
    """ae2 exports unpaired videos in AE2's layout; synchronized writes every camera of each take."""
    base: BaseTraining | None = None
    """None leaves the base of the recipes as they say."""
    arms: dict[str, Recipe]
    """The first is the method; the others are what it is made of and has to beat."""
    seeds: int
    claims: tuple[str, ...]
    """Metrics on which the first arm must beat every control and every other arm by more than the spread over seeds."""
    split: str = "test"
    """Scored once, at the end; recipes are chosen on val."""
    cached: bool = True
    """Train the runs side by side on frozen features that are computed once; False streams the video files, run by run,
    through Ray Data and Ray Train, and draws each run's page."""

    def __post_init__(self) -> None:
        if len(self.world.actions) != 1:
            raise ValueError(f"study: world.actions is {self.world.actions}; a study takes one action")
        if self.base is not None and self.base.world.seed == self.world.seed:
            raise ValueError(f"study: the base's world has the study's seed {self.world.seed}; give it another")
        bases = {getattr(recipe.method, "base", None) for recipe in self.arms.values()}
        if self.base is not None and (len(bases) != 1 or None in bases):
            raise ValueError("study: it trains a base, so every arm's method must have the same option `base`")
        if self.seeds < 1 or not self.arms:
            raise ValueError(f"study: {self.seeds} seeds of {len(self.arms)} arms; there must be at least one of each")
