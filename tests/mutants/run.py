"""Apply one-line mutants to a copy of the checkout, and report those that no test notices.

`*.toml` beside this file lists them: what is wrong, the file, the text that is replaced (it occurs once), its
replacement and the fewest tests that catch it. A mutant that is known to survive has a `reason`.

    .venv/bin/python tests/mutants/run.py                 # all of them: hours on two cores
    .venv/bin/python tests/mutants/run.py --only platform --jobs 2
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent.parent
ALLOWED = 3
"""Survivors, each with its reason."""
LIMIT_S = 300.0
"""For the tests of one mutant; an endless loop counts as noticed."""
LARGE = (
    "numpy",
    "pyarrow.parquet",
    "torch",
    "timm",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.svm",
    "av",
    "pytest",
)
"""Packages that are imported once instead of for every mutant."""

Outcome = Literal["killed", "survived", "timed out"]


@dataclass(frozen=True)
class Mutant:
    """One change that must not go unnoticed."""

    what: str
    file: str
    old: str
    new: str
    tests: list[str]
    reason: str = ""
    """Why it is known to survive."""
    source: str = field(default="", compare=False)
    """Name of the list that holds it."""

    def mutated(self, root: Path) -> str:
        """The file's text with the change; raises ValueError where it does not apply."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.source}: {self.what!r}: {self.old!r} occurs {text.count(self.old)} times in {self.file}; it "
                "must occur once: point it to where that line is now"
            )
        return text.replace(self.old, self.new)


def load(folder: Path, only: Sequence[str] = ()) -> list[Mutant]:
    """All mutants of the lists in `folder`, or of those named."""
    files = sorted(file for file in folder.glob("*.toml") if not only or file.stem in only)
    return [Mutant(**entry, source=file.name) for file in files for entry in tomllib.loads(file.read_text())["mutant"]]


class Runner:
    """Runs the tests of one copy at a time, in processes forked from one that has the large packages imported."""

    def __init__(self, copy: Path, large: Sequence[str]) -> None:
        self.copy = copy
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, str(Path(__file__).with_name("warm.py")), *large]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=copy
        )

    def run(self, tests: Sequence[str], limit_s: float) -> tuple[Outcome, str]:
        """Whether the tests notice that something is wrong with the copy, and the end of what they print."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        print(json.dumps({"checkout": str(self.copy), "tests": tests, "limit_s": limit_s}), file=asked, flush=True)
        if not (answer := answers.readline()):
            raise ValueError(
                f"pytest {' '.join(tests)}: the process that runs tests has ended ({self._process.wait()})"
            )
        status, said = json.loads(answer)
        if status is None:
            return "timed out", said
        if status in (3, 4, 5):  # 2 may be a mutant that breaks what is imported as tests are collected
            raise ValueError(f"pytest {' '.join(tests)}: exit status {status}\n{said}")
        return ("survived" if status == 0 else "killed"), said

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        self._process.wait()


@contextmanager
def runners(root: Path, count: int, large: Sequence[str] = LARGE) -> Iterator[Queue[Runner]]:
    """Runners on copies of the checkout's tracked and new files: a mutant never touches the checkout itself."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary, ExitStack() as stack:
        free: Queue[Runner] = Queue()
        for k in range(count):
            for name in names:
                if name and (root / name).is_file():
                    target = Path(temporary) / str(k) / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(root / name, target)
            free.put(runner := Runner(Path(temporary) / str(k), large))
            stack.callback(runner.close)
        yield free


@contextmanager
def taken(free: Queue[Runner]) -> Iterator[Runner]:
    """A runner that nobody else uses meanwhile."""
    runner = free.get()
    try:
        yield runner
    finally:
        free.put(runner)


def judge(
    root: Path, mutants: Sequence[Mutant], jobs: int, *, limit_s: float = LIMIT_S, large: Sequence[str] = LARGE
) -> list[Outcome]:
    """The outcome of each mutant, in order; raises ValueError where tests fail without one, or one does not apply."""
    for mutant in mutants:
        mutant.mutated(root)
    with runners(root, jobs, large) as free, ThreadPoolExecutor(jobs) as pool:

        def unmutated(test: str) -> None:
            began = time.monotonic()
            with taken(free) as runner:
                outcome, said = runner.run([test], 10 * limit_s)
            print(f"unmutated  {time.monotonic() - began:4.0f} s  {test}", flush=True)
            if outcome != "survived":
                raise ValueError(f"{test} {outcome} without any mutant; fix it first:\n{said}")

        def one(mutant: Mutant) -> Outcome:
            began = time.monotonic()
            with taken(free) as runner:
                file = runner.copy / mutant.file
                before = file.read_text()
                try:
                    file.write_text(mutant.mutated(root))
                    outcome, _ = runner.run(mutant.tests, limit_s)
                finally:
                    file.write_text(before)
            print(f"{outcome:9}  {time.monotonic() - began:4.0f} s  {mutant.source}: {mutant.what}", flush=True)
            return outcome

        list(pool.map(unmutated, sorted({test for mutant in mutants for test in mutant.tests})))
        return list(pool.map(one, mutants))


def verdict(mutants: Sequence[Mutant], outcomes: Sequence[Outcome]) -> tuple[bool, str]:
    """Whether few enough survive, each for a reason, and the same in words."""
    left = [m for m, outcome in zip(mutants, outcomes, strict=True) if outcome == "survived"]
    lines = [f"{len(mutants) - len(left)} of {len(mutants)} mutants noticed, {len(left)} survive"]
    lines += [f"  survives: {m.file}: {m.what}: {m.reason or 'NO REASON GIVEN'}" for m in left]
    return len(left) <= ALLOWED and all(m.reason for m in left), "\n".join(lines)


def main() -> None:
    """Judge the mutants of all lists, or of those named by --only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="LIST", help="names of lists in tests/mutants/")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants judged side by side")
    given = parser.parse_args()
    mutants = load(ROOT / "tests" / "mutants", given.only)
    if not mutants:
        parser.error(f"--only {' '.join(given.only)}: no such list in tests/mutants/")
    try:
        fine, text = verdict(mutants, judge(ROOT, mutants, given.jobs))
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(text)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
