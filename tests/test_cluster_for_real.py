"""The way of docs/cluster.md on this machine: `ray up` over ssh, jobs, results, `ray down`. See tests/hosts.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_run
import yaml
from hosts import Machine, environment_for, machines, missing

from crossview.methods.recipe import Optim
from crossview.platform.cluster.job_client import shipped
from crossview.platform.config import Cadence, Compute, Data, Experiment, to_dict
from crossview.platform.train.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
STEPS = 4
HOLD = """
import time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

class Idle:
    def __init__(self): pass

ray.init()
actors = [
    ray.remote(Idle).options(num_cpus=0.1, scheduling_strategy=On(node["NodeID"], soft=False)).remote()
    for node in ray.nodes()
]
ray.get([actor.__ray_ready__.remote() for actor in actors])
print("held", len(actors), flush=True)
time.sleep(3600)
"""
"""A job that takes a tenth of a CPU of each host, so that of its one CPU enough for one training worker is left."""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.skipif(missing() is not None, reason=f"no hosts on this machine: {missing()}"),
]


@dataclass
class Cluster:
    folder: Path
    laptop: Machine
    hosts: list[Machine]
    file: Path
    output: str
    """What `ray up` printed."""

    def crossview(self, *args: str, code: Path | None = None, token: Path | None = None) -> tuple[int, str]:
        """The command on the laptop, run from the code in `code`'s parent; its status and all that it printed."""
        env = {"PYTHONPATH": str(code.parent)} if code else {}
        env |= {"RAY_AUTH_TOKEN_PATH": str(token)} if token else {}
        done = self.laptop.run(
            "python", "-c", "from crossview.platform.cli.main import main; main()", *args, env=env, cwd=self.folder
        )
        return done.returncode, done.stdout + done.stderr

    def job(self, output: str) -> str:
        found = re.search(r"Submitted (\S+):", output)
        assert found, output
        return found[1]


def description(folder: Path, hosts: list[Machine]) -> dict[str, object]:
    """cluster-local.yaml with what its user must change, and less of each host's resources."""
    config = yaml.safe_load((ROOT / "cluster-local.yaml").read_text())
    config["cluster_name"] = folder.name
    config["provider"].update(head_ip=hosts[0].address, worker_ips=[host.address for host in hosts[1:]])
    config["auth"].update(ssh_user="root", ssh_private_key=str(folder / "client_key"))
    setup = config["setup_commands"]
    made = setup.index("make -C ~/crossview setup")
    setup[made] = "test -x ~/crossview/.venv/bin/crossview -a -f ~/crossview/requirements.lock"  # `environment_for`
    # A worker that has lost its head would else wait for a minute for it to come back.
    env = "RAY_gcs_rpc_server_reconnect_timeout_s=20"
    less = "ray start --num-cpus=1 --object-store-memory=200000000"
    for kind in ("head", "worker"):
        commands = config[f"{kind}_start_ray_commands"]
        assert "ray start" in commands[-1]
        commands[-1] = f"export {env} && " + commands[-1].replace("ray start", less)
    return config


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with machines(2) as (folder, laptop, hosts):
        for host in hosts:
            environment_for(host)
        laptop.env["PATH"] = f"{sys.prefix}/bin:{os.environ['PATH']}"
        made = laptop.run("ray", "get-auth-token", "--generate")
        assert made.returncode == 0, made.stderr
        file = folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(description(folder, hosts)))
        up = laptop.run("ray", "up", "-y", str(file), cwd=ROOT)
        assert up.returncode == 0, up.stdout + up.stderr
        tunnel = laptop.start("ray", "dashboard", str(file), output=folder / "tunnel.log")
        found = Cluster(folder, laptop, hosts, file, up.stdout + up.stderr)
        _wait(lambda: found.crossview("status")[1], "no jobs yet")
        _wait(lambda: _on_head(found, "ray status"), " 2 local.cluster.node")
        yield found
        assert tunnel.poll() is None
        # All hosts and whatever runs on them end here.


URL = "http://127.0.0.1:8265"
TOKEN = {"RAY_AUTH_MODE": "token"}


def _on_head(cluster: Cluster, command: str) -> str:
    done = cluster.laptop.run("ray", "exec", str(cluster.file), command, cwd=ROOT)
    return done.stdout + done.stderr


def _wait(output: Callable[[], str], expected: str, limit_s: float = 150) -> None:
    """Ask until `output` holds what is expected."""
    begun = time.monotonic()
    while expected not in (found := output()):
        if time.monotonic() - begun > limit_s:
            pytest.fail(f"{expected!r} did not come within {limit_s:g} s; the last was {found}")
        time.sleep(1)


@pytest.fixture(scope="module")
def configuration(cluster: Cluster) -> Path:
    """A tiny run for two workers, on storage that all see."""
    shared = cluster.folder / "shared"
    tiny_run.write_catalog(shared / "videos")
    experiment = Experiment(
        data=Data(catalog=shared / "videos" / "catalog"),
        method=tiny_run.method_config(),
        optim=Optim(lr=1e-2, batch=2, steps=STEPS),
        compute=Compute(device="cpu", threads=1, workers=2),
        every=Cadence(log=1, checkpoint=2),
        seed=3,
    )
    file = shared / "tiny.json"
    file.write_text(json.dumps(to_dict("byov", experiment)))
    return file


