from __future__ import annotations

import ast
import logging
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer

    from crossview.datasets.catalog import Catalog

logging.raiseExceptions = False  # libraries bind handlers to a stream that pytest captures and then closes
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # read when ray is imported
os.environ["CROSSVIEW_PATIENCE_S"] = "1"  # storage that a test breaks stays broken
_CACHE = tempfile.TemporaryDirectory(prefix="crossview-cache-")
# Bound, never listening: so the port is kept for the S3 server, which a test may stop and start, and Ray's workers,
# which have the environment of their cluster's start, know it too.
_PORT = socket.socket()
_PORT.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
_PORT.bind(("127.0.0.1", 0))
os.environ |= {
    "CROSSVIEW_CACHE": _CACHE.name,
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{_PORT.getsockname()[1]}",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start Ray come first, most of a file first: they take longest, and so none of them is the last."""
    count = Counter(item.path for item in items if item.get_closest_marker("ray"))
    items.sort(key=lambda item: -count[item.path] if item.get_closest_marker("ray") else 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes (-n 2), each takes the next unit of tests; each has at most one cluster of its own.

    A unit is a file, whose tests share its fixtures, without its single tests that start Ray: these are a unit beside
    it, and of these a long one is a unit of its own.
    """
    from xdist.scheduler import LoadScopeScheduling

    units = {test: unit for file in Path(__file__).parent.glob("test_*.py") for test, unit in _units(file)}

    class ByUnit(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path, _, test = nodeid.partition("::")
            name = path.rpartition("/")[2]
            return units.get(f"{name}::{test.partition('[')[0]}", name)

    config.option.loadscopereorder = False
    return ByUnit(config, log)


def _units(file: Path) -> Iterator[tuple[str, str]]:
    """The tests with Ray of a file and their units; read off the decorators, as the scheduler gets names alone."""
    for test in ast.parse(file.read_text()).body:
        if isinstance(test, ast.FunctionDef):
            marks = {ast.unparse(mark) for mark in test.decorator_list}
            if "pytest.mark.ray" in marks:
                name = f"{file.name}::{test.name}"
                yield name, name if "pytest.mark.long" in marks else f"{file.name}::ray"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One small cluster in this process for all tests that need Ray, of one node, which nobody takes away."""
    import ray

    from crossview.platform.cluster.connect import start_here

    with pytest.MonkeyPatch.context() as patch:  # of the cluster's processes
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process for each group of workers
        start_here(num_cpus=4, object_store_memory=256 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ThreadedMotoServer]:
    """An S3 server over HTTP, with the bucket "crossview"."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", _PORT.getsockname()[1], verbose=False)
    server.start()
    boto3.client("s3").create_bucket(Bucket="crossview")
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: ThreadedMotoServer, tmp_path: Path) -> Path:
    """An empty folder of the S3 server."""
    from crossview.storage import as_path

    return as_path(f"s3://crossview/{tmp_path.parent.name}/{tmp_path.name}")


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small catalog of features; for runs of `feature_run.experiment`, and not to be changed."""
    from feature_catalog import write_feature_catalog

    return write_feature_catalog(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def straight(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run on them, which others are compared with; not to be changed."""
    from feature_run import experiment

    from crossview.platform.train.launcher import start

    return start(tmp_path_factory.mktemp("runs") / "straight", "byov", experiment(features), in_process=True)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the films and datasets of `layout_world`."""
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of `recording_kinds`."""
    import recording_kinds

    root = tmp_path_factory.mktemp("kinds")
    recording_kinds.write(root)
    return root


@pytest.fixture(scope="module")
def everything(kinds: Path) -> Catalog:
    """The catalog of all of them."""
    from recording_kinds import LINES, listed

    return listed(kinds, *LINES)


@pytest.fixture
def reading_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are read in this process, for tests that change how."""
    monkeypatch.setattr("crossview.datasets.video.child.inside", True)
