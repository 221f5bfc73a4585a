"""Options of action anticipation with TempAgg, and its recipes. No torch: `--help` stays fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from crossview.datasets.sampling.sequences import Past
from crossview.downstream.task import Mode, PredictionOptions
from crossview.downstream.trainer_config import Control
from crossview.errors import UserError
from crossview.methods.recipe import Optim, Recipe

KINDS = ("verb", "noun", "action")
PROTOCOLS = ("overall", "fused")
VIEWS = ("ego", "exo", "all")


@dataclass(frozen=True, kw_only=True)
class Options(PredictionOptions):
    """Class-mean top-5 recall, of each camera's view of a segment by itself (overall) and of all at once (fused)."""

    tail_verbs: tuple[str, ...] = ()
    """Classes, by name, that are also scored by themselves, as /tail."""
    tail_nouns: tuple[str, ...] = ()
    tail_actions: tuple[str, ...] = ()
    unseen: Literal["subject", "action"] | None = None
    """Also score, as /unseen, the recordings whose subject is not in the split that is fitted on (EPIC-KITCHENS), or
    whose own action is not, such as Assembly101's toy."""

    @property
    def tails(self) -> dict[str, tuple[str, ...]]:
        """By kind, where there is one."""
        named = zip(KINDS, (self.tail_verbs, self.tail_nouns, self.tail_actions), strict=True)
        return {kind: names for kind, names in named if names}

    def metrics(self) -> dict[str, Mode]:
        """By protocol, kind of class and perspective of the cameras; agreement of cameras by kind."""
        names = []
        for protocol in PROTOCOLS:
            for kind in KINDS:
                parts = ["", *(["/tail"] if kind in self.tails else []), *(["/unseen"] if self.unseen else [])]
                names += [f"anticipation/{protocol}/{kind}/{views}{part}" for part in parts for views in VIEWS]
        names += [f"anticipation/consistency/{kind}" for kind in KINDS]
        return dict.fromkeys(names, "max")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What is seen before an action begins, and how it is divided; the defaults are Assembly101's.

    Every length becomes a whole number of frames at `fps`.
    """

    fps: int = 30
    """Rate at which recordings of any rate are seen."""
    horizon_s: float = 1.0
    """From the last observed frame to the action's first."""
    least_s: float = 2.0
    """Actions with less than this before the last observed frame are left out."""
    spanning_s: float = 6.0
    """The spanning past: from its first frame to the last observed one."""
    spanning_snippets: tuple[int, ...] = (5, 3, 2)
    """Equal parts that the spanning past is divided into, for each scale."""
    recent_s: tuple[float, ...] = (1.6, 1.2, 0.8, 0.4)
    """The recent windows, which end at the last observed frame: one aggregate block (TAB) each."""
    recent_snippets: int = 2
    """Equal parts of each recent window."""

    def __post_init__(self) -> None:
        if self.fps < 1:
            raise UserError(f"observed.fps is {self.fps}; it must be at least 1")
        for name in ("spanning_snippets", "recent_s"):
            if not getattr(self, name):
                raise UserError(f"observed.{name} is empty; name at least one, such as observed.{name} 2")
        spans = [("spanning", self.spanning_s, count) for count in self.spanning_snippets]
        spans += [("recent", length_s, self.recent_snippets) for length_s in self.recent_s]
        for name, length_s, count in spans:
            if not 1 <= count <= self.frames(length_s):
                raise UserError(
                    f"observed.{name}_snippets has {count}, and observed.{name}_s {length_s:g}, which is "
                    f"{self.frames(length_s)} frames at {self.fps} per second; a past has at least 1 snippet, and a "
                    "snippet at least 1 frame"
                )

    def frames(self, length_s: float) -> int:
        """The whole number of frames nearest to a length."""
        return round(length_s * self.fps)

    @property
    def past_s(self) -> float:
        """From the first observed frame to the last."""
        return max(self.spanning_s, *self.recent_s)

    @property
    def steps(self) -> int:
        """Observed frames (T), the last one included."""
        return 1 + self.frames(self.past_s)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Size of TempAgg; the defaults are those of Assembly101's training command."""

    latent: int = 512
    """Channels that snippets are mixed into where two sets attend to each other."""
    width: int = 512
    """Width of what a coupling block puts out."""
    dropout: float = 0.3
    past_attention: bool = True
    """Let the snippets of the spanning past attend to each other first."""

    def __post_init__(self) -> None:
        for name in ("latent", "width"):
            if getattr(self, name) < 1:
                raise UserError(f"network.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"network.dropout is {self.dropout:g}; it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the model. The numbers of classes are those of Assembly101's anticipation lists."""

    light: ClassVar[bool] = True
    unit: str = "action"
    """Kind of the segments that are anticipated."""
    verbs: int | None = 17
    """Classes of kind "verb"; None does not anticipate them."""
    nouns: int | None = 90
    actions: int | None = 1064
    feature_width: int = 2048
    """Without an encoder: values per frame."""
    observed: Observed = field(default_factory=Observed)
    network: Network = field(default_factory=Network)
    window: int = 20
    """With an encoder: consecutive frames that it makes one vector of, which stands for each of them."""
    encoder_lr: float | None = None
    """Rate of the encoder as a share of the model's; None keeps it frozen."""

    def __post_init__(self) -> None:
        for name in ("verbs", "nouns", "actions", "feature_width", "window"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.classes:
            raise UserError("verbs, nouns and actions are all None; give the number of classes of at least one kind")
        if self.encoder_lr is not None and self.encoder_lr <= 0:
            raise UserError(f"encoder_lr is {self.encoder_lr}; it must be above 0, or None to freeze the encoder")
        self.sampling()  # raises UserError for an impossible past

    @property
    def classes(self) -> dict[str, int]:
        """Number of classes by kind."""
        counts = zip(KINDS, (self.verbs, self.nouns, self.actions), strict=True)
        return {kind: count for kind, count in counts if count is not None}

    def sampling(self, *, encoded: bool = False) -> Past:
        """What is observed before each segment, with an encoder too."""
        del encoded
        return Past(
            labels=self.classes,
            label_options={kind: f"method.{kind}s" for kind in self.classes},
            unit=self.unit,
            past_s=self.observed.past_s,
            horizon_s=self.observed.horizon_s,
            least_s=self.observed.least_s,
            fps=self.observed.fps,
        )

    def controls(self, weights: str | None) -> Mapping[str, Control]:
        """For a trained encoder, the same network before its training, and the features without any."""
        if weights is None:
            return {}
        alone = Control(config=replace(self, encoder_lr=None), weights=None)
        return {"input features": alone, "random init": Control(config=self, weights="random")}


def presets() -> dict[str, Callable[[], Recipe]]:
    """Assembly101's training command, with and without its past attention, and a small network for a laptop."""
    return {
        "tempagg": lambda: Recipe(method=Config(), optim=_paper()),
        "tempagg_no_past_attention": lambda: Recipe(
            method=Config(network=Network(past_attention=False)), optim=_paper()
        ),
        "debug": lambda: Recipe(
            method=Config(network=Network(latent=16, width=32)),
            optim=Optim(optimizer="adam", lr=1e-3, weight_decay=0.0, schedule="constant", batch=8, steps=100),
        ),
    }


def _paper() -> Optim:
    """15 epochs, the last 6 at a tenth of the rate."""
    return Optim(
        optimizer="adam", lr=1e-4, weight_decay=0.0, schedule="steps", milestones=(9 / 15,), batch=32, epochs=15
    )
