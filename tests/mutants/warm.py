"""A process that has imported the large packages once, and forks a fresh pytest for every line that it reads.

Its arguments are the packages: neither crossview, which is what is tested, nor Ray, which reads the tests' settings as
it is imported. A line in is JSON: the checkout, its tests and a time limit in s. A line out is the exit status, null
where the limit was reached, and the end of what pytest said. Tests that start Ray are left out.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time

OPTIONS = ("-x", "-q", "--no-header", "--durations=0", "-p", "no:cacheprovider", "-n", "0", "-m", "not ray")


def run_pytest(checkout: str, tests: list[str]) -> None:
    """In a forked process: the tests, on the checkout's own packages. Does not return."""
    os.chdir(checkout)
    sys.path.insert(0, checkout)
    os.environ["PYTHONPATH"] = checkout  # for the processes that tests start
    import pytest

    status = pytest.main([*OPTIONS, *tests])
    sys.stdout.flush()
    os._exit(int(status))


def wait(child: int, limit_s: float) -> int | None:
    """The child's exit status; after the limit it is killed, with all that it has started, and there is none."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            child = os.fork()
            if child == 0:
                os.setsid()
                for stream in (1, 2):
                    os.dup2(said.fileno(), stream)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                run_pytest(asked["checkout"], asked["tests"])
            status = wait(child, asked["limit_s"])
            said.seek(0)
            print(json.dumps([status, said.read()[-2000:]]), file=answers, flush=True)


if __name__ == "__main__":
    main()
