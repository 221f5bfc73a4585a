"""Claims of methods and what is needed to check them.

`studies()` in `methods/<name>/studies.py` maps a name to one of that method; `downstream/bench.py` has one of
all methods.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from crossview.datasets.synthetic.config import WorldConfig
from crossview.errors import UserError
from crossview.methods.recipe import Recipe

CLIPS = WorldConfig(
    cut="cycle",
    train_takes=32,
    val_takes=8,
    test_takes=16,
    train_subjects=32,
    val_subjects=8,
    test_subjects=16,
    size_px=96,
    held_out_cameras=False,
    workers=2,
)
"""The world of the studies that score clips: four actions, a worn camera and four fixed ones, whose poses are alike in
all splits: a held-out camera is one that a study leaves out of training."""


@dataclass(frozen=True, kw_only=True)
class BaseTraining:
    """How the frozen base of a study is trained beforehand: to name what covers each patch, phases left out."""

    world: WorldConfig
    """Its seed must differ from the study's: other people, objects, rooms and cameras."""
    every: int
    """One frame in so many of each take is used."""
    steps: int
    shipped: str | None = None
    """File in `methods/` with the weights that come of it; None trains them in the study's folder."""


@dataclass(frozen=True, kw_only=True)
class TeacherTraining:
    """What serves as teachers: the world's truth for detections and scores "object", a classifier for scores "ego"."""

    world: WorldConfig
    """Where the ego-vs-exo classifier is trained; its seed must differ from the study's."""
    recipe: Recipe
    """That classifier, an ordinary run of the study's method on the label kind "perspective"."""
    clips: int
    """Evenly spaced clips of each recording that its logits are averaged over."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a study is to show in one metric; higher is better in all of them. `downstream/paired.py` decides it."""

    metric: str
    variant: str | None = None
    """The variant that it is about; None is the first."""
    over: tuple[str, ...] | None = None
    """Rows that it must beat, each of them; None takes all others that have the metric."""
    at_least: float | None = None
    """What its score must exceed; then no row is compared unless `over` names some."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Recipes trained on the synthetic world, scored beside their baselines."""

    world: WorldConfig
    layout: Literal["ae2", "synchronized"] = "ae2"
    """ae2 exports unpaired videos of one action in AE2's layout; synchronized writes every camera of each take."""
    train_views: tuple[str, ...] | None = None
    """Training cameras; the others are held out. None uses all."""
    train_actions: tuple[str, ...] | None = None
    """Training actions; the tasks see the others too. None uses all."""
    base: BaseTraining | None = None
    """How to train the frozen base; None uses the base that the recipes name."""
    teachers: TeacherTraining | None = None
    """None writes no teacher store beside the catalog."""
    variants: dict[str, Recipe]
    """The first is the method; the others are its ablations and baselines, or other methods."""
    controlled: tuple[str, ...] = ()
    """Variants that are scored beside baselines of their own; () is the first alone."""
    trainers: dict[str, Recipe] = field(default_factory=dict)
    """Downstream trainers by name, trained on frozen embeddings of every frame: of each variant that starts no other,
    and of the baselines of those that are controlled. The width and the number of classes are set by what they read."""
    starts: dict[str, str] = field(default_factory=dict)
    """Variant to the variant whose weights, of the same seed, it starts from."""
    seeds: int = 5
    """Runs of each variant; claims are decided by differences paired by seed, of which fewer show little."""
    tasks: tuple[str, ...] = ("phases",)
    """What every run is scored by, as in `crossview evaluate --tasks`."""
    claims: tuple[Claim, ...]
    split: str = "test"
    """Scored once, at the end; recipes are chosen on val."""
    cache: Literal["features", "frames"] = "features"
    """features trains the runs side by side on frozen features that are computed once, frames on decoded frames."""

    def __post_init__(self) -> None:
        if self.layout == "ae2" and len(self.world.actions) != 1:
            raise UserError(f"study: world.actions is {self.world.actions}; layout 'ae2' takes one action")
        if self.base is not None and self.base.world.seed == self.world.seed:
            raise UserError(f"study: the base's world has the study's seed {self.world.seed}; give it another")
        if self.teachers is not None and (self.teachers.world.seed == self.world.seed or self.layout == "ae2"):
            raise UserError(
                f"study: teachers with world seed {self.teachers.world.seed} (the study's is {self.world.seed}) and "
                f"layout {self.layout!r}; they take another seed and layout 'synchronized'"
            )
        bases = {getattr(recipe.method, "base", None) for recipe in self.variants.values()} - {None}
        if self.base is not None and len(bases) != 1:
            raise UserError("study: it trains a base, so all of its methods that have an option `base` must share it")
        if self.seeds < 1 or not self.variants:
            raise UserError(f"study: {self.seeds} seeds of {len(self.variants)} variants; it takes one or more of each")
        order = list(self.variants)
        for variant, start in self.starts.items():
            if variant not in order or start not in order or start in self.starts:
                raise UserError(
                    f"study: {variant!r} starts from {start!r}; both must be variants ({', '.join(order)}), and "
                    "the second one must start from nothing"
                )
        for what, named in (
            ("a claim is", {claim.variant for claim in self.claims}),
            ("controlled is", self.controlled),
        ):
            if unknown := set(named) - {None, *order}:
                raise UserError(f"study: {what} about {unknown}; the variants are {', '.join(order)}")