@pytest.fixture(scope="module")
def held(cluster: Cluster) -> str:
    """The name of a job that runs until it is stopped."""
    script = cluster.folder / "hold.py"
    script.write_text(HOLD)
    submit = ["ray", "job", "submit", "--address", URL, "--no-wait", "--submission-id", "hold", "--"]
    done = cluster.laptop.run(*submit, "python", str(script), env=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    _wait(lambda: cluster.crossview("logs", "hold")[1], "held 2")
    return "hold"


def test_a_job_submitted_with_ray_trains_on_both_hosts(cluster: Cluster, configuration: Path, held: str) -> None:
    runs = configuration.parent / "runs"
    command = f"crossview train byov --from {configuration} --runs {runs} --name spans"
    done = cluster.laptop.run("ray", "job", "submit", "--address", URL, "--", *command.split(), env=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Training finished. The run is saved to" in done.stdout
    assert len(read_metrics(runs / "spans")) == STEPS
    on_each = [host.run("sh", "-c", f"ls {cluster.folder}/tmp/ray/session_latest/logs/train") for host in cluster.hosts]
    workers = [re.findall(r"ray-train-app-worker-\w+\.log", found.stdout) for found in on_each]
    assert [len(names) for names in workers] == [1, 1]


def test_results_are_fetched_over_the_head(cluster: Cluster, configuration: Path) -> None:
    there, here = configuration.parent / "runs" / "spans", cluster.laptop.home / "spans"
    done = cluster.laptop.run("ray", "rsync-down", str(cluster.file), f"{there}/", f"{here}/", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_metrics(here) == read_metrics(there)
    assert {path.name for path in (here / "checkpoints").iterdir()} == {"step-00000002", "step-00000004"}


def test_a_job_is_stopped_and_its_logs_stay(cluster: Cluster, held: str) -> None:
    assert f"{held}: STOPPED" in cluster.crossview("stop", held)[1]
    assert f"{held}  STOPPED" in cluster.crossview("status", held)[1]
    status, output = cluster.crossview("logs", held, "--follow")
    assert status == 1
    assert "held 2" in output


def test_a_search_submitted_with_changed_code_runs_that_code_on_the_hosts(
    cluster: Cluster, configuration: Path
) -> None:
    runs = configuration.parent / "runs"
    code = cluster.folder / "changed" / "crossview"
    with shipped() as package:
        shutil.copytree(package, code)
    _change(code / "methods" / "byov" / "model.py", '{"loss": ', '{"a_changed_line": torch.as_tensor(7.0), "loss": ')
    _change(
        code / "platform" / "cli" / "options.py",
        "    return method, launch",
        '    print("a changed line")\n    return method, launch',
    )
    search = f"tune byov --from {configuration} --compute.workers 1 --trials 1 --evaluations 1 --confirm 0 --jobs 1"
    status, output = cluster.crossview(
        "submit", *search.split(), "--runs", str(runs), "--name", "search", "--address", URL, "--follow", code=code
    )
    assert status == 0, output
    job = cluster.job(output)
    assert "a changed line" in output.split("Running entrypoint")[1]
    assert f"{job}: SUCCEEDED" in output
    trials = sorted(path.parent for path in (runs / "search").rglob("metrics.parquet"))
    assert trials
    assert all(row["a_changed_line"] == 7 for run in trials for row in read_metrics(run))
    assert (runs / "search" / "best.json").is_file()
    assert f"{job}  SUCCEEDED" in cluster.crossview("status", "--address", URL)[1]
    assert f"error: job 'nope' is unknown at {URL}; the latest there: " in cluster.crossview("logs", "nope")[1]


def test_who_has_no_token_or_a_wrong_one_is_refused(cluster: Cluster) -> None:
    wrong = cluster.folder / "wrong"
    wrong.write_text("0" * 64)
    status, output = cluster.crossview("status", "--address", URL, token=wrong)
    assert status == 2
    assert f"error: {URL}: the cluster refuses this token (RAY_AUTH_TOKEN_PATH={wrong})" in output
    right = cluster.laptop.home / ".ray" / "auth_token"
    hidden = right.rename(right.with_name("hidden"))
    try:
        status, output = cluster.crossview("submit", "resume", "x", "--address", URL)
        assert status == 2
        assert f"error: {URL}: the cluster wants a token and none was sent" in output
        code = "import ray; ray.init('10.77.0.10:6379')"
        driver = cluster.laptop.run("timeout", "60", "python", "-c", code, env={"RAY_AUTH_MODE": "disabled"})
        assert driver.returncode not in (0, 124), driver.stdout
    finally:
        hidden.rename(right)


def test_the_dashboard_is_reached_through_the_tunnel_alone(cluster: Cluster) -> None:
    status, output = cluster.crossview("status", "--address", f"http://{cluster.hosts[0].address}:8265")
    assert status == 2
    assert "nothing answers there" in output


def test_the_token_is_in_no_log_and_for_its_owner_alone(cluster: Cluster) -> None:
    token = (cluster.laptop.home / ".ray" / "auth_token").read_text()
    assert token not in cluster.output
    for host in cluster.hosts:
        file = host.home / ".ray" / "auth_token"
        assert file.read_text() == token
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        found = host.run("grep", "-rlF", token, f"{cluster.folder}/tmp", str(cluster.file))
        assert found.stdout == ""


def test_ray_down_leaves_nothing_behind(cluster: Cluster) -> None:
    """The last one: it ends the cluster."""
    done = cluster.laptop.run("ray", "down", "-y", str(cluster.file), cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for host in cluster.hosts:
        _wait(lambda host=host: f"{[row for row in host.processes() if 'ray' in row.lower()]}", "[]", limit_s=90)


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
