from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer

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


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes (-n 2) one has all files that start Ray, and so starts one cluster at a time."""
    from xdist.scheduler import LoadScopeScheduling

    here = Path(__file__).parent
    starts_ray = {file.name for file in here.glob("test_*.py") if "pytest.mark.ray" in file.read_text()}

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            name = nodeid.partition("::")[0].rpartition("/")[2]
            return "ray" if name in starts_ray else name

    return ByFile(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One small cluster in this process for all tests that need Ray."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level="warning",
    )
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
