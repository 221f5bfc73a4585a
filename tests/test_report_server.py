from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import train, write_catalog

from crossview.errors import UserError
from crossview.platform.cli import main
from crossview.platform.report.server import SILENT_S, Server


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_catalog(folder)
    return train(folder / "runs" / "done", folder)


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained.parent, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with Server(root, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def report_progress(run: Path, step: int, total: int, age_s: float = 0.0, doing: str = "") -> None:
    status = json.loads((run / "progress.json").read_text())
    (run / "progress.json").write_text(json.dumps(status | {"step": step, "total": total, "doing": doing}))
    if age_s:
        then = time.time() - age_s
        for file in (run / "progress.json", run / "run.json"):
            os.utime(file, (then, then))


def test_the_list_has_all_runs_and_says_how_they_are(server: Server, root: Path, trained: Path) -> None:
    for name in ("going", "scoring", "silent"):
        shutil.copytree(trained, root / "study" / name)
    report_progress(root / "study" / "going", 2, 1000)
    report_progress(root / "study" / "scoring", 2, 8, doing="scoring")
    report_progress(root / "study" / "silent", 2, 8, age_s=2 * SILENT_S)
    (root / "bare").mkdir()
    shutil.copy(trained / "run.json", root / "bare")
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    (root / "search").mkdir()
    (root / "search" / "report.html").write_text("<p>a search</p>")
    status, page, _ = get(server, "/")
    assert status == 200
    lines = {line.split("</a>")[0].rpartition(">")[2]: line for line in page.split("<tr>") if "/run/" in line}
    assert lines.keys() == {"done", "study/going", "study/scoring", "study/silent", "bare", "broken"}
    assert "<td>2 of 1,000</td>" in lines["study/going"]
    assert ">training<" in lines["study/going"]
    assert ">scoring<" in lines["study/scoring"]
    assert ">stopped<" in lines["study/silent"]
    assert ">4 min ago<" in lines["study/silent"]
    assert ">finished<" in lines["done"]
    assert ">no step yet<" in lines["bare"]
    assert "broken/run.json" in lines["broken"]
    assert 'http-equiv="refresh"' in page
    assert '<a href="/page/search/report.html">' in page
    assert get(server, "/page/search/report.html")[1] == "<p>a search</p>"


def test_a_page_follows_its_run_and_rests_when_it_ends(server: Server, root: Path) -> None:
    status, page, headers = get(server, "/run/done")
    assert status == 200
    assert "A run of byov" in page
    assert "Up to step 4." in page
    assert "data:image/png;base64," in page
    assert 'http-equiv="refresh"' not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    report_progress(root / "done", 3, 4)
    assert 'http-equiv="refresh"' in get(server, "/run/done")[1]


def test_only_what_the_list_names_is_served(server: Server, root: Path) -> None:
    (root.parent / "secret").mkdir()
    (root.parent / "secret" / "report.html").write_text("secret")
    (root / "link").symlink_to(root.parent / "secret")
    (root / "file").mkdir()
    (root / "file" / "report.html").symlink_to(root.parent / "secret" / "report.html")
    for path in (
        "/page/../secret/report.html",
        "/page/%2e%2e/secret/report.html",
        "/page/link/report.html",
        "/page/file/report.html",
        "/run/done/run.json",
        "/run/",
        "/etc/passwd",
    ):
        status, text, _ = get(server, path)
        assert (status, "secret\n" in text) == (404, False), path
    assert "link" not in get(server, "/")[1]


def test_it_is_read_only_and_for_this_machine_alone(server: Server, root: Path) -> None:
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/run/done", "POST")[0] == 501
    assert get(server, "/run/done", "DELETE")[0] == 501
    assert get(server, "/", Host="evil.example:80")[0] == 403
    assert get(server, "/", Host=f"localhost:{server.server_port}")[0] == 200
    status, body, headers = get(server, "/run/done", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


def test_names_cannot_become_markup(server: Server, root: Path) -> None:
    (root / "done").rename(root / "<script>alert(1) # ?")
    page = get(server, "/")[1]
    assert "<script" not in page
    link = page.split('href="')[1].split('"')[0]
    assert get(server, link)[0] == 200


def test_what_cannot_be_served_is_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no folder of this machine"):
        Server(tmp_path / "nowhere", 0)
    with Server(root, 0) as first, pytest.raises(UserError, match=rf"--port {first.server_port}: .*choose another"):
        Server(root, first.server_port)
    with pytest.raises(UserError, match="leave out the runs' names"):
        main.report((root / "done",), serve=root)
    empty = tmp_path / "empty"
    empty.mkdir()
    with Server(empty, 0) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert "No run here yet" in get(server, "/")[1]
        thread.join()
