"""The progress of a run while it trains."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crossview import storage
from crossview.platform import run_folder
from crossview.platform.progress import Progress, warn


@dataclass(frozen=True)
class Status:
    """What the progress line shows."""

    step: int
    total: int
    loss: float
    data_wait: float
    """Share of the time since the start spent waiting for data."""
    quarantined: int
    samples_per_s: float
    """Over all workers, since the last logged row."""
    doing: str = ""
    """What it does now in place of training."""
    warnings: tuple[str, ...] = ()
    pid: int = field(default_factory=os.getpid)

    def note(self) -> str:
        """One short text for the end of the progress line."""
        bad = f", {self.quarantined} files quarantined" if self.quarantined else ""
        rate = f"{self.samples_per_s:.3g}" if self.samples_per_s < 100 else f"{self.samples_per_s:.0f}"
        doing = f", {self.doing}" if self.doing else ""
        return f"loss {self.loss:.4f}, {rate} samples/s, data wait {self.data_wait:.0%}{bad}{doing}"


def shown_on(line: Progress) -> Callable[[Status], None]:
    """Keeps a progress line at the latest status, and prints each warning once."""
    printed: set[str] = set()

    def show(status: Status) -> None:
        warn(warning for warning in status.warnings if warning not in printed)
        printed.update(status.warnings)
        line.update(status.step, status.note())

    return show


def read_status(run: Path) -> Status | None:
    """The latest status of a run; None before its first step, and where it cannot be read now."""
    try:
        found = json.loads((run / "progress.json").read_text())
        return Status(**{**found, "warnings": tuple(found["warnings"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def look_s(run: Path) -> float:
    """Seconds between two looks at progress.json: a few a second, but requests to an object store cost money."""
    return 0.3 if storage.is_local(run) else 10.0


def status_writer(run: Path) -> Callable[[Status], None]:
    """Keeps progress.json fresh for whoever watches the run."""
    last, pause_s, doing = 0.0, look_s(run), ""

    def write(status: Status) -> None:
        nonlocal last, doing
        if time.monotonic() - last > pause_s or status.step == status.total or status.doing != doing:
            last, doing = time.monotonic(), status.doing
            with contextlib.suppress(OSError):  # only informative; a full disk is reported where training must write
                run_folder.write_json(run / "progress.json", asdict(status), patience_s=0)

    return write
