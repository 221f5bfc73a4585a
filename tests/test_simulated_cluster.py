"""Several nodes simulated on one machine: what workers agree on, where decoding runs, and what faults cost.

Drivers run in processes of their own (simulated.py), as one process can be connected to one cluster only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import evgap_tiny
import numpy as np
import pytest
import torch
import torch.distributed as dist
from feature_catalog import write_feature_catalog

from crossview.datasets.catalog import Catalog, Recording, one_protocol
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint, run_folder
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset, to_dict
from crossview.platform.train.launcher import start
from crossview.platform.train.loop import train
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.resolve import saved
from crossview.platform.train.state import Worker

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.timeout(1800),
]  # many processes start, on whatever cores there are

STEPS, BATCH = 56, 8
Note = dict[str, Any]


def experiment(method: str, config: Any, catalog: Path, steps: int, **compute: Any) -> Experiment[Any]:
    return Experiment(
        data=Data(catalog=catalog),
        method=config,
        optim=Optim(lr=1e-3, batch=BATCH, steps=steps, warmup_steps=3, clip_norm=1.0, ema_decay=0.9),
        compute=Compute(device="cpu", threads=1, **compute),
        every=Cadence(log=1, checkpoint=4, keep=20),
    )


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run)]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of two ego and three exo cameras with features, for EVGAP."""
    folder, rng, recordings = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0), []
    for scene in range(12):
        for view in ("ego0", "ego1", "exo0", "exo1", "exo2"):
            np.save(folder / f"{scene}_{view}.npy", rng.standard_normal((64, 2, 12)).astype(np.float16))
            facts = {"perspective": view[:3], "path": f"{scene}_{view}.npy", "kind": "features", "action": ""}
            sizes = {"fps": 15.0, "num_frames": 64, "height_px": 1, "width_px": 1}
            named = {"dataset": "scenes", "scene": str(scene), "view": view, "subject": "0"}
            recordings.append(Recording(**named, **facts, **sizes))  # type: ignore[arg-type]
    Catalog(folder, tuple(recordings), protocols=one_protocol((r, "train") for r in recordings)).save(
        folder / "catalog"
    )
    return folder / "catalog"


