"""What the options of a downstream trainer provide. No torch: `--help` stays fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from crossview.datasets.sampling.sequences import Past, Sequences
from crossview.datasets.sampling.spec import Sampling


@dataclass(frozen=True, kw_only=True)
class Control:
    """How a further run differs from the trained one, to which its score is compared."""

    config: TrainerConfig
    """The trainer's."""
    weights: Literal["trained", "random", "input"] | None
    """Of the encoder; None leaves it out."""


class TrainerConfig(Protocol):
    """A frozen dataclass named `Config` in `downstream/<name>/config.py`."""

    light: ClassVar[bool]
    """Whether it is trained in the command's own process unless several workers are asked for."""

    def sampling(self, *, encoded: bool) -> Sequences | Past | Sampling:
        """What it is trained on, `encoded` where a trained method embeds its frames."""

    def controls(self, weights: str | None) -> Mapping[str, Control]:
        """Runs by name that show what a result is worth, for an encoder with these `weights`, or none."""
