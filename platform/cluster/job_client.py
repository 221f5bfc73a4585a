"""Jobs on a cluster: this checkout's code is shipped with each, over Ray's `JobSubmissionClient`."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import crossview
from crossview.errors import UserError

T = TypeVar("T")

PACKAGES = ("datasets", "downstream", "methods", "platform", "storage", "tune_spaces")
TUNNEL = "http://127.0.0.1:8265"
"""Where `ray dashboard CLUSTER.yaml` puts the head's dashboard."""
REACH_S = 5.0
"""Longest wait for the head to answer; a firewall that drops packets would else hold for minutes."""


class Jobs:
    """The jobs of one cluster; whatever cannot be done raises ValueError that names the fix."""

    def __init__(self, address: str | None) -> None:
        self.address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or TUNNEL
        _reach(self.address)
        _choose_token()
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # RAY_ADDRESS would win over what was typed
        from ray.job_submission import JobSubmissionClient

        self._client = self._ask(lambda: JobSubmissionClient(self.address))

    def submit(self, job: str, entrypoint: str, env: dict[str, str]) -> None:
        """Start `entrypoint` on the head, with this code on every node."""
        with shipped() as package:
            runtime_env = {"py_modules": [str(package)], "env_vars": env}
            self._ask(
                lambda: self._client.submit_job(entrypoint=entrypoint, submission_id=job, runtime_env=runtime_env)
            )

    def all(self) -> list[Any]:
        """Submitted jobs, oldest first."""
        found = [job for job in self._ask(self._client.list_jobs) if job.submission_id]
        return sorted(found, key=lambda job: job.start_time or 0)

    def info(self, job: str) -> Any:
        """What Ray knows of one job."""
        found = {one.submission_id: one for one in self.all()}
        if job not in found:
            known = ", ".join(list(found)[-5:]) or "none yet"
            raise UserError(f"job {job!r} is unknown at {self.address}; the latest there: {known}")
        return found[job]

    def logs(self, job: str) -> str:
        """All that the job has printed."""
        self.info(job)
        return self._ask(lambda: self._client.get_job_logs(job))

    def follow(self, job: str) -> str:
        """Print what the job prints until it ends; returns its last status."""
        self.info(job)

        async def lines() -> None:
            async for text in self._client.tail_job_logs(job):
                print(text, end="", flush=True)

        self._ask(lambda: asyncio.run(lines()))
        return self._ended(job)

    def stop(self, job: str) -> str:
        """End a job; returns its last status."""
        if not ended(self.info(job)):
            self._ask(lambda: self._client.stop_job(job))
        return self._ended(job)

    def _ended(self, job: str) -> str:
        """The last status of a job whose process is ending, which Ray writes down a moment later."""
        for _ in range(60):
            info = self.info(job)
            if ended(info):
                return str(info.status.value)
            time.sleep(0.5)
        raise TimeoutError(f"job {job}: still {info.status.value} after 30 s; see `crossview status {job}`")

    def _ask(self, question: Callable[[], T]) -> T:
        """A request to the head; its errors become ours."""
        import aiohttp
        import requests
        from ray.exceptions import AuthenticationError

        try:
            return question()
        except (requests.RequestException, aiohttp.ClientError, ConnectionError) as error:
            raise ConnectionError(
                f"{self.address}: the connection broke or this is not Ray's dashboard ({error}); the cluster's jobs go "
                "on by themselves. Open the tunnel again (`ray dashboard CLUSTER.yaml`), or pass --address"
            ) from error
        except (RuntimeError, AuthenticationError) as error:
            raise UserError(_refusal(self.address, str(error))) from error


def ended(info: Any) -> bool:
    """Whether a job will change no more."""
    return bool(info.status.is_terminal())


def _refusal(address: str, reason: str) -> str:
    if "Authentication required" in reason:
        return (
            f"{address}: the cluster wants a token and none was sent; put the cluster's into ~/.ray/auth_token, or set "
            "RAY_AUTH_TOKEN_PATH to the file that holds it"
        )
    if "Authentication failed" in reason:
        return (
            f"{address}: the cluster refuses this token ({_token_source()}); use the one that the cluster was started "
            "with: it is in ~/.ray/auth_token on the head"
        )
    return f"{address}: {reason}"


def _token_source() -> str:
    """Which of Ray's places the token comes from; never the token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return name if name == "RAY_AUTH_TOKEN" else f"{name}={os.environ[name]}"
    return "~/.ray/auth_token" if (Path.home() / ".ray" / "auth_token").is_file() else ""


def _choose_token() -> None:
    """Send a token where there is one: Ray asks for RAY_AUTH_MODE besides, and ends the process where none is found."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path and not Path(path).is_file():
        raise UserError(f"RAY_AUTH_TOKEN_PATH={path}: no such file; name the file that holds the cluster's token")
    if os.environ.get("RAY_AUTH_MODE", "token") == "token":
        os.environ["RAY_AUTH_MODE"] = "token" if _token_source() else "disabled"


def _reach(address: str) -> None:
    parts = urlsplit(address)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise UserError(
            f"--address {address}: not the address of a dashboard; it reads http://HOST:PORT, such as {TUNNEL} once "
            "`ray dashboard CLUSTER.yaml` runs"
        )
    try:
        socket.create_connection((parts.hostname, port), timeout=REACH_S).close()
    except OSError as error:
        raise ConnectionError(
            f"--address {address}: nothing answers there ({error}). Is the cluster up (`ray up CLUSTER.yaml`) and the "
            "tunnel open (`ray dashboard CLUSTER.yaml`, in a terminal of its own)? Else pass --address"
        ) from error


@contextmanager
def shipped() -> Iterator[Path]:
    """A folder `crossview` that holds this code as an importable package, and nothing else of the checkout."""
    root = Path(__file__).resolve().parent.parent.parent
    with tempfile.TemporaryDirectory(prefix="crossview-") as temporary:
        package = Path(temporary) / "crossview"
        for name in PACKAGES:
            shutil.copytree(root / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        # With this file the nodes' own installation adds no module that the checkout lacks.
        shutil.copyfile(str(crossview.__file__), package / "__init__.py")
        yield package
