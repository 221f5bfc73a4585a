"""One progress line for every long step: done, rate, time left, and what the step wants to add."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

console = Console()
PLAIN_EVERY_S = 15.0
"""Without a terminal (a log file, CI) a plain line is printed this often instead of a moving bar."""
_hidden = False


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Meanwhile no progress line is shown that begins here: a terminal shows one at a time."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


def warn(warnings: Iterable[str]) -> None:
    """Print warnings of a line or a few, whose names may hold brackets."""
    for warning in warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def marked(mark: str) -> Iterator[None]:
    """Meanwhile every line that the console shows, those of moving bars too, begins with `mark`."""
    before = console._file, console._width  # None where they follow sys.stdout and the terminal
    if mark:
        console.width, console.file = max(1, console.width - len(mark)), cast("IO[str]", _Marked(console.file, mark))
    try:
        yield
    finally:
        console._file, console._width = before


class _Marked(io.TextIOBase):
    """Text on its way to a terminal or file, with a mark where each line begins, after codes that move the cursor."""

    def __init__(self, file: IO[str], mark: str) -> None:
        self._file, self._begins = file, True
        self._line = re.compile(r"((?:\x1b\[[0-9;?]*[A-Za-z])*)([^\n\r]*)([\n\r]?)")
        self._mark = mark

    def write(self, text: str) -> int:
        """A line that has no visible text stays as it is."""
        marked = []
        for codes, visible, end in self._line.findall(text):
            marked += [codes, self._mark if visible and self._begins else "", visible, end]
            self._begins = bool(end) or (self._begins and not visible)
        self._file.write("".join(marked))
        return len(text)

    def flush(self) -> None:
        self._file.flush()

    def isatty(self) -> bool:
        """Of the file behind."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Of the file behind."""
        return self._file.fileno()


class Progress:
    """Progress of `total` units; a moving bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._first, self._start, self._printed, self._note = done, time.monotonic(), time.monotonic(), ""
        self._shown: tuple[int, str] | None = None
        self._rich: RichProgress | None = None
        self._quiet = _hidden

    def __enter__(self) -> Progress:
        self._start = self._printed = time.monotonic()
        if console.is_terminal and not self._quiet:
            self._rich = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._rich.start()
            self._task = self._rich.add_task(self.what, total=self.total, completed=self.done, rate="", note="")
        return self

    def begin(self, done: int, total: int) -> None:
        """Set how many units there are and how many were done before, which the rate leaves out."""
        self.total, self._first = total, done
        self.update(done)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done; `note` is shown at the end of the line."""
        self.update(self.done + count, note)

    def update(self, done: int, note: str = "") -> None:
        """Set how many units are done."""
        self.done, self._note = done, note or self._note
        if self._rich:
            self._rich.update(self._task, completed=done, total=self.total, rate=self.rate, note=self._note)
        elif not self._quiet and time.monotonic() - self._printed > PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self._print()

    @property
    def rate(self) -> str:
        """Units per second since this line began; where one takes long, seconds per unit."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        finished = self.done - self._first
        if 0 < finished < 0.1 * seconds:
            return f"{seconds / finished:.0f} s each"
        return f"{finished / seconds:.1f} {self.unit}/s"

    def _print(self) -> None:
        seconds = time.monotonic() - self._start
        finished = self.done - self._first
        left = ""
        if finished > 0 and self.done < self.total:
            left = f", {seconds / finished * (self.total - self.done):.0f} s left"
        note = f"  {self._note}" if self._note else ""
        line = f"{self.what}: {self.done}/{self.total} {self.unit}, {self.rate}{left}{note}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._shown = (self.done, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich:
            self._rich.stop()
        elif not self._quiet and self._shown != (self.done, self._note) and (error is None or self.done > self._first):
            self._print()


@contextlib.contextmanager
def ticking(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress line for functions that report (done, total)."""
    with Progress(what, 0, "videos") as line:

        def tick(done: int, total: int) -> None:
            line.total = total
            line.update(done)

        yield tick
