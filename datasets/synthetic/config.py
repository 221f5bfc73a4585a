"""What the synthetic world is asked for: one dataclass, read by `write` and by `export_ae2`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossview.errors import UserError

SPLITS = ("train", "val", "test")
EGO_VIEWS = ("head", "chest", "temple_left", "temple_right")
MAX_EXO = 8
PHASES: dict[str, tuple[str, ...]] = {
    "crack_egg": ("fetch_egg", "tap_on_rim", "open_shell", "discard_shell"),
    "pour_milk": ("fetch_pitcher", "pour", "return_pitcher", "serve_cup"),
    "stir_and_serve": ("fetch_spoon", "stir", "serve", "return_spoon"),
    "strike_peg": ("fetch_hammer", "tap", "strike", "return_hammer"),
}
"""Action class to its phases, in order; the label of a frame is the index into this tuple."""

Cut = Literal["window", "cycle", "whole"]


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Size, seed and make-up of a synthetic data set; equal configs give equal pixels and truth on one machine."""

    seed: int = 0
    actions: tuple[str, ...] = tuple(PHASES)
    train_takes: int = 16
    """Takes per action in the train split; in an AE2 export, ego videos per action, and as many exo videos."""
    val_takes: int = 4
    test_takes: int = 6
    train_subjects: int = 12
    val_subjects: int = 4
    test_subjects: int = 6
    exo_cameras: int = 4
    ego_cameras: int = 1
    size_px: int = 256
    """Frames are size_px x size_px."""
    fps: int = 15
    min_frames: int = 60
    max_frames: int = 140
    cut: Cut = "window"
    """Which part of the action a take shows: `window` two or three neighbouring phases in order, beginning and ending
    inside a phase (the clock says nearly nothing); `cycle` once around from a random point; `whole` all in order."""
    held_out_cameras: bool = True
    """Val and test see the scene from exo poses between those of train."""
    workers: int = 1
    """Processes that render; it changes nothing in the result."""

    def __post_init__(self) -> None:
        unknown = [a for a in self.actions if a not in PHASES]
        if unknown or not self.actions:
            given = ", ".join(self.actions) or "empty"
            raise UserError(f"world: actions is {given}; choose at least one of {', '.join(PHASES)}")
        if self.size_px % 16 or self.size_px < 32:
            raise UserError(f"world: size_px is {self.size_px}; it must be a multiple of 16 and at least 32")
        for name, low, high in (
            ("exo_cameras", 1, MAX_EXO),
            ("ego_cameras", 1, len(EGO_VIEWS)),
            ("fps", 1, 240),
            ("min_frames", 8, self.max_frames),
            ("workers", 1, 1024),
            *((f"{split}_takes", 0, 10**6) for split in SPLITS),
            *((f"{split}_subjects", 1, 10**4) for split in SPLITS),
        ):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"world: {name} is {getattr(self, name)}; it must be in [{low}, {high}]")
        if not any(self.takes(split) for split in SPLITS):
            raise UserError("world: takes is 0 in every split; give at least one split a take")
        if self.cut not in ("window", "cycle", "whole"):
            raise UserError(f"world: cut is {self.cut!r}; choose window, cycle or whole")

    def takes(self, split: str) -> int:
        """Takes per action in a split."""
        return int(getattr(self, f"{split}_takes"))

    def subjects(self, split: str) -> int:
        """Number of subjects that appear in a split and nowhere else."""
        return int(getattr(self, f"{split}_subjects"))
