"""Notices that training has to end soon: SIGTERM to this process, or a node that is about to be taken away."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a command that SIGTERM has ended."""
LOOK_S = 5.0
"""About how often several ranks ask whether to leave; Ray looks for nodes that are being drained as often."""


class Notice:
    """Whether SIGTERM has come."""

    given = False


@contextlib.contextmanager
def on_sigterm() -> Iterator[Notice]:
    """Within the block, the first SIGTERM gives notice and the second ends the process at once (SystemExit).

    Outside the main thread, where Python allows no handlers, no notice is ever given.
    """
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return

    def give(_number: int, _frame: object) -> None:
        if notice.given:
            raise SystemExit(TERMINATED)
        notice.given = True

    before = signal.signal(signal.SIGTERM, give)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class Looks:
    """Asks all ranks about every LOOK_S seconds, after the same step, whether to leave.

    `asked` is called on every rank then; rank 0 gives all ranks its answer, and after how many steps to ask again. The
    steps between cost nothing.
    """

    def __init__(self, asked: Callable[[], bool], device: torch.device) -> None:
        self._asked, self._device = asked, device
        self._steps = self._left = 1
        self._before_s = time.monotonic()

    def leave(self) -> bool:
        """To be called after each step: whether training ends here."""
        self._left -= 1
        if self._left:
            return False
        now_s = time.monotonic()
        a_step_s = (now_s - self._before_s) / self._steps
        self._before_s = now_s
        heard = torch.tensor([self._asked(), max(1, round(LOOK_S / max(a_step_s, 1e-3)))], device=self._device)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.broadcast(heard, 0)
        leave, self._steps = heard.tolist()
        self._left = self._steps
        return bool(leave)
