"""Several nodes simulated on one machine: what workers agree on, where decoding runs, and what faults cost.

Drivers run in processes of their own (simulated.py), as one process can be connected to one cluster only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import evgap_tiny
import numpy as np
import pytest
from feature_catalog import write_feature_catalog

from crossview.datasets.catalog import Catalog, Recording
from crossview.methods.recipe import Optim
from crossview.platform.config import Cadence, Compute, Data, Experiment, preset, to_dict
from crossview.platform.metrics import read_metrics
from crossview.platform.train import start

pytestmark = pytest.mark.ray

STEPS, BATCH = 40, 8
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
            named = {"dataset": "scenes", "split": "train", "scene": str(scene), "view": view, "subject": "0"}
            recordings.append(Recording(**named, **facts, **sizes))  # type: ignore[arg-type]
    Catalog(folder, tuple(recordings), ()).save(folder / "catalog")
    return folder / "catalog"


class Simulated:
    """A head without CPUs, nodes with one pretended GPU each or more for training, and one without for decoding."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.trainers = [self.add(num_cpus=1, num_gpus=1), self.add(num_cpus=1, num_gpus=1)]
        self.spare = self.add(num_cpus=1, num_gpus=2)
        self.decoder = self.add(num_cpus=2)

    def add(self, **resources: Any) -> Any:
        return self.cluster.add_node(object_store_memory=100 * 2**20, **resources)

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
def several(simulated: Simulated, features: Path, scenes: Path) -> dict[str, tuple[Path, Path]]:
    """Runs of several workers and of one process, by name; one driver trains the former one after the other."""
    byov, groups = preset("byov", "debug").method, evgap_tiny.GROUPS
    cases = {
        "gathered": ("evgap", experiment("evgap", evgap_tiny.TINY, scenes, 4, workers=4)),
        "groups": ("evgap", experiment("evgap", groups, scenes, 4, workers=2, micro_batch=2)),
        "fsdp": ("byov", experiment("byov", byov, features, 4, workers=2, micro_batch=2, parallel="fsdp")),
    }
    folder = simulated.folder
    asked = [
        {"run": str(folder / name), "config": config_file(folder, method, made)}
        for name, (method, made) in cases.items()
    ]
    simulated.finish(simulated.driver(folder / "several", *asked), folder / "several")
    alone = {name: start(folder / f"{name}-alone", *case, in_process=True) for name, case in cases.items()}
    return {name: (folder / name, run) for name, run in alone.items()}


@pytest.mark.parametrize("name", ["gathered", "groups", "fsdp"])
def test_workers_on_several_nodes_agree_with_one_process(name: str, several: dict[str, tuple[Path, Path]]) -> None:
    """A loss over all workers' pairs, one over each forward pass's groups, and a model in parts."""
    run, alone = several[name]
    assert len(losses(alone)) == 4
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)


def test_each_worker_has_its_own_samples(several: dict[str, tuple[Path, Path]], simulated: Simulated) -> None:
    for name, world in (("gathered", 4), ("groups", 2), ("fsdp", 2)):
        mine = [n for n in noted(simulated.folder / "several", "worker") if n["run"] == name]
        assert {n["rank"] for n in mine} == set(range(world))
        samples = [sample for n in mine for sample in n["samples"]]
        assert len(set(samples)) == len(samples)
        assert sorted(samples) == list(range(4 * BATCH))
        assert len({n["node"] for n in mine}) == (3 if world == 4 else len({n["node"] for n in mine}))


def test_decoding_runs_on_the_node_without_a_gpu(several: dict[str, tuple[Path, Path]], simulated: Simulated) -> None:
    places = {n["node"] for n in noted(simulated.folder / "several", "decoder")}
    assert places == {simulated.decoder.node_id}
