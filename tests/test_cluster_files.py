from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossview.platform.cli.main import main
from crossview.platform.cluster.resources import DECODE
from crossview.platform.cluster.validate import check

ROOT = Path(__file__).resolve().parent.parent
FILES = ("cluster.yaml", "cluster-local.yaml")


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has a key and a token, in the checkout."""
    for name in (".ssh/id_ed25519", ".ray/auth_token"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_cluster_file_passes_rays_validation(name: str) -> None:
    check(ROOT / name)


def test_the_image_that_stands_in_comments_is_valid_too(tmp_path: Path) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    with_image = re.sub(r"^# (docker:|  (?:image|container_name|pull_before_run):)", r"\1", text, flags=re.MULTILINE)
    file = tmp_path / "cluster.yaml"
    file.write_text(with_image)
    assert set(yaml.safe_load(with_image)["docker"]) == {"image", "container_name", "pull_before_run"}
    check(file)


def test_the_aws_cluster_grows_from_its_head_alone_with_spot_machines() -> None:
    config = read("cluster.yaml")
    kinds = config["available_node_types"]
    workers = {name: kind for name, kind in kinds.items() if name != config["head_node_type"]}
    assert {kind["min_workers"] for kind in workers.values()} == {0}
    assert all(kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for kind in workers.values())
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]
    assert [name for name, kind in kinds.items() if kind["resources"].get("GPU")] == ["gpu"]
    assert [name for name, kind in kinds.items() if kind["resources"].get(DECODE)] == ["decode"]


@pytest.mark.parametrize("name", FILES)
def test_a_cluster_shuts_others_out_and_holds_no_secret(name: str) -> None:
    config = read(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA|PRIVATE KEY", (ROOT / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_what_the_nodes_install_from_is_what_the_package_is_made_of(name: str) -> None:
    mounts = read(name)["file_mounts"]
    rooms = {path for path in mounts.values() if (ROOT / path).is_dir()}
    assert rooms == {"crossview", "datasets", "downstream", "methods", "platform", "storage", "tune_spaces"}
    assert {"Makefile", "pyproject.toml", "requirements.lock", "README.md", "LICENSE"} <= set(mounts.values())
    assert all(there == f"~/crossview/{here}" for there, here in mounts.items() if not here.startswith("~"))


def test_aws_notice_of_a_spot_instance_is_passed_on_to_ray(tmp_path: Path) -> None:
    """With a server in place of AWS's, which first refuses, and a `ray` that notes what it is called with."""
    asked: list[tuple[str, str, str | None]] = []

    class Metadata(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.answer(200 if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else 400, b"secret")

        def do_GET(self) -> None:
            asked.append((self.command, self.path, self.headers["X-aws-ec2-metadata-token"]))
            self.answer(404 if len(asked) < 3 else 200, b'{"action": "terminate"}')

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    command, noted = read("cluster.yaml")["worker_start_ray_commands"][-1], tmp_path / "noted.txt"
    assert "http://169.254.169.254/" in command
    for name, script in (("ray", f'echo "$@" > {noted}.part && mv {noted}.part {noted}'), ("sleep", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = command.replace("169.254.169.254", f"127.0.0.1:{server.server_port}")
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_HEAD_IP": "10.0.0.1"}
        subprocess.run(["bash", "-c", command], env=env, check=True)
        deadline = time.monotonic() + 60
        while not noted.exists():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)
        server.shutdown()
    assert asked == [("GET", "/latest/meta-data/spot/instance-action", "secret")] * 3
    assert noted.read_text().startswith(
        "drain-node --address 10.0.0.1:6379 --reason DRAIN_NODE_REASON_PREEMPTION --reason-message AWS reclaims"
    )


def without(field: str) -> Callable[[dict[str, Any]], object]:
    *parents, last = field.split(".")

    def drop(config: dict[str, Any]) -> None:
        for name in parents:
            config = config[name]
        del config[last]

    return drop


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cluster.yaml", without("cluster_name"), "the field cluster_name is missing"),
        ("cluster.yaml", without("provider.region"), "the field provider.region is missing; write there where"),
        ("cluster.yaml", without("auth"), "the field auth.ssh_user is missing"),
        ("cluster.yaml", without("head_node_type"), "the field head_node_type is missing"),
        (
            "cluster.yaml",
            without("available_node_types.gpu.node_config.InstanceType"),
            "the field available_node_types.gpu.node_config.InstanceType is missing",
        ),
        (
            "cluster.yaml",
            lambda c: c.update(head_node_type="x"),
            "head_node_type is 'x'; choose from decode, gpu, head",
        ),
        ("cluster.yaml", lambda c: c.update(max_workers="many"), "max_workers: 'many' is not of type 'integer'"),
        ("cluster.yaml", lambda c: c.update(setup=[]), "'setup' was unexpected"),
        ("cluster-local.yaml", without("provider.head_ip"), "the field provider.head_ip is missing"),
        (
            "cluster-local.yaml",
            without("provider.worker_ips"),
            "write there the addresses of the other machines, or []",
        ),
        ("cluster-local.yaml", lambda c: c["auth"].update(ssh_private_key="~/no"), "auth.ssh_private_key names ~/no"),
        (
            "cluster-local.yaml",
            lambda c: c["file_mounts"].update({"~/x": "no"}),
            "file_mounts.~/x names no, which does",
        ),
    ],
)
def test_a_field_that_is_missing_or_wrong_is_named_with_the_fix(
    name: str,
    change: Callable[[dict[str, Any]], object],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = read(name)
    change(config)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as end:
        main(["check-cluster", str(file)])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: ")
    assert message in error


def test_a_missing_token_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / ".ray" / "auth_token").unlink()
    with pytest.raises(ValueError, match="make it with `ray get-auth-token --generate`"):
        check(ROOT / "cluster-local.yaml")


def test_what_the_image_copies_exists_and_every_instruction_is_one() -> None:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY"}
    assert {line.split()[0] for line in lines} == known
    assert lines[0].startswith("FROM ")
    sources = [
        source
        for line in lines
        if line.startswith("COPY ")
        for source in [word for word in line.split()[1:] if not word.startswith("--")][:-1]
    ]
    assert all((ROOT / source).exists() for source in sources)
    mounts = {here for here in read("cluster.yaml")["file_mounts"].values() if not here.startswith("~")}
    assert set(sources) == mounts
