"""Options of action anticipation: how much of the past is observed, and the size of TempAgg. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from crossview.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is observed before an action begins; the defaults are Assembly101's.

    Every length is a whole number of frames at `fps`, the rate at which the model sees a recording of any rate.
    """

    fps: int = 30
    alpha_frames: int = 30
    """From the last observed frame to the first frame of the action."""
    spanning_frames: int = 180
    """The spanning past: from its first frame to the last observed one."""
    spanning_snippets: tuple[int, ...] = (5, 3, 2)
    """Equal parts that the spanning past is divided into, for each scale."""
    recent_frames: tuple[int, ...] = (48, 36, 24, 12)
    """The recent windows, which end at the last observed frame: one aggregate block (TAB) each."""
    recent_snippets: int = 2
    """Equal parts of each recent window."""
    min_past_frames: int = 60
    """The least that lies before the last observed frame; segments that begin earlier are dropped."""

    def __post_init__(self) -> None:
        for name in ("fps", "alpha_frames", "spanning_frames", "recent_snippets"):
            _at_least(1, name, getattr(self, name))
        _at_least(0, "min_past_frames", self.min_past_frames)
        for name in ("spanning_snippets", "recent_frames"):
            if not getattr(self, name):
                raise UserError(f"{name} is empty; name at least one, such as {name} 2")
        for count in self.spanning_snippets:
            _at_least(1, "spanning_snippets", count)
            if count > self.spanning_frames:
                raise UserError(
                    f"spanning_snippets has {count}, but the spanning past is {self.spanning_frames} frames; a snippet "
                    "is at least 1 frame long: ask for fewer or raise spanning_frames"
                )
        for length in self.recent_frames:
            if length < self.recent_snippets:
                raise UserError(
                    f"recent_frames has {length}, but a window has {self.recent_snippets} snippets of at least 1 "
                    "frame: lengthen it or lower recent_snippets"
                )

    @property
    def frames(self) -> int:
        """Distinct frames that are observed (T), the last one included."""
        return 1 + max(self.spanning_frames, *self.recent_frames)


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
        _at_least(1, "latent", self.latent)
        _at_least(1, "width", self.width)
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout:g}; it must be at least 0 and below 1")


def _at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise UserError(f"{name} has {value}; it must be at least {least}")
