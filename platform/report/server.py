"""A folder of runs in the browser, on this machine alone: read, never changed, and fresh while something trains."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from crossview import storage
from crossview.errors import UserError
from crossview.platform.config import saved
from crossview.platform.report import html
from crossview.platform.report.plots import embedded, loss_curves
from crossview.platform.report.run_report import contents
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.status import Status, read_status

HOST = "127.0.0.1"
REFRESH_S = 5
"""A page of something that trains is loaded anew as often."""
SILENT_S = 120
"""A run that has said nothing for longer counts as stopped."""
DEPTH = 3
"""Folders between the root and a run: studies and searches have theirs in subfolders."""
ENDED = ("finished", "stopped")
LOSSES = "losses.png"
PAGES = ("report.html", "table.html", "comparison.html")
"""Of searches, tables and comparisons, which are shown as they are."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Listed:
    """A line of the list of runs."""

    name: str
    link: str
    method: str
    step: str
    loss: str
    state: str
    age_s: float
    """Seconds since it last reported."""

    @property
    def ago(self) -> str:
        """That as text."""
        for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
            if self.age_s >= size:
                return f"{self.age_s / size:.0f} {unit} ago"
        return f"{self.age_s:.0f} s ago"


class Server(ThreadingHTTPServer):
    """Serves the runs under a folder at `url` until it is shut down."""

    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        if not root.is_dir():
            raise UserError(f"{root}: no folder of this machine; name one that holds runs, such as runs")
        self.root = root
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; choose another one") from error
        self.url = f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "Crossview"

    def do_GET(self) -> None:
        """A page; any path but those that the list names is not there."""
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            self._send(HTTPStatus.FORBIDDEN, "another host's name")  # a page elsewhere that was pointed at this machine
            return
        path = unquote(urlsplit(self.path).path)
        try:
            page = self._page(path)
        except UserError as error:  # damaged, or written at this moment
            page = html.render("report/problem.html.j2", problem=str(error), refresh=REFRESH_S)
        if page is None:
            self._send(HTTPStatus.NOT_FOUND, f"no page {path}")
        else:
            self._send(HTTPStatus.OK, page, "text/html")

    do_HEAD = do_GET  # noqa: N815 - the base class calls it so

    def _page(self, path: str) -> str | None:
        root = self.server.root
        if path == "/":
            return _overview(root)
        known: dict[str, Callable[[], str]] = {f"/run/{_relative(root, run)}": _of_run(run) for run in runs(root)}
        known |= {f"/page/{_relative(root, file)}": _as_it_is(file) for file in pages(root)}
        return known[path]() if path in known else None

    def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: requests are the user's own."""
        del format, args


def runs(root: Path) -> list[Path]:
    """The run folders under it, the newest first."""
    found = [file.parent for file in _files(root, ("run.json",))]
    return sorted(found, key=lambda run: -_changed(run))


def pages(root: Path) -> list[Path]:
    """Finished pages under it that are not a run's."""
    return sorted(file for file in _files(root, PAGES) if not (file.parent / "run.json").is_file())


def _files(root: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Files of these names, without following links, which could lead out of the root."""
    for folder, below, files in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        below[:] = [] if depth >= DEPTH or "run.json" in files else sorted(below)
        yield from (Path(folder) / name for name in names if name in files and not (Path(folder) / name).is_symlink())


def _changed(run: Path) -> float:
    """Seconds since the epoch at which the run last reported."""
    files = [run / "progress.json", run / "run.json"]
    return max(file.stat().st_mtime for file in files if file.exists())


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _overview(root: Path) -> str:
    listed = [_listed(root, run) for run in runs(root)]
    others = [(_relative(root, file), f"/page/{quote(_relative(root, file))}") for file in pages(root)]
    trains = any(one.step and one.state not in ENDED for one in listed)
    return html.render(
        "report/runs.html.j2", root=str(root), runs=listed, others=others, refresh=REFRESH_S if trains else None
    )


def _listed(root: Path, run: Path) -> Listed:
    name, age = _relative(root, run), time.time() - _changed(run)
    try:
        method = saved(run).method
    except UserError as error:
        return Listed(name, f"/run/{quote(name)}", "", "", "", str(error), age)
    status = read_status(run)
    if status is None:
        return Listed(name, f"/run/{quote(name)}", method, "", "", "no step yet", age)
    step = f"{status.step:,} of {status.total:,}"
    return Listed(name, f"/run/{quote(name)}", method, step, f"{status.loss:.4f}", _state(status, age), age)


def _state(status: Status, age_s: float) -> str:
    if status.step == status.total:
        return "finished"
    return status.doing or "training" if age_s < SILENT_S else "stopped"


def _of_run(run: Path) -> Callable[[], str]:
    def page() -> str:
        status = read_status(run)
        trains = status is not None and _state(status, time.time() - _changed(run)) not in ENDED
        values, rows = contents(run), read_metrics(run)
        if rows:  # as they are now, in place of those of the last `crossview report`
            now = {"name": LOSSES, "uri": embedded(loss_curves(rows)), "caption": f"Up to step {rows[-1]['step']}."}
            values["figures"] = [now, *(figure for figure in values["figures"] if figure["name"] != LOSSES)]
        return html.render("report/report.html.j2", **values, refresh=REFRESH_S if trains else None)

    return page


def _as_it_is(file: Path) -> Callable[[], str]:
    return lambda: storage.read_text(file)
