from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crossview.platform.cli.jobs import named
from crossview.platform.cli.main import main
from crossview.platform.cluster.job_client import PACKAGES, shipped

ROOT = Path(__file__).resolve().parent.parent


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_new_run_is_named_before_it_is_submitted() -> None:
    job, command = named(["train", "byov", "--data.catalog", "/data/catalog"])
    assert command[:4] == ["train", "byov", "--data.catalog", "/data/catalog"]
    assert command[4] == "--name"
    assert job == f"train-{command[5]}"
    assert command[5].startswith("byov-20")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "byov", "--data.catalog", "/data/catalog", "--name", "mine"],
        ["train", "byov", "--data.catalog=/data/catalog", "--name=mine"],
        ["resume", "/data/runs/mine"],
        ["tune", "--resume", "mine"],
        ["evaluate", "/data/runs/mine", "--split", "val"],
    ],
)
def test_a_command_that_names_its_run_is_submitted_as_it_is(command: list[str]) -> None:
    job, submitted = named(command)
    assert submitted == command
    assert job.startswith(f"{command[0]}-")


def test_wrong_arguments_are_refused_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert "method 'nope' is unknown" in refused(capsys, "submit", "train", "nope")
    assert "--optim.lrr" in refused(capsys, "submit", "train", "byov", "--data.catalog", "/x", "--optim.lrr", "1")
    assert "'view' cannot be submitted; choose from train, " in refused(capsys, "submit", "view", "x")
    assert "nothing says what to resume" in refused(capsys, "submit", "resume")
    assert "usage: crossview submit COMMAND" in refused(capsys, "submit")


@pytest.mark.parametrize("command", [("submit", "resume", "runs/x"), ("status",), ("logs", "x"), ("stop", "x")])
def test_no_route_to_the_head_is_told_with_the_way_there(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        message = refused(capsys, *command, "--address", address)
    assert f"{address}: nothing answers there" in message
    assert "ray dashboard CLUSTER.yaml" in message


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "ray://head:10001", "http://head:dashboard", "auto"])
def test_an_address_that_is_no_dashboards_is_told_so(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "status", "--address", address)
    assert f"--address {address}: not the address of a dashboard" in message


def test_a_token_file_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with socket.create_server(("127.0.0.1", 0)) as head:
        message = refused(capsys, "status", "--address", f"http://127.0.0.1:{head.getsockname()[1]}")
    assert "RAY_AUTH_TOKEN_PATH=/nowhere/token: no such file" in message


def test_what_is_shipped_is_imported_in_place_of_what_is_installed() -> None:
    code = (
        "import crossview.platform.cli.main, crossview.methods.byov.config as c, crossview.datasets; print(c.__file__)"
    )
    with shipped() as package:
        assert {p.name for p in package.iterdir()} == {*PACKAGES, "__init__.py"}
        (package / "methods" / "byov" / "only_here.py").write_text("FROM = 'shipped'\n")
        done = subprocess.run(
            [sys.executable, "-c", f"{code}; import crossview.methods.byov.only_here as o; print(o.FROM)"],
            env={"PYTHONPATH": str(package.parent)},
            cwd=package,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(package / "methods" / "byov" / "config.py"), "shipped"]
    assert not package.exists()


def test_the_templates_of_pages_are_shipped_too() -> None:
    with shipped() as package:
        there = {p.relative_to(package) for p in package.rglob("*.j2")}
    assert there == {p.relative_to(ROOT) for name in PACKAGES for p in (ROOT / name).rglob("*.j2")}
    assert there