class Simulated:
    """A head without CPUs, nodes with one pretended GPU each or more for training, and one without for decoding."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.trainers = [self.add(num_cpus=1, num_gpus=1), self.add(num_cpus=1, num_gpus=1)]
        self.spare: Any = self.add(num_cpus=1, num_gpus=2)
        self.decoder = self.add(num_cpus=2)

    def add(self, **resources: Any) -> Any:
        return self.cluster.add_node(object_store_memory=100 * 2**20, **resources)

    def two_trainers(self) -> None:
        """Leave two nodes for training, each with room for one worker."""
        if self.spare is not None:
            self.cluster.remove_node(self.spare, allow_graceful=False)
            self.spare = None

    def drain(self, node: Any) -> None:
        """Give notice that a node will be taken away in two minutes."""
        command = ["drain-node", "--address", self.cluster.address, "--node-id", node.node_id]
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "reclaimed"]
        ray = str(Path(sys.executable).with_name("ray"))
        subprocess.run([ray, *command, *reason, "--deadline-remaining-seconds", "120"], check=True)

    def driver(self, notes: Path, *asked: dict[str, str], fill: bool = False) -> subprocess.Popen[str]:
        """A process that trains runs of the given folders and configurations, or resumes them."""
        notes.mkdir(exist_ok=True)
        given = json.dumps({"notes": str(notes), "runs": asked, "fill": fill})
        script = str(Path(__file__).with_name("simulated.py"))
        return subprocess.Popen(
            [sys.executable, script, given],
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            stdout=(notes / "driver.txt").open("a"),
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], notes: Path) -> None:
        process.wait(timeout=900)
        assert process.returncode == 0, (notes / "driver.txt").read_text()[-3000:]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    cluster = Simulated(tmp_path_factory.mktemp("simulated"))
    yield cluster
    cluster.cluster.shutdown()


def noted(notes: Path, kind: str) -> list[Note]:
    lines = [line for file in notes.glob(f"{kind}-*.jsonl") for line in file.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines if line.endswith("}")), key=lambda n: n["time"])


def wait_for(ready: Callable[[], Any], process: subprocess.Popen[str], notes: Path) -> Any:
    deadline = time.monotonic() + 600
    while not (found := ready()):
        assert process.poll() is None, (notes / "driver.txt").read_text()[-3000:]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return found


def config_file(folder: Path, method: str, made: Experiment[Any]) -> str:
    file = folder / f"{time.time_ns()}.json"
    file.write_text(json.dumps(to_dict(method, made)))
    return str(file)


# Equal to one process


@pytest.fixture(scope="module")
def several(simulated: Simulated, scenes: Path) -> dict[str, tuple[Path, Path]]:
    """Runs of several workers and of one process, by name; one driver trains the former one after the other."""
    cut = {"workers": 2, "micro_batch": 2, "parallel": "fsdp"}
    cases = {
        "gathered": ("evgap", experiment("evgap", evgap_tiny.TINY, scenes, 4, workers=4)),
        "groups": ("evgap", experiment("evgap", evgap_tiny.GROUPS, scenes, 4, **cut)),
    }
    folder = simulated.folder
    asked = [
        {"run": str(folder / name), "config": config_file(folder, method, made)}
        for name, (method, made) in cases.items()
    ]
    simulated.finish(simulated.driver(folder / "several", *asked), folder / "several")
    alone = {name: start(folder / f"{name}-alone", *case, in_process=True) for name, case in cases.items()}
    return {name: (folder / name, run) for name, run in alone.items()}


@pytest.mark.parametrize("name", ["gathered", "groups"])
def test_workers_on_several_nodes_agree_with_one_process(name: str, several: dict[str, tuple[Path, Path]]) -> None:
    """A loss over all workers' pairs; and one over each forward pass's groups, of a model in parts."""
    run, alone = several[name]
    assert len(losses(alone)) == 4
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)


def test_each_worker_has_its_own_samples(several: dict[str, tuple[Path, Path]], simulated: Simulated) -> None:
    for name, world in (("gathered", 4), ("groups", 2)):
        mine = [n for n in noted(simulated.folder / "several", "worker") if n["run"] == name]
        assert {n["rank"] for n in mine} == set(range(world))
        samples = [sample for n in mine for sample in n["samples"]]
        assert len(set(samples)) == len(samples)
        assert sorted(samples) == list(range(4 * BATCH))
        if world == 4:  # nodes for training have room for 1, 1 and 2
            assert len({n["node"] for n in mine}) == 3


def test_decoding_runs_on_the_node_without_a_gpu(several: dict[str, tuple[Path, Path]], simulated: Simulated) -> None:
    places = {n["node"] for n in noted(simulated.folder / "several", "decoder")}
    assert places == {simulated.decoder.node_id}


# Faults


@pytest.fixture(scope="module")
def straight(simulated: Simulated, features: Path) -> Path:
    """Two processes, uninterrupted and without Ray: what each run below must come to."""
    made = experiment("byov", preset("byov", "debug").method, features, STEPS, workers=2)
    run = simulated.folder / "straight"
    run_folder.create(run, "byov", made)
    context = get_context("spawn")
    processes = [context.Process(target=_plain_worker, args=(rank, run, made)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    return run


def _plain_worker(rank: int, run: Path, made: Experiment[Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{run}/meet", rank=rank, world_size=2)
    train(saved(run), Worker(torch.device("cpu"), rank, 2, in_process=True), lambda status: None)
    dist.destroy_process_group()


def test_what_breaks_costs_nothing_past_the_last_checkpoint(
    simulated: Simulated, straight: Path, features: Path
) -> None:
    """Full object stores, a killed decode actor, a node that goes and another that comes, and a killed driver."""
    simulated.two_trainers()
    run, notes = simulated.folder / "faults", simulated.folder / "faults-notes"
    notes.mkdir()
    for step in (12, 44):  # a held block keeps the one before it from the workers too: Ray fetches ahead
        (notes / f"hold-{step}").touch()
    made = experiment("byov", preset("byov", "debug").method, features, STEPS, workers=2)
    asked = {"run": str(run), "config": config_file(simulated.folder, "byov", made)}
    driver = simulated.driver(notes, asked, fill=True)
    try:
        held = wait_for(lambda: _held(notes, 12, 2), driver, notes)
        wait_for(lambda: checkpoint.folder(run, 8).exists(), driver, notes)
        assert list(Path(simulated.cluster.head_node.get_session_dir_path()).glob("ray_spilled_objects*/*"))
        os.kill(held[0], signal.SIGKILL)
        wait_for(lambda: set(_held(notes, 12, 3)) - set(held), driver, notes)  # another takes its block over
        (notes / "hold-12").unlink()
        wait_for(lambda: checkpoint.folder(run, 40).exists(), driver, notes)
        assert len({n["pid"] for n in noted(notes, "worker")}) == 2  # no worker had to be started again

        lost = simulated.trainers.pop()
        simulated.cluster.remove_node(lost, allow_graceful=False)
        simulated.trainers.append(simulated.add(num_cpus=1, num_gpus=1))
        before = set(_held(notes, 44, 0))
        wait_for(lambda: len(set(_held(notes, 44, 0)) - before) == 2, driver, notes)
        driver.kill()
        driver.wait()
    finally:
        driver.kill()
    (notes / "hold-44").unlink()
    again = simulated.driver(notes, {"run": str(run)})
    simulated.finish(again, notes)
    assert losses(run) == losses(straight)
    assert len(losses(run)) == STEPS
    weights, expected = (checkpoint.read_weights(checkpoint.folder(r, STEPS)) for r in (run, straight))
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_notices_end_a_group_with_its_current_step(simulated: Simulated, straight: Path, features: Path) -> None:
    """SIGTERM to the driver, whose resumed run then loses a node with notice: neither counts as a failure."""
    simulated.two_trainers()
    run, notes = simulated.folder / "notices", simulated.folder / "notices-notes"
    notes.mkdir()
    for step in (12, 44):
        (notes / f"hold-{step}").touch()
    made = experiment("byov", preset("byov", "debug").method, features, STEPS, workers=2, max_failures=0)
    asked = {"run": str(run), "config": config_file(simulated.folder, "byov", made)}
    driver = simulated.driver(notes, asked)
    try:
        wait_for(lambda: _held(notes, 12, 2), driver, notes)
        wait_for(lambda: checkpoint.folder(run, 8).exists(), driver, notes)
        driver.send_signal(signal.SIGTERM)
        wait_for(lambda: [n for n in noted(notes, "stage") if n["stage"] == "leaving"], driver, notes)
        (notes / "hold-12").unlink()
        assert driver.wait(timeout=600) == 143, (notes / "driver.txt").read_text()[-3000:]
        left = checkpoint.latest(run)
        assert left is not None
        assert "step-00000008" <= left.name < "step-00000044"

        driver = simulated.driver(notes, {"run": str(run)})
        before = len(_held(notes, 44, 0))
        wait_for(lambda: len(_held(notes, 44, 0)) - before == 2, driver, notes)
        simulated.drain(simulated.trainers[-1])
        wait_for(lambda: {tuple(n["ranks"]) for n in noted(notes, "preemption")}, driver, notes)
        (notes / "hold-44").unlink()
        simulated.trainers[-1] = simulated.add(num_cpus=1, num_gpus=1)
        simulated.finish(driver, notes)
    finally:
        driver.kill()
    assert "a node is about to be taken away" in (notes / "driver.txt").read_text()
    assert losses(run) == losses(straight)
    assert len(losses(run)) == STEPS
    samples = [sample for n in noted(notes, "worker") for sample in n["samples"]]
    assert len(samples) < (STEPS + 10) * BATCH  # but for what was fetched ahead and not used


def _held(notes: Path, step: int, count: int) -> list[int]:
    """Decoding processes that have come to a step, once there are `count`."""
    pids = list(dict.fromkeys(n["pid"] for n in noted(notes, "decoder") if n["step"] >= step))
    return pids if len(pids) >= count else []


def test_fewer_workers_go_on_while_a_node_is_missing(simulated: Simulated, straight: Path, features: Path) -> None:
    """Two workers, one, and two again: at the same global batch, so with the same losses."""
    simulated.two_trainers()
    run, notes = simulated.folder / "elastic", simulated.folder / "elastic-notes"
    notes.mkdir()
    for step in (12, 44):
        (notes / f"hold-{step}").touch()
    made = experiment("byov", preset("byov", "debug").method, features, STEPS, workers=2, min_workers=1)
    asked = {"run": str(run), "config": config_file(simulated.folder, "byov", made)}
    driver = simulated.driver(notes, asked)
    try:
        wait_for(lambda: checkpoint.folder(run, 8).exists(), driver, notes)
        held = wait_for(lambda: _held(notes, 12, 2), driver, notes)
        simulated.cluster.remove_node(simulated.trainers.pop(), allow_graceful=False)
        wait_for(lambda: set(_held(notes, 12, 3)) - set(held), driver, notes)
        (notes / "hold-12").unlink()
        wait_for(lambda: checkpoint.folder(run, 40).exists(), driver, notes)
        simulated.trainers.append(simulated.add(num_cpus=1, num_gpus=1, resources={"decode": 1000}))
        wait_for(lambda: [n for n in noted(notes, "stage") if n["stage"] == "leaving"], driver, notes)
        (notes / "hold-44").unlink()
        simulated.finish(driver, notes)
    finally:
        driver.kill()
    worlds = [n["world"] for n in noted(notes, "worker")]
    assert [w for k, w in enumerate(worlds) if k == 0 or w != worlds[k - 1]] == [2, 1, 2]
    assert losses(run) == pytest.approx(losses(straight), rel=1e-4)
    assert len(losses(run)) == STEPS
    last = [n["node"] for n in noted(notes, "decoder")][-1]
    assert last == simulated.trainers[-1].node_id  # it declares that decoding is for it
