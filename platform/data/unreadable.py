"""Files that could not be read: named once with the reason, counted, and limited."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from crossview import storage
from crossview.errors import UserError
from crossview.storage.tables import read_table, write_table

SCHEMA = pa.schema([("recording", pa.string()), ("path", pa.string()), ("reason", pa.string())])
FILE = "quarantine.parquet"


class Quarantine:
    """Unreadable recordings of one run, in `quarantine.parquet` of its folder, shared by all ranks.

    The list only informs: whether a row is replaced follows from the file alone, so a fixed file is used again. The
    limit is on what this process found unreadable, so that a resumed run whose files were fixed continues.
    """

    def __init__(self, run_dir: Path | None, recordings: int, max_share: float) -> None:
        self.run_dir, self.recordings, self.max_share = run_dir, recordings, max_share
        self.files: dict[str, dict[str, str]] = read(run_dir) if run_dir else {}
        self._found: dict[str, dict[str, str]] = {}

    def add(self, reports: Iterable[str]) -> None:
        """Take in the column "quarantine" of a block; raises ValueError once too many recordings are unreadable."""
        found = [report for text in reports if text for report in json.loads(text)]
        if not found:
            return
        for report in found:
            if "error" in report:
                raise UserError(report["error"])
        named = {r["recording"]: r for r in found if "recording" in r and r["recording"] not in self._found}
        self._found |= named
        self.files |= named
        if named and self.run_dir:
            with _locked(self.run_dir):
                self.files = read(self.run_dir) | self.files
                write(self.run_dir, self.files)
        lost = [r["lost"] for r in found if "lost" in r]
        if len(self._found) > self.max_share * self.recordings or lost:
            raise UserError(self._message(lost))

    def _message(self, lost: list[int]) -> str:
        shown = [f["reason"] for f in list(self._found.values())[:5]]
        more = f"\n  and {len(self._found) - 5} more" if len(self._found) > 5 else ""
        rule = f"at most {self.max_share:.0%} may be (--data.max-quarantined)"
        if len(self._found) <= self.max_share * self.recordings:
            rule = f"sample {lost[0]} has no readable row to take its place"
        where = f"; all are listed in {self.run_dir / FILE}" if self.run_dir else ""
        return (
            f"{len(self._found)} of {self.recordings} recordings are unreadable, {rule}: fix or remove the files and "
            f"make the catalog again with `crossview prepare`, or start a new run with a higher limit{where}\n  "
            + "\n  ".join(shown)
            + more
        )


def read(run_dir: Path) -> dict[str, dict[str, str]]:
    """Unreadable recordings by id; none where nothing was written."""
    path = run_dir / FILE
    return {row["recording"]: row for row in read_table(path).to_pylist()} if path.is_file() else {}


def write(run_dir: Path, files: dict[str, dict[str, str]]) -> None:
    """Replace the list in one step."""
    write_table(pa.Table.from_pylist([files[name] for name in sorted(files)], schema=SCHEMA), run_dir / FILE)


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """One rank at a time reads, merges and writes; of a remote run, one on each node."""
    folder = os.open(run_dir if storage.is_local(run_dir) else storage.cache_folder(), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
