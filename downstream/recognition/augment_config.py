"""Options of augmenting training clips. Imports no torch, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass

from crossview.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training clips undergo after they are cropped; the defaults are VideoMAE's for Kinetics."""

    flip: float = 0.5
    """Probability of mirroring a clip; 0 where left and right matter, as on Something-Something."""
    operations: int = 4
    """Operations that RandAugment draws for a clip, each applied with probability 0.5; 0 turns it off."""
    magnitude: float = 7.0
    """Mean strength of RandAugment's operations, of 10."""
    magnitude_std: float = 0.5
    """Standard deviation of that strength."""
    erase: float = 0.25
    """Probability of replacing a rectangle of a clip by noise."""
    mixup: float | None = 0.8
    """Both parameters of the Beta distribution that the share of a clip is drawn from; None turns mixup off."""
    cutmix: float | None = 1.0
    """The same for the share of its area that a clip keeps; None turns cutmix off."""
    switch: float = 0.5
    """Probability of cutmix rather than mixup, where both are on."""
    copies: int = 2
    """Times that a decoded clip is augmented; the batch grows by this factor."""

    def __post_init__(self) -> None:
        for name in ("flip", "erase", "switch"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augmentation.{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if self.operations < 0 or self.copies < 1:
            raise UserError(
                f"augmentation.operations is {self.operations} and copies {self.copies}; operations must be at least 0 "
                "and copies at least 1"
            )
        if not 0 <= self.magnitude <= 10 or self.magnitude_std < 0:
            raise UserError(
                f"augmentation.magnitude is {self.magnitude} and magnitude_std {self.magnitude_std}; the magnitude "
                "must lie in [0, 10] and its deviation be at least 0"
            )
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"augmentation.{name} is {value}; it must be above 0, or None to turn it off")

    @property
    def mixes(self) -> bool:
        """Whether clips of a batch are mixed with each other."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def changes(self) -> bool:
        """Whether a clip may come out as another one, or as several."""
        return self.mixes or bool(self.flip or self.operations or self.erase) or self.copies > 1


NO_AUGMENTATION = Augmentation(flip=0.0, operations=0, erase=0.0, mixup=None, cutmix=None, copies=1)
